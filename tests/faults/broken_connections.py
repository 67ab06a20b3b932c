"""Connections that break, stall or say nothing. `count`: token chunks sent before the fault."""

from __future__ import annotations

import asyncio

from . import answers
from .exchange import Exchange
from .playing import begin, good_body, ok, play, scenario
from .unusual_answers import words

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


@scenario("cut-of")
async def cut_of(x: Exchange, count: str, total: str) -> None:
    """` w0`, ` w1`, … closed after `count` of `total` tokens; not streamed: in the middle."""
    if not x.streamed:
        return await cut(x)
    await x.open_stream()
    await x.chunks(answers.script(x.payload, words(int(total))).until(int(count)))
    return x.close()


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


@scenario("pause")
async def pause(x: Exchange, count: str, total: str, seconds: str) -> None:
    """` w0`, ` w1`, … of which `count` come, then silence for so long, then the rest of `total`."""
    if x.streamed:
        whole = answers.script(x.payload, words(int(total))).whole()
        before = answers.script(x.payload, words(int(total))).until(int(count))
    else:
        body = answers.odd(answers.completion(x.payload, words(int(total))))
        before, whole = (body[:40],), (body[:40], body[40:])
    await x.start({"Content-Type": kind_of(x), "Transfer-Encoding": "chunked"})
    await x.chunks(before)
    await asyncio.sleep(float(seconds))
    await x.chunks(whole[len(before) :])
    return await x.end()


@scenario("slow-first")
async def slow_first(x: Exchange, seconds: str) -> None:
    """Headers and the role chunk at once, the first token so late; not streamed: the whole body."""
    events = answers.script(x.payload)
    await x.start({"Content-Type": kind_of(x), "Transfer-Encoding": "chunked"})
    await x.chunks(events.opening if x.streamed else ())
    await asyncio.sleep(float(seconds))
    await x.chunks(events.whole()[len(events.opening) :] if x.streamed else (good_body(x),))
    return await x.end()


def kind_of(x: Exchange) -> str:
    """The content type of a good answer to this request."""
    return "text/event-stream" if x.streamed else "application/json"


@scenario("roles")
async def roles(x: Exchange) -> None:
    """The role chunk again and again and never a token (blanks when not streamed)."""
    if not x.streamed:
        return await pings(x)
    await x.open_stream()
    while True:
        await x.chunks(answers.script(x.payload).opening)
        await asyncio.sleep(PING_EVERY_S)


@scenario("drip-headers")
async def drip_headers(x: Exchange, every_ms: str = "50") -> None:
    """A status line and headers without end, a byte at a time."""
    await x.raw(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while True:
        await x.raw(b"x")
        await asyncio.sleep(float(every_ms) / 1000)


@scenario("endless-headers")
async def endless_headers(x: Exchange) -> None:
    """Header lines as fast as they go, for ever."""
    await x.raw(b"HTTP/1.1 200 OK\r\n")
    while True:
        await x.raw(b"X-More: and more\r\n" * 100)


@scenario("endless-hints")
async def endless_hints(x: Exchange) -> None:
    """`102 Processing` every 50 ms and never an answer."""
    while True:
        await x.raw(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(PING_EVERY_S)


@scenario("two-answers")
async def two_answers(x: Exchange, seconds: str = "0") -> None:
    """A good answer, and in the same breath, or so much later, another one to a question that nobody asked."""
    stray = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"stray"},"finish_reason":"stop"}]}'
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(stray)}\r\n\r\n".encode()
    if float(seconds):
        await ok(x)
        await asyncio.sleep(float(seconds))
        return await x.raw(head + stray)
    if x.streamed:
        await play(x, answers.script(x.payload).whole()[:-1])
        return await x.raw(head + stray)
    whole = good_body(x)
    mine = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(whole)}\r\n\r\n".encode()
    return await x.raw(mine + whole + head + stray)


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


@scenario("no-http")
async def no_http(x: Exchange) -> None:
    """Bytes that are not HTTP, then FIN."""
    await x.raw(b"220 mail.example ESMTP ready\r\n")
    x.close()
