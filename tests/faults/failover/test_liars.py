"""Upstreams that lie, dawdle or babble: none of it reaches a caller, and none of it holds one up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from tests.faults import answers
from tests.inprocess import scripted
from tests.ways import STREAM_WAYS, WAYS, Way

from .cases import SMALL, whole
from .stand import TEXT, in_every_way, standing, together

KEYS = SMALL.keys
STRAY = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"stray"},"finish_reason":"stop"}]}'


@pytest.mark.parametrize("delay", ["0", "0.05"])
async def test_an_answer_to_nobody_is_given_to_nobody(delay: str) -> None:
    """A second answer on the same connection, at once or later, is not taken for that to the next question."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand, stand.serving({}):
            for number in range(4):
                seen = await stand.ask(f"fault:two-answers:{delay} {number}")
                assert "stray" not in seen.reply.body.decode()
                whole(seen)
                await stand.first.until(lambda it: it.requests[-1].answered_at is not None)
                seen = await stand.ask(f"question {number}")
                assert "stray" not in seen.reply.body.decode()
                whole(seen)

    await in_every_way(WAYS, play)


@pytest.mark.parametrize("shape", ["early-hints", "trickle:1", "coalesced", "crlf", "gzip", "multi-line-data"])
async def test_odd_but_whole_is_whole_and_costs_no_failover(shape: str) -> None:
    """What is only unusual is the first's own answer."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("ok")
            async with stand.serving({}, {}):
                whole(await stand.ask(f"fault:{shape}"), by="first")
            assert stand.counts() == [1, 0, 0]

    await in_every_way(WAYS, play)


async def test_babble_is_left_in_time() -> None:
    """Headers, hints or roles without end: the next target answers, and the babbler is closed."""
    faults = ("drip-headers", "endless-headers", "endless-hints", "no-http", "roles", "pings")

    async def play(fault: str, way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("ok")
            async with stand.serving({"first_token_timeout": 0.3}, {}):
                whole(await stand.ask(f"fault:{fault}"), by="second")
                await stand.left(stand.first)

    await together({f"{fault} {way}": partial(play, fault, way) for fault in faults for way in WAYS})


async def test_an_upstream_that_answers_before_it_is_asked() -> None:
    """A whole answer the moment the connection is made: whoever gets it, the caller gets no broken one."""

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(STRAY)}\r\n\r\n".encode()
        writer.write(head + STRAY)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")

    async def play(way: Way) -> None:
        async with scripted(hasty) as base_url, standing(way, keys=KEYS) as stand:
            stand.second.force("ok")
            async with stand.serving({"base_url": base_url}, {}):
                for _ in range(3):
                    assert (await stand.ask()).verdict.text in (TEXT, "stray")

    await in_every_way(WAYS, play)


async def test_no_status_is_taken_for_an_answer() -> None:
    """Whatever the number, the caller gets a whole answer or an error; never a hang, a 500 or an empty 200."""

    async def strange(status: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} Strange\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
        await writer.drain()

    async def play(status: int, way: Way) -> None:
        async with scripted(partial(strange, status)) as base_url, standing(way, keys=KEYS) as stand:
            stand.second.force("ok")
            async with stand.serving({"base_url": base_url}, {}):
                seen = await stand.ask()
            if status == 418:
                assert seen.verdict.code == "bad_request"
            else:
                whole(seen, by="second")

    statuses = (100, 199, 204, 205, 206, 299, 304, 399, 418, 599, 600, 999)
    await together({f"{status} {way}": partial(play, status, way) for status in statuses for way in WAYS})


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64, 1000])
async def test_a_continuation_joins_wherever_the_bytes_are_torn(size: int) -> None:
    """Both halves come in slices that know no events, and the text is still exact."""
    events = answers.script({"stream_options": {"include_usage": True}})
    whole_stream = b"".join(events.whole())
    cut = b"".join(events.until(2))
    rest = b"".join(answers.script({}, [" wor", "ld", "!"]).whole())

    def slicing(data: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await writer.drain()
                await asyncio.sleep(0)

        return serve

    async def play(way: Way) -> None:
        for end in (len(cut), len(cut) + 1, len(cut) + 9, len(cut) + 30):
            async with (
                scripted(slicing(whole_stream[:end])) as broken,
                scripted(slicing(rest)) as going_on,
                standing(way, keys=KEYS) as stand,
                stand.serving({"base_url": broken}, {"base_url": going_on, "continues_prefill": True}),
            ):
                whole(await stand.ask(), TEXT, by="first")

    await in_every_way(STREAM_WAYS, play)
