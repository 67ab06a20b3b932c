"""The use case: admit a request, let a provider answer it within its limits, and note what became of it.

No HTTP and no vendor is known here. Routing over several providers, retries and breakers belong between `admit` and
the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Final

from shared.errors import BadRequest, EchoBrainError, ModelNotFound, NotReady, UpstreamError, UpstreamTimeout
from shared.models import Answer, ChatRequest, Chunk, Exchange, ProviderHealth
from shared.providers.base import Provider
from shared.resilience.deadline import Watch
from shared.secrets import SecretSource
from shared.settings import Limits

HEALTH_TIMEOUT_S: Final = 5.0
HEALTH_CACHE_S: Final = 30.0


class Gateway:
    """One provider behind one contract. `key` is the provider's, `max_tokens` the most a caller may ask for."""

    def __init__(
        self,
        provider: Provider,
        key: SecretSource,
        limits: Limits,
        max_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._key = key
        self._limits = limits
        self._max_tokens = max_tokens
        self._clock = clock
        self._health: tuple[float, ProviderHealth] | None = None  # and until when it counts
        self._asking = asyncio.Lock()

    @property
    def provider_name(self) -> str:
        """The provider that serves."""
        return self._provider.name

    def models(self) -> list[str]:
        """The model names that can be asked for."""
        return [self._provider.model or self._provider.name]

    def admit(self, request: ChatRequest, exchange: Exchange) -> None:
        """Refuses what cannot be served: `ModelNotFound`, or `BadRequest` for a cap above the allowed one."""
        served = self._provider.model
        if served is not None and request.model not in (None, served):
            raise ModelNotFound(param="model")
        cap = request.cap
        if cap is not None and cap.tokens > self._max_tokens:
            raise BadRequest(f"{cap.parameter}: at most {self._max_tokens} may be asked for", param=cap.parameter)
        exchange.provider = self._provider.name
        exchange.model = served or request.model or self._provider.name

    async def complete(self, request: ChatRequest, exchange: Exchange) -> Answer:
        """The whole answer to an admitted request, within the total limit."""
        limit_s = self._limits.request_s
        with self._attempt(exchange):
            try:
                async with asyncio.timeout(limit_s):
                    answer = await self._provider.complete(request)
            except TimeoutError:
                raise UpstreamTimeout("total", limit_s) from None
            exchange.settle(answer.ending)
            return answer

    async def stream(self, request: ChatRequest, exchange: Exchange) -> AsyncGenerator[Chunk]:
        """The chunks of the answer to an admitted request, within the limits; the last one has an ending."""
        with self._attempt(exchange), Watch(self._limits) as watch:
            async with aclosing(self._provider.stream(request)) as chunks:
                ending = None
                while ending is None:
                    watch.listen()
                    try:
                        chunk = await chunks.__anext__()
                    except StopAsyncIteration:  # a provider that stops without an ending has not answered
                        raise UpstreamError from None
                    watch.heard(token=chunk.has_content)
                    if chunk.has_content and exchange.first_token_s is None:
                        exchange.first_token_s = self._clock()
                    if chunk.upstream_request_id is not None:
                        exchange.upstream_request_id = chunk.upstream_request_id
                    ending = chunk.ending
                    if ending is not None:
                        exchange.settle(ending)
                    yield chunk

    async def ready(self) -> None:
        """Raises `NotReady` while the provider's key has never been read."""
        await self._key.get()

    async def health(self) -> ProviderHealth:
        """The provider's health as asked within the last 30 s; a provider that does not answer in 5 s is not well."""
        async with self._asking:
            if self._health is None or self._clock() >= self._health[0]:
                self._health = (self._clock() + HEALTH_CACHE_S, await self._ask_health())
            return self._health[1]

    async def aclose(self) -> None:
        """Closes the provider."""
        await self._provider.aclose()

    async def _ask_health(self) -> ProviderHealth:
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                return await self._provider.health()
        except TimeoutError:
            return ProviderHealth(healthy=False, latency_ms=HEALTH_TIMEOUT_S * 1000, error=UpstreamTimeout.code)

    @contextmanager
    def _attempt(self, exchange: Exchange) -> Iterator[None]:
        exchange.attempts += 1
        try:
            yield
        except EchoBrainError as error:
            if not isinstance(error, BadRequest | NotReady):  # the caller's, and ours
                exchange.failed_providers.append(self._provider.name)
            exchange.upstream_request_id = error.upstream_request_id or exchange.upstream_request_id
            raise
