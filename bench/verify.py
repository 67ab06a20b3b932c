"""Whether an answer that came through is whole: nobody is fast at something that it did not do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from bench import wire

Check = Callable[[bytes, int, bool], None]
_MASK = b"held:" + b"0" * 12


class NotWholeError(AssertionError):
    """An answer lacks something, or has something that the upstream did not send."""


def http_body(response: bytes) -> bytes:
    """The body of a whole HTTP response; NotWholeError when its status is not 200."""
    head, _, body = response.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise NotWholeError(f"answered {response[:400]!r}")
    return wire.unframed(body) if b"transfer-encoding: chunked" in head.lower() else body


def same_bytes(body: bytes, chunks: int, paced: bool) -> None:
    """The upstream's own bytes, nothing more, nothing less, nothing in another order."""
    masked = wire.HELD.sub(_MASK, body, count=1) if paced else body
    expected = wire.stream_body(chunks, usage=True, paced=paced) if chunks else wire.chat_answer()
    if masked != expected:
        pairs = enumerate(zip(masked, expected, strict=False))
        at = next((at for at, (a, b) in pairs if a != b), min(len(masked), len(expected)))
        got, due = masked[at : at + 100], expected[at : at + 100]
        raise NotWholeError(f"byte {at} of {len(masked)}: {got!r} where the upstream sent {due!r}")


def same_meaning(body: bytes, chunks: int, paced: bool) -> None:
    """Rebuilt, but with the upstream's text, finish_reason, usage and, streamed, `[DONE]` at the end."""
    if not chunks:
        _same_choice(json.loads(body)["choices"], json.loads(wire.chat_answer())["choices"])
        return
    data = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    if data[-1] != b"[DONE]":
        raise NotWholeError(f"ends with {data[-1]!r}")
    events = [json.loads(line) for line in data[:-1]]
    choices = [choice for event in events for choice in event["choices"]]
    _equal("text", _unheld("".join(c["delta"].get("content") or "" for c in choices)), _text(chunks, paced))
    _equal("content chunks", sum(bool(c["delta"].get("content")) for c in choices), chunks)
    _equal("finish_reason", [c["finish_reason"] for c in choices if c.get("finish_reason")], ["stop"])
    _equal("usage", sum(bool(event.get("usage")) for event in events), 1)


def brain(body: bytes, chunks: int, paced: bool) -> None:
    """A Brain answer; streamed: `meta`, a `token` for each content chunk, `final` with the whole text."""
    if not chunks:
        _equal("content", json.loads(body)["message"]["content"], _choice_text())
        return
    events = list(_brain_events(body))
    names = [name for name, _ in events]
    _equal("events", [names[0], len(names), names[-1]], ["meta", chunks + 2, "final"])
    _equal("kinds of events", set(names[1:-1]), {"token"})
    _equal("text", _unheld("".join(data["token"] for _, data in events[1:-1])), _text(chunks, paced))
    _equal("final text", _unheld(events[-1][1]["message"]["content"]), _text(chunks, paced))
    _equal("final usage", events[-1][1]["usage"]["total_tokens"], 189)


CHECKS: dict[str, Check] = {"same_bytes": same_bytes, "same_meaning": same_meaning, "brain": brain}


def _brain_events(body: bytes) -> Iterator[tuple[str, Any]]:
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            yield fields["event"], json.loads(fields["data"])


def _same_choice(got: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    _equal("content", got[0]["message"]["content"], expected[0]["message"]["content"])
    _equal("finish_reason", got[0]["finish_reason"], expected[0]["finish_reason"])


def _choice_text() -> Any:
    return json.loads(wire.chat_answer())["choices"][0]["message"]["content"]


def _text(chunks: int, paced: bool) -> str:
    return wire.stream_text(chunks, paced=paced)


def _unheld(text: str) -> str:
    return wire.HELD.sub(_MASK, text.encode(), count=1).decode()


def _equal(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise NotWholeError(f"{what}: {str(got)[:200]!r} where {str(expected)[:200]!r} was due")
