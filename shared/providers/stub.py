"""The stub: answers at once, always the same, with no network and no key. What a frontend is built against, and the
place to roll back to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any, Final

import msgspec

from shared.models import Answer, AnswerMessage, ChatRequest, Chunk, Ending, ProviderHealth, Usage
from shared.providers.events import EventReader

USAGE: Final = Usage(prompt_tokens=10, completion_tokens=15, total_tokens=25)
STREAM_TOKENS: Final = ("Echo", " Brain", " (stub)", ":", " streaming", " response", ".")
_ENVELOPE: Final[dict[str, Any]] = {"id": "chatcmpl-stub", "created": 0, "system_fingerprint": None}


class Stub:
    """Serves any model name, or `model` alone."""

    def __init__(self, name: str = "stub", model: str | None = None) -> None:
        self.name = name
        self.model = model

    async def complete(self, request: ChatRequest) -> Answer:
        """`Echo Brain (stub): received N messages.`"""
        count = len(request.messages())
        text = f"Echo Brain (stub): received {count} message{'' if count == 1 else 's'}."
        return canned_answer(text, request.model or self.name, request.choices, USAGE)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """The fixed tokens, one chunk each."""
        for chunk in canned_chunks(STREAM_TOKENS, request, request.model or self.name, USAGE):
            yield chunk

    async def health(self) -> ProviderHealth:
        """Always well."""
        return ProviderHealth(healthy=True, latency_ms=0.0)

    async def aclose(self) -> None:
        """Nothing is open."""


def canned_answer(text: str, model: str, choices: int, usage: Usage) -> Answer:
    """A whole answer in OpenAI's form."""
    message = {"role": "assistant", "content": text, "refusal": None}
    body = {
        **_ENVELOPE,
        "object": "chat.completion",
        "model": model,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": "stop"} for index in range(choices)
        ],
        "usage": usage,
    }
    return Answer(msgspec.json.encode(body), AnswerMessage(text), Ending("stop", usage, model, None))


def canned_chunks(tokens: Iterable[str], request: ChatRequest, model: str, usage: Usage) -> Iterator[Chunk]:
    """A whole stream in OpenAI's form, read as an upstream's would be."""
    reader = EventReader(choices=request.choices, pass_usage=request.include_usage, upstream_request_id=None)
    for line in _lines(tokens, model, request.choices, usage):
        chunk = reader.feed(line)
        if chunk is not None:
            yield chunk
        if reader.failure is not None:
            raise reader.failure


def _lines(tokens: Iterable[str], model: str, choices: int, usage: Usage) -> Iterator[bytes]:
    first: dict[str, Any] = {"role": "assistant", "content": ""}
    for delta in (first, *({"content": token} for token in tokens)):
        yield b"".join(_event(model, [_choice(index, delta, None)]) for index in range(choices))
    yield b"".join(_event(model, [_choice(index, {}, "stop")]) for index in range(choices))
    yield _event(model, [], usage)


def _choice(index: int, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _event(model: str, choices: list[dict[str, Any]], usage: Usage | None = None) -> bytes:
    body = {
        **_ENVELOPE,
        "object": "chat.completion.chunk",
        "model": model,
        "choices": choices,
        "usage": usage,
    }
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
