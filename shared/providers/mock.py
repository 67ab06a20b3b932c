"""The mock: answers that name provider and model, at a model's pace and with faults on demand, for trying things
without a key. It goes on from a trailing assistant message. It serves any model name; some of them are faults:

- `error:CODE` fails with that code of `errors` before the first token, for example `error:rate_limit`;
- `silent` never answers;
- `cut:N` breaks an answer after N tokens;
- `stall:N` says nothing more after N tokens.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from shared import errors
from shared.errors import BrokenAnswer, EchoBrainError, UpstreamTimeout
from shared.models import Answer, ChatRequest, Chunk, ProviderHealth, Usage
from shared.providers.stub import canned_answer, canned_chunks
from shared.settings import MockPace

_FAULTS: Final[Mapping[str, Callable[[], EchoBrainError]]] = {
    kind.code: kind
    for kind in (
        errors.BadRequest,
        errors.ContextLengthExceeded,
        errors.ContentFilter,
        errors.UpstreamAuthError,
        errors.QuotaExceeded,
        errors.RateLimited,
        errors.ConnectionFailed,
        errors.UpstreamError,
    )
} | {"timeout": lambda: UpstreamTimeout("total", 60)}
_BREAK: Final = re.compile(r"(cut|stall):([0-9]{1,9})")


class Mock:
    """A provider of no network; `model` is its own, for requests that name none."""

    def __init__(self, name: str = "mock", model: str | None = None, pace: MockPace | None = None) -> None:
        self.name = name
        self.model = model
        self._pace = pace or MockPace()
        self._random = random.Random(0)  # noqa: S311 - the same delays in every process

    async def complete(self, request: ChatRequest) -> Answer:
        """`Mock answer from PROVIDER, model MODEL.`"""
        tokens = await self._begin(request)
        if fault := _BREAK.fullmatch(self._model(request)):
            await _break_off(fault[1])
        return canned_answer("".join(tokens), self._model(request), request.choices, _usage(request, tokens))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """The words of the same answer, one chunk each."""
        tokens = await self._begin(request)
        fault = _BREAK.fullmatch(self._model(request))
        sent = 0
        for chunk in canned_chunks(tokens, request, self._model(request), _usage(request, tokens)):
            if fault and chunk.has_content and sent == int(fault[2]):
                await _break_off(fault[1])
            yield chunk
            sent += chunk.has_content
            await asyncio.sleep(self._pace.pace_s)

    async def health(self) -> ProviderHealth:
        """Always well."""
        return ProviderHealth(healthy=True, latency_ms=0.0)

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _begin(self, request: ChatRequest) -> list[str]:
        """The tokens to say, after the time to the first one."""
        await asyncio.sleep(self._random.uniform(*self._pace.delay_s))
        model = self._model(request)
        kind, _, code = model.partition(":")
        if kind == "error" and code in _FAULTS:
            fault = _FAULTS[code]()  # a new one each time: an exception gathers where it has been
            raise fault
        if model == "silent":
            await _never()
        words = f"Mock answer from {self.name}, model {model}.".replace(" ", "\0 ").split("\0")
        return words[_words_said(request) :]

    def _model(self, request: ChatRequest) -> str:
        return request.model or self.model or self.name


async def _break_off(how: str) -> None:
    if how == "stall":
        await _never()
    raise BrokenAnswer


async def _never() -> None:
    await asyncio.Event().wait()


def _words_said(request: ChatRequest) -> int:
    """How many words of the answer a trailing assistant message has already."""
    messages = request.messages()
    last = messages[-1] if messages else {}
    return len(_text(last).split()) if last.get("role") == "assistant" else 0


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _usage(request: ChatRequest, tokens: list[str]) -> Usage:
    """A word a token, roughly: the numbers only have to be plausible and repeatable."""
    asked = sum(len(_text(message).split()) for message in request.messages())
    return Usage(asked, len(tokens), asked + len(tokens))
