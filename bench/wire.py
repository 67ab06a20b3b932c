"""What goes over the wire in the benchmark: the questions, and exactly how the upstream answers each of them.

The upstream writes these bytes and the load generator compares what came through with them, so both import
this module. What to answer is said in the last user message: `bench:chat`, `bench:burst:CHUNKS` or
`bench:paced:CHUNKS:INTERVAL_MS`.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

MODEL = "gpt-4.1-mini"
DIRECTIVE = re.compile(rb"bench:(?:burst:(\d+)|paced:(\d+):(\d+))")
USAGE_ASKED = re.compile(rb'"include_usage":\s*true')
# The first token of a paced stream says for how many nanoseconds the upstream held the request, so that
# whoever receives it can tell the time that others added. Twelve digits: all such streams are equally long.
HELD = re.compile(rb"held:\d{12}")
WHOLE_CHUNKED_BODY = b"\r\n0\r\n\r\n"

_SYSTEM = "You are a careful assistant. Answer in plain sentences, and say so when you do not know."
_QUESTION = "How do tides come about, and why are there two of them a day in most places but not in all? "
_WORDS = (
    " the",
    " moon",
    " pulls",
    ",",
    " and",
    " wat",
    "er",
    " \u201ctides\u201d",
    ".\n",
    " caf\u00e9",
    " 12",
    ' "',
    " so",
)
_CREATED = 1760000000
_ID = "chatcmpl-bench0001"
_USAGE = {"prompt_tokens": 61, "completion_tokens": 128, "total_tokens": 189}
_HEADERS = (
    b"HTTP/1.1 200 OK\r\nserver: bench\r\nx-request-id: req_bench0001\r\nopenai-processing-ms: 1\r\n"
    b"cache-control: no-cache\r\n"
)


def request_body(directive: str, *, stream: bool, brain: bool = False) -> bytes:
    """The JSON body of a question in the OpenAI dialect or, with `brain`, in the Brain dialect."""
    body: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": _SYSTEM},
            {"role": "user", "content": "What is the moon made of?"},
            {"role": "assistant", "content": "Mostly of silicate rock, around a small core of iron."},
            {"role": "user", "content": _QUESTION + directive},
        ],
        "temperature": 0.2,
        "max_tokens": 1024,
    }
    if not brain:
        body["model"] = MODEL
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def http_request(path: str, body: bytes) -> bytes:
    """A whole HTTP/1.1 POST on a connection that is kept alive."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: */*\r\n"
        f"authorization: Bearer sk-bench\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@cache
def chat_answer() -> bytes:
    """The body of the one answer to every question that is not streamed."""
    text = "".join(word(index) for index in range(128))
    return _json(
        {
            "id": _ID,
            "object": "chat.completion",
            "created": _CREATED,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": _USAGE,
            "system_fingerprint": "fp_44709d6fcb",
        }
    )


@cache
def chat_response() -> bytes:
    """`chat_answer` as a whole HTTP response."""
    return json_response(chat_answer())


def json_response(body: bytes) -> bytes:
    """A whole HTTP response with a JSON body."""
    return _HEADERS + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def stream_head() -> bytes:
    """The status line and headers of every streamed answer."""
    return _HEADERS + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def word(index: int) -> str:
    """The text of the content chunk at `index`; some of it needs escapes in JSON."""
    return _WORDS[index % len(_WORDS)]


def role_event(*, usage: bool) -> bytes:
    """The first event of a stream: it names the role and has no content."""
    return _chunk({"role": "assistant", "content": "", "refusal": None}, None, usage=usage)


@cache
def word_event(index: int, *, usage: bool) -> bytes:
    """The content event at `index`."""
    return _chunk({"content": word(index)}, None, usage=usage)


def held_event(held_ns: int, *, usage: bool) -> bytes:
    """The first content event of a paced stream, which says how long the upstream had the request."""
    return _chunk({"content": f"held:{held_ns:012d}"}, None, usage=usage)


@cache
def last_events(*, usage: bool) -> tuple[bytes, ...]:
    """What ends every whole stream: finish_reason, the usage if it was asked for, `[DONE]`."""
    events = [_chunk({}, "stop", usage=usage)]
    if usage:
        body = {**_envelope(), "choices": [], "usage": _USAGE}
        events.append(b"data: " + _json(body) + b"\n\n")
    return (*events, b"data: [DONE]\n\n")


@cache
def stream_body(chunks: int, *, usage: bool, paced: bool) -> bytes:
    """The body of a streamed answer with so many content chunks (held time 0 where it is paced)."""
    first = held_event(0, usage=usage) if paced else word_event(0, usage=usage)
    words = (word_event(index % len(_WORDS), usage=usage) for index in range(1, chunks))
    return b"".join((role_event(usage=usage), first, *words, *last_events(usage=usage)))


def stream_text(chunks: int, *, paced: bool) -> str:
    """The text that the content chunks of such a stream make up (held time 0 where it is paced)."""
    first = "held:" + "0" * 12 if paced else word(0)
    return first + "".join(word(index) for index in range(1, chunks))


@cache
def burst_response(chunks: int, *, usage: bool) -> bytes:
    """A whole HTTP response in which every event is an HTTP chunk of its own, as model servers send them."""
    words = (word_event(index % len(_WORDS), usage=usage) for index in range(chunks))
    events = (role_event(usage=usage), *words, *last_events(usage=usage))
    return stream_head() + b"".join(map(framed, events)) + b"0\r\n\r\n"


def framed(data: bytes) -> bytes:
    """`data` as one chunk of HTTP/1.1's chunked transfer encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def unframed(body: bytes) -> bytes:
    """What a whole chunked body carries; ValueError when it is not one."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def _chunk(delta: dict[str, Any], finish_reason: str | None, *, usage: bool) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    body = {**_envelope(), "choices": [choice]}
    if usage:
        body["usage"] = None
    return b"data: " + _json(body) + b"\n\n"


def _envelope() -> dict[str, Any]:
    return {
        "id": _ID,
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": MODEL,
        "system_fingerprint": "fp_44709d6fcb",
    }


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
