"""The vendors' rows, each against a server that wants what its vendor's documentation says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from shared.models import ChatRequest
from shared.providers.vendors import VENDORS
from shared.settings import ProviderSettings
from tests.contract.providers import at_vendor, chunks_of, compatible, question
from tests.contract.vendor_server import RULES


def continued(text: str) -> ChatRequest:
    """A request to go on from a text."""
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": text}]
    return replace(question(stream=True, messages=messages), continues=True)


def test_every_vendor_that_calls_out_is_here() -> None:
    """A row without a server of its own would be a row that nobody has tried."""
    assert set(RULES) == set(VENDORS)


@pytest.mark.parametrize("vendor", RULES)
@pytest.mark.parametrize("stream", [True, False])
async def test_the_models_name_is_the_requests(vendor: str, stream: bool) -> None:
    """The gateway has resolved it; the provider's own is for requests that name none."""
    async with at_vendor(vendor) as (provider, server):
        for model in ("other-model", None):
            request = replace(question(stream=stream), model=model)
            await (chunks_of(provider, request) if stream else provider.complete(request))
        assert [body["model"] for body in server.asked] == ["other-model", "gpt-test"]


@pytest.mark.parametrize("vendor", RULES)
async def test_a_completion_is_capped_by_the_name_the_vendor_knows(vendor: str) -> None:
    """The gateway's own cap has the vendor's name; a caller's keeps its own name unless the vendor would ignore it."""
    async with at_vendor(vendor) as (provider, server):
        await provider.complete(question())
        await provider.complete(question(max_tokens=7))
        await provider.complete(question(max_completion_tokens=7))
        rules = server.rules
    assert server.asked[0][rules.cap] == ProviderSettings().max_tokens
    kept = [cap if cap in rules.caps else rules.cap for cap in ("max_tokens", "max_completion_tokens")]
    assert [body[cap] for body, cap in zip(server.asked[1:], kept, strict=True)] == [7, 7]


@pytest.mark.parametrize("vendor", RULES)
async def test_a_text_is_continued_as_the_vendor_wants_it(vendor: str) -> None:
    """The members that it needs are there, and only where a text is continued; the text itself is in its place."""
    extra = {name for rules in RULES.values() for name in rules.prefill}
    async with at_vendor(vendor) as (provider, server):
        assert (await chunks_of(provider, continued("Hello, \n")))[-1].ending is not None
        await chunks_of(provider, question(stream=True))
        going_on, plain = server.asked
    assert {name: value for name, value in going_on.items() if name in extra} == server.rules.prefill
    assert not extra & set(plain)
    text = "Hello," if server.rules.refuses_white_space else "Hello, \n"
    assert going_on["messages"] == [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": text}]


@pytest.mark.parametrize("vendor", RULES)
async def test_the_vendors_own_request_id_is_kept(vendor: str) -> None:
    """It is what its support asks for."""
    async with at_vendor(vendor) as (provider, _):
        assert (await provider.complete(question())).ending.upstream_request_id == "req-1"
        chunks = await chunks_of(provider, question(stream=True))
    assert (chunks[0].upstream_request_id, chunks[-1].ending and chunks[-1].ending.upstream_request_id) == (
        "req-2",
        "req-2",
    )


@pytest.mark.parametrize("vendor", RULES)
async def test_a_health_path_that_answers_anything_else_is_not_well(vendor: str) -> None:
    """A web page with status 200 is some other server."""
    async with web_page() as base_url:
        provider = compatible(vendor, base_url)
        health = await provider.health()
        await provider.aclose()
    assert (health.healthy, health.error) == (False, "upstream_error")


@asynccontextmanager
async def web_page() -> AsyncIterator[str]:
    """The base URL of a server that answers everything with the same page."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
