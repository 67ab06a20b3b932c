"""SIGTERM: no new work, open streams get their error event, and the process is gone in under eight seconds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.faults.upstream import BreakingUpstream
from tests.servers import Server, gateway
from tests.ways import BRAIN_JSON, OPENAI_EVENTS, OPENAI_JSON, STREAM_WAYS, Reply, Way, ask, calling, judge

GONE_WITHIN_S: Final = 8.0
STREAMS: Final = 20


@contextlib.contextmanager
def deployed(tmp_path: Path, upstream: BreakingUpstream, target: str | None) -> Iterator[Server]:
    """A function under the stock framework, or all of them under `functions.local`."""
    environment = {"OPENAI_API_KEY": "sk-test", "OPENAI_MODEL": "m", "OPENAI_BASE_URL": upstream.base_url}
    with gateway(tmp_path / "log", environment, target) as server:
        yield server


@pytest.mark.parametrize("target", ["stream", None])
async def test_open_streams_end_in_an_error(
    target: str | None, upstream: BreakingUpstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Twenty streams, stalled or talking: each shows what it had and says `overloaded`; upstream is left."""
    with deployed(tmp_path, upstream, target) as server:
        marks = {"stall:2": b'"Hello"', "paced:2000:20": b'" w0"', "stall-pings:1": b'"Hello"', "silent": b""}
        asked = [(STREAM_WAYS[n % 2], list(marks)[n // 2 % len(marks)]) for n in range(STREAMS)]
        seen = asyncio.Semaphore(0)
        replies = [
            asyncio.create_task(follow(http, server.url, way, fault, marks[fault], seen)) for way, fault in asked
        ]
        for _ in range(STREAMS):
            await asyncio.wait_for(seen.acquire(), 10)
        await upstream.until(lambda it: len(it.requests) == STREAMS)
        told_s = time.monotonic()
        server.terminate()
        for (_, fault), reply in zip(asked, await asyncio.gather(*replies), strict=True):
            verdict = judge(reply)
            assert (fault, reply.way, verdict.code) == (fault, reply.way, "overloaded")
            assert bool(verdict.text) is (fault != "silent")
            assert reply.status == (503 if fault == "silent" else 200)  # nothing had gone out yet
        await gone(server, told_s)
        assert all(request.aborted for request in upstream.requests)


async def test_answers_under_way_get_four_seconds(
    upstream: BreakingUpstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """One that comes in time is given, one that is stuck becomes a 503, a caller that reads nothing holds nobody."""
    with deployed(tmp_path, upstream, "chat") as server:
        asked = ("slow:2", "silent")
        ways = (BRAIN_JSON, OPENAI_JSON)
        replies = [asyncio.create_task(ask(http, server.url, way, f"fault:{fault}")) for fault in asked for way in ways]
        async with calling(server.url, OPENAI_EVENTS, "fault:big:40000", lazy=True) as deaf:
            await deaf.read_until(b" w0")
            await upstream.until(lambda it: len(it.requests) == len(replies) + 1)
            await stuck(upstream)
            told_s = time.monotonic()
            server.terminate()
            slow, silent = await answers_of(replies)
            assert [(reply.status, judge(reply).text) for reply in slow] == [(200, "Hello, world!")] * 2
            assert [(reply.status, judge(reply).code) for reply in silent] == [(503, "overloaded")] * 2
            assert all(reply.headers["Retry-After"] for reply in silent)
            await gone(server, told_s)


@pytest.mark.parametrize("way", STREAM_WAYS, ids=str)
async def test_a_request_that_is_complete_only_after_the_signal_is_refused(
    way: Way, upstream: BreakingUpstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """No new work: also a stream gets a plain 503, not the beginning of one."""
    with deployed(tmp_path, upstream, None) as server:
        pending = asyncio.create_task(ask(http, server.url, OPENAI_JSON, "fault:slow:2"))  # keeps the process up
        await upstream.until(lambda it: len(it.requests) == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        body = way.body("hi")
        head = f"POST {way.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        writer.write(head.encode() + b"\r\n\r\n" + body[:-1])
        await (await http.get(server.url + "/health")).read()  # by now the server has seen the beginning
        server.terminate()
        await asyncio.wait_for(_until_closed(server), 10)
        writer.write(body[-1:])
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        assert judge(await pending).code is None


async def _until_closed(server: Server) -> None:
    """Until nobody listens any more: the signal has been dealt with."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        except ConnectionError:
            return
        writer.close()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("target", ["health", None])
async def test_an_idle_process_goes_at_once(target: str | None, upstream: BreakingUpstream, tmp_path: Path) -> None:
    """Nothing was ever asked but whether it is alive."""
    with deployed(tmp_path, upstream, target) as server:
        told_s = time.monotonic()
        server.terminate()
        await gone(server, told_s, within_s=4.0)


async def follow(
    http: aiohttp.ClientSession, url: str, way: Way, fault: str, mark: bytes, seen: asyncio.Semaphore
) -> Reply:
    """Reads a stream to its end, and says through `seen` when `mark` has come (at once where it is empty)."""
    if not mark:
        seen.release()
    kind = {"Content-Type": "application/json"}
    async with http.post(url + way.path, data=way.body(f"fault:{fault}"), headers=kind) as answer:
        body = b""
        async for data in answer.content.iter_any():
            if mark and mark not in body and mark in body + data:
                seen.release()
            body += data
        return Reply(way, answer.status, answer.headers, body)


async def stuck(upstream: BreakingUpstream) -> None:
    """Returns when nothing moves any more: all buffers between upstream and a deaf caller are full."""
    sent, before = -1, -2
    while sent != before:
        await asyncio.sleep(0.1)
        sent, before = sum(len(request.answer) for request in upstream.requests), sent


async def answers_of(tasks: list[asyncio.Task[Reply]]) -> tuple[list[Reply], list[Reply]]:
    """The first two replies and the last two."""
    replies = await asyncio.gather(*tasks)
    return replies[:2], replies[2:]


async def gone(server: Server, told_s: float, within_s: float = GONE_WITHIN_S) -> None:
    """Waits until the process and all its children are gone; AssertionError where that takes too long."""
    await asyncio.to_thread(server.process.wait, 20)
    while alive(server.process.pid):
        assert time.monotonic() - told_s < within_s, "a child is left"
        await asyncio.sleep(0.02)
    assert time.monotonic() - told_s < within_s


def alive(group: int) -> bool:
    """Whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
