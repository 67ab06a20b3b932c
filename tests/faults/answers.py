"""What a well-behaved OpenAI-compatible upstream says: completions, streamed chunks and errors, as bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TOKENS = ("Hello", ",", " world", "!")
TOOL_FRAGMENTS = ('{"city":', '"Paris"}')
MODELS = ("gpt-4.1-mini", "gpt-4.1")
DONE = b"data: [DONE]\n\n"
_CREATED = 1_700_000_000
_ODD = {"one": 1.0, "tiny": 1e-07, "accent": "é", "": [], "null": None}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Script:
    """The events of one stream in their order, without the final `[DONE]`."""

    opening: tuple[bytes, ...]
    tokens: tuple[bytes, ...]
    finish: tuple[bytes, ...]
    usage: tuple[bytes, ...]

    def until(self, count: int) -> tuple[bytes, ...]:
        """The role chunk and the first `count` token chunks."""
        return self.opening + self.tokens[:count]

    def whole(self) -> tuple[bytes, ...]:
        """Everything a good stream has, `[DONE]` included."""
        return (*self.opening, *self.tokens, *self.finish, *self.usage, DONE)


def event(chunk: Json, *, ascii_only: bool = True) -> bytes:
    """One server-sent event with `chunk` as compact JSON."""
    return b"data: " + json.dumps(chunk, separators=(",", ":"), ensure_ascii=ascii_only).encode() + b"\n\n"


def error(message: str, *, code: str | None, param: str | None = None) -> bytes:
    """An error body in OpenAI's shape; `type` equals `code`."""
    shape = {"message": message, "type": code or "server_error", "param": param, "code": code}
    return json.dumps({"error": shape}, indent=2).encode()


def model_list() -> bytes:
    """The answer of `GET /v1/models`."""
    rows = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "tests"} for name in MODELS]
    return json.dumps({"object": "list", "data": rows}).encode()


def tokens_for(request: Json) -> tuple[str, ...]:
    """The text this request is answered with, in pieces."""
    wanted = request.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        text = json.dumps(_sample(wanted["json_schema"].get("schema", {})))
    elif wanted.get("type") == "json_object":
        text = json.dumps({"city": "Paris"})
    else:
        return TOKENS
    return (text[:5], text[5:])


def tool_of(request: Json) -> str | None:
    """The tool to call: the first one offered, unless none is wanted or one has answered already."""
    tools = request.get("tools")
    answered = any(message.get("role") == "tool" for message in request.get("messages", []))
    if not tools or answered or request.get("tool_choice") == "none":
        return None
    return str(tools[0]["function"]["name"])


def completion(
    request: Json, tokens: Sequence[str] | None = None, *, finish: str | None = "stop", **message: object
) -> Json:
    """A whole answer; `message` adds fields to each choice's message."""
    texts = tokens_for(request) if tokens is None else tokens
    tool = tool_of(request)
    said: Json = {
        "role": "assistant",
        "content": "".join(texts),
        "refusal": None,
        "annotations": [],
        **message,
    }
    if tool is not None:
        finish = "tool_calls" if finish == "stop" else finish
        said |= {"content": None, "tool_calls": [_tool_call(tool, "".join(TOOL_FRAGMENTS))]}
    choices = [
        {"finish_reason": finish, "index": index, "message": said, "logprobs": _logprobs(request, texts)}
        for index in range(_count(request))
    ]
    return {
        "usage": usage(len(texts)),
        "x_odd": _ODD,
        "choices": choices,
        **_common(request, "chat.completion"),
    }


def odd(body: Json) -> bytes:
    """JSON as no sane serialiser writes it, so that any re-encoding on the way shows."""
    text = json.dumps(body, indent=3, separators=(" ,", " : "))
    return text.replace("Hello", "H\\u0065llo").encode() + b" \r\n"


def script(
    request: Json,
    tokens: Sequence[str | None] | None = None,
    *,
    finish: str | None = "stop",
    ascii_only: bool = True,
) -> Script:
    """The stream for `request`: role, tokens, finish and, when it was asked for, usage."""
    texts = tokens_for(request) if tokens is None else tokens
    with_usage = bool((request.get("stream_options") or {}).get("include_usage"))
    common = _common(request, "chat.completion.chunk") | ({"usage": None} if with_usage else {})
    tool = tool_of(request)
    deltas: list[Json] = [{"content": text} for text in texts] if tool is None else _tool_deltas(tool)

    def chunks(delta: Json, reason: str | None = None) -> tuple[bytes, ...]:
        rows = _choices(request, delta, reason)
        return tuple(event({**common, "choices": [row]}, ascii_only=ascii_only) for row in rows)

    return Script(
        opening=chunks({"role": "assistant", "content": None if tool else "", "refusal": None}),
        tokens=tuple(part for delta in deltas for part in chunks(delta)),
        finish=chunks({}, "tool_calls" if tool and finish == "stop" else finish),
        usage=(event({**common, "choices": [], "usage": usage(len(deltas))}),) if with_usage else (),
    )


def usage(completion_tokens: int) -> Json:
    """Token counts: 9 in, `completion_tokens` out."""
    return {
        "prompt_tokens": 9,
        "completion_tokens": completion_tokens,
        "total_tokens": 9 + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _common(request: Json, kind: str) -> Json:
    model = request.get("model", MODELS[0])
    return {
        "model": model,
        "id": "chatcmpl-upstream",
        "object": kind,
        "created": _CREATED,
        "service_tier": "default",
        "system_fingerprint": "fp_écho",
    }


def _choices(request: Json, delta: Json, reason: str | None) -> list[Json]:
    text = delta.get("content")
    logprobs = _logprobs(request, [text] if text else [])
    return [
        {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        for index in range(_count(request))
    ]


def _count(request: Json) -> int:
    return int(request.get("n") or 1)


def _logprobs(request: Json, texts: Sequence[str]) -> Json | None:
    if not request.get("logprobs"):
        return None
    rows = [{"token": text, "logprob": -0.25, "bytes": list(text.encode()), "top_logprobs": []} for text in texts]
    return {"content": rows, "refusal": None}


def _tool_call(name: str, arguments: str) -> Json:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def _tool_deltas(name: str) -> list[Json]:
    first: Json = {"tool_calls": [{"index": 0, **_tool_call(name, "")}]}
    rest = [{"tool_calls": [{"index": 0, "function": {"arguments": fragment}}]} for fragment in TOOL_FRAGMENTS]
    return [first, *rest]


def _sample(schema: Json) -> object:
    """A value that satisfies the simple JSON schemas that clients send."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: _sample(part) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_sample(schema.get("items", {"type": "string"}))]
    plain: Json = {"string": "Paris", "integer": 7, "number": 1.5, "boolean": True}
    return plain.get(kind)
