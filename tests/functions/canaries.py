"""Canaries for the privacy tests: texts planted wherever a caller or a provider can put any."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from tests.faults.scenarios import SCENARIOS
from tests.ways import Way

CANARY: Final = "kanari"  # in every planted text, whatever its form
KEY: Final = f"sk-{CANARY}0123456789abcdef"
SECRET: Final = f"sk-{CANARY}fedcba9876543210"
QUESTION: Final = f"my {CANARY} question"
ARGUMENTS: Final = {
    "slow": "0.1",
    "status": "429:rate_limit_exceeded:2",
    "needs-key": "nobody",
    "big": "50",
    "huge-line": "5000",
    "paced": "3:10",
    "turns": "ok",
    "in-band-code": f"{CANARY}:2",
    "finish": "stop",
    "slow-status": "500 0.1",
    "cut-of": "2 4",
    "pause": "2 4 0.1",
    "slow-first": "0.1",
    "later": "s 1",
}
METHODS: Final = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")
STATUSES: Final = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 529)
# Upstream calls the first tool by its name, and answers with the first value that a schema allows.
TOOLS: Final[dict[str, Any]] = {
    "tools": [{"type": "function", "function": {"name": CANARY, "description": QUESTION, "parameters": {}}}],
    "metadata": {CANARY: QUESTION},
}
SCHEMA: Final[dict[str, Any]] = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": CANARY, "schema": {"enum": [f"It is {QUESTION}"]}},
    }
}
MESSAGES: Final[list[dict[str, Any]]] = [
    {"role": "system", "content": QUESTION},
    {
        "role": "user",
        "content": [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": CANARY}}],
    },
]
CALLS: Final[list[dict[str, Any]]] = [
    *MESSAGES,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": CANARY, "type": "function", "function": {"name": CANARY, "arguments": QUESTION}}],
    },
    {"role": "tool", "tool_call_id": CANARY, "content": QUESTION},
]


def scenarios() -> Iterator[str]:
    """Each way in which the upstream can answer, with a canary that it may repeat."""
    for name in SCENARIOS:
        yield f"fault:{':'.join([name, *ARGUMENTS.get(name, '').split()])} {QUESTION}"
    for status in STATUSES:
        yield f"fault:echo-error:{status} {QUESTION}"
        yield f"fault:status:{status}:{CANARY} {QUESTION}"


def rich_bodies(way: Way) -> Iterator[bytes]:
    """Valid requests with a canary in everything that may hold text."""
    model = {"stream": way.stream} if way.dialect == "openai" else {"session_id": "s"}
    messages = CALLS if way.dialect == "openai" else MESSAGES
    yield json.dumps({"messages": messages, **model}).encode()
    yield json.dumps({"messages": MESSAGES, **model, **TOOLS}).encode()
    yield json.dumps({"messages": MESSAGES, **model, **SCHEMA}).encode()


def paths() -> tuple[str, ...]:
    """Every route, and two that are none."""
    brain, unknown = ("/", "/v1/brain/chat", "/v1/brain/chat/stream", "/v1/brain/health"), f"/v1/{CANARY}"
    return (*brain, "/v1/chat/completions", "/v1/models", "/version", unknown, f"/{CANARY}/%20{CANARY}")


def bad_bodies() -> Iterator[bytes]:
    """Bodies that are refused, each for a reason that could be told by quoting it."""
    question = [{"role": "user", "content": QUESTION}]
    yield b""
    yield CANARY.encode()
    yield b'{"messages": "' + CANARY.encode() + b'\xff"}'
    yield b'{"messages": [{"role": "user", "content": "' + CANARY.encode()
    yield b"[" * 100 + CANARY.encode()
    yield json.dumps([CANARY]).encode()
    changes: tuple[dict[str, Any], ...] = (
        {CANARY: CANARY},
        {"model": CANARY},
        {"model": f"{CANARY} \n"},
        {"temperature": CANARY},
        {"max_tokens": 10**9, "user": CANARY},
        {"messages": [{"role": CANARY, "content": CANARY, CANARY: 1}]},
        {"messages": [{"role": "user", "content": [{CANARY: CANARY}]}]},
        {"messages": []},
    )
    for more in changes:
        yield json.dumps({"messages": question, "tools": [{"type": 5, CANARY: QUESTION}], **more}).encode()


def odd_headers() -> tuple[dict[str, str], ...]:
    """Headers that hold what nobody should repeat."""
    odd = {
        "Authorization": f"Bearer {CANARY}",
        "Cookie": f"a={CANARY}",
        f"X-{CANARY}": CANARY,
        "Origin": f"https://{CANARY}",
    }
    traces = {"traceparent": f"00-{CANARY}-01", "X-Cloud-Trace-Context": f"{CANARY}/1", "X-Trace-Id": f"not {CANARY}"}
    return {**odd, **traces}, {"Content-Type": f"text/{CANARY}"}, {"Content-Encoding": CANARY}
