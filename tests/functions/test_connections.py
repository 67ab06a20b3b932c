"""Connections to an upstream: used again under load, and never left open or lost by calls that end badly.

Counted at the upstream and in this process, over a real socket: the client and the upstream share the process, so an
open connection is two open files.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from shared.errors import EchoBrainError
from shared.models import ChatRequest
from shared.providers.base import Provider
from shared.providers.slim_import import defer_sdk_types
from shared.providers.vendors import VENDORS
from shared.secrets import FixedSecret
from shared.settings import ProviderSettings
from tests.faults import answers
from tests.faults.upstream import BreakingUpstream
from tests.inprocess import serving_config
from tests.unit.fakes import chat_request
from tests.ways import OPENAI_EVENTS, WAYS, Way

AT_ONCE: Final = 25
CALLS: Final = 1000
JSON: Final = {"Content-Type": "application/json"}
WHOLE: Final = ("ok", "no-done", "usage-with-finish")
BROKEN: Final = (
    *("reset", "refuse-headers", "cut", "cut-reset", "wrong-length", "finish-then-reset", "clean-end", "html"),
    *("json-error-200", "in-band-error", "malformed-cut", "null-finish", "invalid-json", "redirect", "status:500"),
    *("status:429", "status:400", "status:401", "param-error"),
)
ENDLESS: Final = ("silent", "stall", "pings", "stall-pings", "paced:1000:5", "slow:3600")


@contextlib.asynccontextmanager
async def provider(base_url: str) -> AsyncIterator[Provider]:
    """A provider over an upstream, closed afterwards."""
    defer_sdk_types()
    from shared.providers.openai_compatible import OpenAICompatible

    settings = ProviderSettings(name="p", vendor="openai-compatible", base_url=base_url)
    made = OpenAICompatible(settings, VENDORS["openai-compatible"], FixedSecret("sk-1"))
    try:
        yield made
    finally:
        await made.aclose()


async def whole(asked: Provider, request: ChatRequest) -> None:
    """One call to its end."""
    if not request.stream:
        await asked.complete(request)
        return
    async with contextlib.aclosing(asked.stream(request)) as chunks:
        async for _ in chunks:
            pass


async def many(calls: list[Coroutine[Any, Any, None]]) -> None:
    """All calls, some at the same time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(call: Coroutine[Any, Any, None]) -> None:
        async with places:
            await call

    await asyncio.gather(*map(one, calls))


