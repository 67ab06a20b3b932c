"""The mock: answers that name provider and model, at a model's pace and with faults on demand, for trying things
without a key. It serves any model name; two of them are faults:

- `error:CODE` fails with that code of `errors` before the first token, for example `error:rate_limit`;
- `cut:N` breaks a stream after N tokens.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

from shared import errors
from shared.errors import EchoBrainError, UpstreamError, UpstreamTimeout
from shared.models import Answer, ChatRequest, Chunk, ProviderHealth, Usage
from shared.providers.stub import canned_answer, canned_chunks

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


class Mock:
    """`delay_s` is the range of the time to the first token, `pace_s` the time between tokens, both in seconds."""

    model = None

    def __init__(self, name: str = "mock", delay_s: tuple[float, float] = (0.1, 0.2), pace_s: float = 0.02) -> None:
        self.name = name
        self._delay_s = delay_s
        self._pace_s = pace_s
        self._random = random.Random(0)  # noqa: S311 - the same delays in every process

    async def complete(self, request: ChatRequest) -> Answer:
        """`Mock answer from PROVIDER, model MODEL.`"""
        tokens = await self._begin(request)
        return canned_answer("".join(tokens), self._model(request), request.choices, _usage(request, tokens))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """The words of the same answer, one chunk each."""
        tokens = await self._begin(request)
        cut_after = _cut_after(self._model(request))
        sent = 0
        for chunk in canned_chunks(tokens, request, self._model(request), _usage(request, tokens)):
            if chunk.has_content and sent == cut_after:
                raise UpstreamError
            yield chunk
            sent += chunk.has_content
            await asyncio.sleep(self._pace_s)

    async def health(self) -> ProviderHealth:
        """Always well."""
        return ProviderHealth(healthy=True, latency_ms=0.0)

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _begin(self, request: ChatRequest) -> list[str]:
        await asyncio.sleep(self._random.uniform(*self._delay_s))
        kind, _, code = self._model(request).partition(":")
        if kind == "error" and code in _FAULTS:
            fault = _FAULTS[code]()  # a new one each time: an exception gathers where it has been
            raise fault
        return f"Mock answer from {self.name}, model {self._model(request)}.".replace(" ", "\0 ").split("\0")

    def _model(self, request: ChatRequest) -> str:
        return request.model or self.name


def _cut_after(model: str) -> int | None:
    kind, _, count = model.partition(":")
    return int(count) if kind == "cut" and count.isdigit() else None


def _usage(request: ChatRequest, tokens: list[str]) -> Usage:
    """A word a token, roughly: the numbers only have to be plausible and repeatable."""
    asked = sum(len(str(message.get("content", "")).split()) for message in request.messages())
    return Usage(asked, len(tokens), asked + len(tokens))
