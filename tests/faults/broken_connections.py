"""Connections that break, stall or say nothing. `count`: token chunks sent before the fault."""

from __future__ import annotations

import asyncio

from . import answers
from .exchange import Exchange
from .playing import begin, good_body, ok, scenario

PING = b": ping\n\n"
PING_EVERY_S = 0.05


@scenario("reset")
async def reset(x: Exchange) -> None:
    """RST before any byte of the answer."""
    x.reset()


@scenario("refuse-headers")
async def refuse_headers(x: Exchange) -> None:
    """FIN before any byte of the answer."""
    x.close()


@scenario("silent")
async def silent(x: Exchange) -> None:
    """Reads the request and never answers."""
    await x.hold()


@scenario("slow")
async def slow(x: Exchange, seconds: str) -> None:
    """A good answer whose headers are late."""
    await asyncio.sleep(float(seconds))
    await ok(x)


@scenario("cut")
async def cut(x: Exchange, count: str = "2") -> None:
    """Closed in the middle, without the terminating chunk."""
    await begin(x, int(count))
    x.close()


@scenario("cut-reset")
async def cut_reset(x: Exchange, count: str = "2") -> None:
    """Reset in the middle."""
    await begin(x, int(count))
    x.reset()


@scenario("stall")
async def stall(x: Exchange, count: str = "2") -> None:
    """Silence in the middle, connection open."""
    await begin(x, int(count))
    await x.hold()


@scenario("pings")
async def pings(x: Exchange) -> None:
    """Headers, then signs of life for ever and never a token (blanks when not streamed)."""
    if x.streamed:
        await x.open_stream()
    else:
        await x.start({"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
    await ping_for_ever(x)


@scenario("stall-pings")
async def stall_pings(x: Exchange, count: str = "2") -> None:
    """As a stall, with signs of life for ever."""
    if x.streamed:
        await begin(x, int(count))
    else:
        whole = good_body(x)
        await x.start({"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
        await x.chunk(whole[: len(whole) // 2])
    await ping_for_ever(x)


async def ping_for_ever(x: Exchange) -> None:
    """A sign of life every 50 ms until the client leaves."""
    while True:
        await x.chunk(PING if x.streamed else b" ")
        await asyncio.sleep(PING_EVERY_S)


@scenario("finish-then-reset")
async def finish_then_reset(x: Exchange) -> None:
    """Everything up to the finish_reason, then RST."""
    if x.streamed:
        script = answers.script(x.payload)
        await x.open_stream()
        await x.chunks(script.until(len(script.tokens)) + script.finish)
    else:
        await x.whole(good_body(x))
    x.reset()


@scenario("wrong-length")
async def wrong_length(x: Exchange) -> None:
    """A body shorter than its Content-Length, then closed."""
    kind = "text/event-stream" if x.streamed else "application/json"
    whole = b"".join(answers.script(x.payload).whole()) if x.streamed else good_body(x)
    await x.start({"Content-Type": kind, "Content-Length": len(whole) + 100})
    await x.body(whole)
    x.close()