def open_files() -> int:
    """How many files, sockets among them, this process has open."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def files_become(count: int) -> None:
    """Returns when so many files are open; fails after 10 s."""
    for _ in range(1000):
        if open_files() == count:
            return
        await asyncio.sleep(0.01)
    assert open_files() == count


@dataclass(frozen=True)
class Ending:
    """How a call comes to its end: a scenario, and whether somebody loses patience with it, and how."""

    scenario: str
    stream: bool
    patience_s: float | None = None
    cancelled: bool = False

    async def play(self, asked: Provider) -> None:
        """The call; whatever it ends with is an ending that was to be expected."""
        call = whole(asked, chat_request(model=f"fault:{self.scenario}", stream=self.stream))
        with contextlib.suppress(EchoBrainError, TimeoutError):
            if not self.cancelled:
                async with asyncio.timeout(self.patience_s):
                    await call
                return
            task = asyncio.ensure_future(call)
            await asyncio.wait([task], timeout=self.patience_s)
            task.cancel()
            await asyncio.wait([task])


def endings(count: int) -> list[Ending]:
    """Endings of every kind, the same ones in every run."""
    draw = random.Random(3)
    kinds = [Ending(scenario, stream) for scenario in (*WHOLE, *BROKEN) for stream in (True, False)]
    rows = [draw.choice(kinds) for _ in range(count // 2)]
    while len(rows) < count:
        scenario = draw.choice((*ENDLESS, *ENDLESS, "ok", "big:2000"))
        rows.append(Ending(scenario, draw.random() < 0.5, draw.uniform(0.0, 0.02), draw.random() < 0.5))
    draw.shuffle(rows)
    return rows


@pytest.mark.parametrize("streams", [(False,), (True,), (True, False)], ids=["json", "streamed", "mixed"])
async def test_most_requests_find_a_connection(upstream: BreakingUpstream, streams: tuple[bool, ...]) -> None:
    """Under steady load more than 80 % of them; as many connections as there are requests at the same time."""
    async with provider(upstream.base_url) as asked:
        await many([whole(asked, chat_request(stream=streams[n % len(streams)])) for n in range(500)])
        pooled = 1 - upstream.connections / len(upstream.requests)
    assert len(upstream.requests) == 500
    assert upstream.connections <= AT_ONCE
    assert pooled > 0.8


@contextlib.asynccontextmanager
async def ending_late(connections: list[object]) -> AsyncIterator[str]:
    """The base URL of an upstream whose bodies end a moment after their last event; notes its connections."""
    stream = b"".join(answers.script({"stream_options": {"include_usage": True}}).whole())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                await reader.readexactly(int(head.split(b"content-length:")[1].split()[0]))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
                writer.write(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(stream), stream))
                await asyncio.sleep(0.01)
                writer.write(b"0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_a_stream_gives_its_connection_back_although_its_body_ends_late() -> None:
    """The answer is whole with its last event; the end of the body is waited for, for a moment."""
    connections: list[object] = []
    async with ending_late(connections) as base_url, provider(base_url) as asked:
        for _ in range(20):
            await whole(asked, chat_request(stream=True))
    assert len(connections) < 20 * 0.2


async def drain(asked: Provider, upstream: BreakingUpstream) -> None:
    """Uses the pool up: as many requests as it can have connections, which end with theirs."""
    sent = len(upstream.requests) + AT_ONCE
    request = chat_request(model="fault:silent")
    tasks = [asyncio.ensure_future(whole(asked, request)) for _ in range(AT_ONCE)]
    await upstream.until(lambda it: len(it.requests) == sent)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_no_connection_is_left_by_calls_that_end_badly(upstream: BreakingUpstream) -> None:
    """A thousand calls are answered, broken, cancelled or timed out; what is open then is in the pool, and of use."""
    before = open_files()
    async with provider(upstream.base_url) as asked:
        await many([ending.play(asked) for ending in endings(CALLS)])
        assert len(upstream.requests) > CALLS / 2  # the others were cancelled before they were sent
        await drain(asked, upstream)
        await files_become(before)
        await asked.complete(chat_request())


def two_providers(base_url: str) -> dict[str, Any]:
    """A configuration in which everything may happen: retries, failover, continued and hedged streams; and quickly."""
    common = {
        "type": "openai-compatible",
        "base_url": base_url,
        "api_key_env": "TEST_KEY",
        "model": "m",
        "first_token_timeout": 0.1,
        "idle_timeout": 0.1,
        "request_timeout": 0.3,
        "retry_backoff_min": 0.001,
        "retry_backoff_max": 0.01,
        "circuit_breaker_threshold": 1_000_000,
        "continues_prefill": True,
    }
    targets = [{"provider": "first"}, {"provider": "second", "priority": 2}]
    return {
        "providers": {"first": common, "second": common},
        "routes": {"m": {"targets": targets, "hedge_after_ms": 20}},
    }


async def ask_and_leave(
    http: aiohttp.ClientSession, url: str, way: Way, ending: Ending, headers: Mapping[str, str] = JSON
) -> None:
    """A caller of the gateway, who may lose patience; any status is an answer."""
    body = way.body(f"fault:{ending.scenario}", model="m")
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(ending.patience_s), http.post(url + way.path, data=body, headers=headers) as answer:
            await answer.read()


async def test_most_requests_of_the_gateway_find_a_connection(upstream: BreakingUpstream) -> None:
    """In all four ways to ask."""
    async with serving_config(two_providers(upstream.base_url)) as gateway, aiohttp.ClientSession() as http:
        whole_ones = [(way, Ending("ok", way.stream)) for _ in range(100) for way in WAYS]
        await many([ask_and_leave(http, gateway.url, way, ending) for way, ending in whole_ones])
    assert len(upstream.requests) >= len(whole_ones)
    assert upstream.connections < 0.2 * len(upstream.requests)


async def test_no_connection_is_left_by_the_gateway(upstream: BreakingUpstream) -> None:
    """A thousand broken, silent and abandoned requests, with retries, failover, hedges and continued streams."""
    async with serving_config(two_providers(upstream.base_url)) as gateway:
        before = open_files()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            rows = [(ending, Way(("brain", "openai")[n % 2], ending.stream)) for n, ending in enumerate(endings(CALLS))]
            await many([ask_and_leave(http, gateway.url, way, ending) for ending, way in rows])
            await gateway.idle()
            assert len(upstream.requests) > CALLS
            await use_up_the_pools(http, gateway.url)
        await gateway.idle()
        await files_become(before)


async def use_up_the_pools(http: aiohttp.ClientSession, url: str) -> None:
    """More requests to either provider than its pool can have connections; each is the end of the one it takes."""
    for name in ("first", "second"):
        headers = {**JSON, "X-Provider": name, "X-No-Failover": "true"}
        await many([ask_and_leave(http, url, OPENAI_EVENTS, Ending("silent", True), headers) for _ in range(100)])
