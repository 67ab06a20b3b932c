"""The OpenAI-compatible provider with a vendor's row, and questions to ask a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from shared.models import ChatRequest, Chunk
from shared.providers.base import Provider
from shared.providers.vendors import VENDORS
from shared.secrets import FixedSecret
from shared.settings import ProviderSettings
from tests.contract.vendor_server import KEY, VendorServer, vendor_server


def compatible(vendor: str, base_url: str, model: str | None = "gpt-test") -> Provider:
    """The OpenAI-compatible provider with a vendor's row."""
    from shared.providers.slim_import import defer_sdk_types

    defer_sdk_types()
    from shared.providers.openai_compatible import OpenAICompatible

    settings = ProviderSettings(name=vendor, vendor=vendor, model=model, base_url=base_url)
    return OpenAICompatible(settings, VENDORS[vendor], FixedSecret(KEY))


@asynccontextmanager
async def at_vendor(vendor: str) -> AsyncIterator[tuple[Provider, VendorServer]]:
    """The OpenAI-compatible provider with a vendor's row, and that vendor's server."""
    async with vendor_server(vendor) as server:
        provider = compatible(vendor, server.base_url)
        yield provider, server
        await provider.aclose()


def question(*, stream: bool = False, n: int | None = None, usage: bool = False, **more: Any) -> ChatRequest:
    """A question as the OpenAI dialect decodes it."""
    members: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}], **more}
    members |= {"stream": True} if stream else {}
    members |= {"n": n} if n else {}
    members |= {"stream_options": {"include_usage": True}} if usage else {}
    return ChatRequest(
        parameters={name: msgspec.Raw(msgspec.json.encode(value)) for name, value in members.items()},
        model="gpt-test",
        stream=stream,
        include_usage=usage,
        cap=None,
        choices=n or 1,
        trace_id="trace-1",
    )


async def chunks_of(provider: Provider, request: ChatRequest) -> list[Chunk]:
    """A whole stream."""
    return [chunk async for chunk in provider.stream(request)]
