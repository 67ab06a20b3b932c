"""The requests of the Brain contract's snapshot: answered, refused, failed by the provider, the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

ORIGIN: Final = "https://app.example.com"
ELSEWHERE: Final = "https://elsewhere.example.com"
CHAT: Final = "/v1/brain/chat"
STREAM: Final = "/v1/brain/chat/stream"
USER: Final = {"role": "user", "content": "Hello"}
JSON_TYPE: Final = {"Content-Type": "application/json"}
TOO_LARGE: Final = b" " * (10 * 1024 * 1024 + 1)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of the table."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    provider: str = "stub"


def _post(payload: object, path: str = CHAT, **headers: str) -> Ask:
    """A JSON request; the underscores of header names become hyphens."""
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return Ask("POST", path, json.dumps(payload).encode(), {**JSON_TYPE, **extra})


def _raw(body: bytes, path: str = CHAT, **headers: str) -> Ask:
    """A request whose body is sent as it is; `Content_Type` is JSON unless given."""
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return Ask("POST", path, body, {**JSON_TYPE, **extra})


def _with(**fields: object) -> dict[str, object]:
    """The smallest question and these fields."""
    return {"messages": [USER], **fields}


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


EVERY_FIELD: Final = _with(
    session_id="s-42",
    metadata={"screen": "checkout"},
    model="gpt-4.1-mini",
    temperature=0.2,
    top_p=1,
    max_tokens=200,
    stop=["\n\n"],
    seed=7,
    response_format={"type": "text"},
    tools=[{"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}],
    tool_choice="auto",
)
OPTIONAL: Final = [name for name in EVERY_FIELD if name != "messages"]
PARTS: Final = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
]
THREE: Final = [
    {"role": "system", "content": "Be short."},
    USER,
    {"role": "assistant", "content": "Hello!"},
]
ANSWERED: Final = {
    "one message": _post(_with()),
    "three messages": _post({"messages": THREE}),
    "content parts": _post({"messages": [{"role": "user", "content": PARTS}]}),
    "session id": _post(_with(session_id="s-42")),
    "every field": _post(EVERY_FIELD),
    "null for every optional field": _post(_with(**dict.fromkeys(OPTIONAL))),
    "stop as text": _post(_with(stop="END")),
    "content type with charset": _post(_with(), Content_Type="application/json; charset=utf-8"),
    "traceparent": _post(_with(), traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    "cloud trace": _post(_with(), X_Cloud_Trace_Context="105445aa7843bc8bf206b12000100000/1;o=1"),
    "own trace id": _post(_with(), X_Trace_Id="0af7651916cd43dd8448eb211c80319d"),
    "malformed trace id": _post(_with(), traceparent="00-zz-11-01", X_Trace_Id="not an id!"),
    "allowed origin": _post(_with(), Origin=ORIGIN),
    "another origin": _post(_with(), Origin=ELSEWHERE),
    "stream: one message": _post(_with(), STREAM),
    "stream: session id": _post(_with(session_id="s-42"), STREAM),
    "stream: every field": _post(EVERY_FIELD, STREAM),
    "stream: allowed origin": _post(_with(), STREAM, Origin=ORIGIN),
}
BAD_PAYLOADS: Final[dict[str, object]] = {
    "a list": [USER],
    "a string": "Hello",
    "null": None,
    "no messages": {},
    "messages null": {"messages": None},
    "messages empty": {"messages": []},
    "messages a string": {"messages": "Hello"},
    "message a string": {"messages": ["Hello"]},
    "message without role": {"messages": [{"content": "Hello"}]},
    "message without content": {"messages": [{"role": "user"}]},
    "second message bad": {"messages": [USER, {"role": "user"}]},
    "unknown role": {"messages": [{"role": "tool", "content": "Hello"}]},
    "unknown message field": {"messages": [{**USER, "name": "Ann"}]},
    "content null": {"messages": [{"role": "user", "content": None}]},
    "content a number": {"messages": [{"role": "user", "content": 1}]},
    "no parts": {"messages": [{"role": "user", "content": []}]},
    "part a string": {"messages": [{"role": "user", "content": ["Hello"]}]},
    "part without type": {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]},
    "part with type a number": {"messages": [{"role": "user", "content": [{"type": 1}]}]},
    "unknown field": _with(frequency_penalty=1),
    "stream as field": _with(stream=True),
    "model a number": _with(model=1),
    "model empty": _with(model=""),
    "temperature too high": _with(temperature=2.1),
    "temperature negative": _with(temperature=-0.1),
    "temperature a string": _with(temperature="1"),
    "temperature a boolean": _with(temperature=True),
    "top_p too high": _with(top_p=1.1),
    "max_tokens zero": _with(max_tokens=0),
    "max_tokens a fraction": _with(max_tokens=1.5),
    "max_tokens over the limit": _with(max_tokens=4097),
    "stop of five": _with(stop=["a", "b", "c", "d", "e"]),
    "stop empty": _with(stop=[]),
    "stop of numbers": _with(stop=[1]),
    "seed a string": _with(seed="7"),
    "response_format a string": _with(response_format="json"),
    "tools an object": _with(tools={}),
    "tools of strings": _with(tools=["lookup"]),
    "tool_choice a number": _with(tool_choice=1),
    "session_id empty": _with(session_id=""),
    "session_id of 201 characters": _with(session_id="s" * 201),
    "session_id a number": _with(session_id=42),
    "metadata a list": _with(metadata=[]),
    "too deep": _with(metadata=_nested(100)),
}
REFUSED: Final = {
    **{name: _post(payload) for name, payload in BAD_PAYLOADS.items()},
    "no body": _raw(b""),
    "not JSON": _raw(b'{"messages": ['),
    "two documents": _raw(b"{} {}"),
    "not UTF-8": _raw(b'{"messages": [{"role": "user", "content": "\xff"}]}'),
    "NaN": _raw(b'{"messages": [{"role": "user", "content": "Hello"}], "temperature": NaN}'),
    "Infinity": _raw(b'{"messages": [{"role": "user", "content": "Hello"}], "metadata": {"a": Infinity}}'),
    "too large": _raw(TOO_LARGE),
    "another content type": _raw(b"Hello", Content_Type="text/plain"),
    "no content type": Ask("POST", CHAT, json.dumps(_with()).encode()),
    "content encoding": _raw(b"\x1f\x8b", Content_Encoding="gzip"),
    "stream: unknown field": _post(_with(n=2), STREAM),
    "stream: messages empty": _post({"messages": []}, STREAM),
    "stream: not JSON": _raw(b"{", STREAM),
    "stream: another content type": _raw(b"Hello", STREAM, Content_Type="text/plain"),
    "stream: too large": _raw(TOO_LARGE, STREAM),
    "chat by GET": Ask("GET", CHAT),
    "stream by GET": Ask("GET", STREAM),
    "health by POST": _post({}, "/v1/brain/health"),
    "models by POST": _post({}, "/v1/models"),
    "unknown path": _post(_with(), "/v1/brain/chats"),
    "trailing slash": _post(_with(), f"{CHAT}/"),
    "refused, allowed origin": _post(_with(nonsense=1), Origin=ORIGIN),
    "unknown path, allowed origin": Ask("GET", "/nowhere", headers={"Origin": ORIGIN}),
    "chat by GET, allowed origin": Ask("GET", CHAT, headers={"Origin": ORIGIN}),
}


def _mock(model: str, path: str = CHAT) -> Ask:
    """A question to the mock, whose model names are faults."""
    return replace(_post(_with(session_id="s-42", model=model), path), provider="mock")


FAULTS: Final = (
    "bad_request",
    "context_length_exceeded",
    "content_filter",
    "auth_error",
    "quota_exceeded",
    "rate_limit",
    "connection_error",
    "upstream_error",
    "timeout",
)
FAILED: Final = {
    **{f"provider fails: {code}": _mock(f"error:{code}") for code in FAULTS},
    **{f"stream: provider fails: {code}": _mock(f"error:{code}", STREAM) for code in FAULTS},
    "stream: cut after two tokens": _mock("cut:2", STREAM),
}


def _preflight(path: str, origin: str) -> Ask:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-trace-id",
    }
    return Ask("OPTIONS", path, headers={"Origin": origin, **asked})


AROUND: Final = {
    "health": Ask("GET", "/v1/brain/health"),
    "health, deep": Ask("GET", "/v1/brain/health?deep=true"),
    "health, allowed origin": Ask("GET", "/v1/brain/health", headers={"Origin": ORIGIN}),
    "process health": Ask("GET", "/health"),
    "version": Ask("GET", "/version"),
    "models": Ask("GET", "/v1/models"),
    "preflight of chat": _preflight(CHAT, ORIGIN),
    "preflight of stream": _preflight(STREAM, ORIGIN),
    "preflight of another origin": _preflight(CHAT, ELSEWHERE),
}
CASES: Final[dict[str, Ask]] = {**ANSWERED, **REFUSED, **FAILED, **AROUND}
