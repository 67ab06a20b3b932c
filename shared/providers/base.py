"""What the gateway needs of a provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from shared.models import Answer, ChatRequest, Chunk, ProviderHealth


class Provider(Protocol):
    """A source of answers. Every failure is an `EchoBrainError`; a broken answer is never returned as a whole one."""

    @property
    def name(self) -> str:
        """The name callers see in `X-Served-By`."""
        ...

    @property
    def model(self) -> str | None:
        """The one model served, or None when any name is."""
        ...

    async def complete(self, request: ChatRequest) -> Answer:
        """The whole answer; cancelling closes the provider's connection."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """The answer as it comes. Only the last chunk has an `ending`; closing the generator closes upstream."""
        ...

    async def health(self) -> ProviderHealth:
        """Asks the provider now; never raises and sets no limit of its own."""
        ...

    async def aclose(self) -> None:
        """Closes what is open; the provider is not used again."""
        ...
