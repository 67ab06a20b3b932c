"""Good answers in unusual shapes, sizes and paces."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import Callable, Sequence

from . import answers
from .exchange import Exchange
from .playing import good_body, ok, play, scenario


async def reshaped(x: Exchange, change: Callable[[bytes], bytes]) -> None:
    """A good stream, each event rewritten."""
    await (play(x, map(change, answers.script(x.payload).whole())) if x.streamed else ok(x))


@scenario("crlf")
async def crlf(x: Exchange) -> None:
    """Lines that end in CR LF."""
    await reshaped(x, lambda part: part.replace(b"\n", b"\r\n"))


@scenario("no-space")
async def no_space(x: Exchange) -> None:
    """`data:` without a space behind it."""
    await reshaped(x, lambda part: part.replace(b"data: ", b"data:", 1))


@scenario("multi-line-data")
async def multi_line_data(x: Exchange) -> None:
    """The JSON of each event on two `data:` lines."""
    await reshaped(x, lambda part: part.replace(b',"', b',\ndata: "', 1))


@scenario("named-events")
async def named_events(x: Exchange) -> None:
    """`event:` and `id:` lines before the data."""
    await reshaped(x, lambda part: b"event: chunk\nid: 7\n" + part)


@scenario("trickle")
async def trickle(x: Exchange, size: str = "7") -> None:
    """The stream in slices of a few bytes, across the borders of events."""
    await sliced(x, b"".join(answers.script(x.payload).whole()), int(size))


@scenario("utf8-trickle")
async def utf8_trickle(x: Exchange) -> None:
    """Raw UTF-8 (`Grüße, 世界 🌍!`), a byte at a time, so that characters are torn."""
    tokens = ("Grüße", ", ", "世界 ", "🌍!")
    if not x.streamed:
        return await x.whole(answers.odd(answers.completion(x.payload, tokens)))
    script = answers.script(x.payload, tokens, ascii_only=False)
    return await sliced(x, b"".join(script.whole()), 1)


async def sliced(x: Exchange, whole: bytes, size: int) -> None:
    """These bytes of a stream in slices of `size`."""
    if not x.streamed:
        return await ok(x)
    await x.open_stream()
    for start in range(0, len(whole), size):
        await x.chunk(whole[start : start + size])
        await asyncio.sleep(0)
    return await x.end()


@scenario("coalesced")
async def coalesced(x: Exchange) -> None:
    """All events in one write."""
    await (play(x, [b"".join(answers.script(x.payload).whole())]) if x.streamed else ok(x))


@scenario("big")
async def big(x: Exchange, count: str) -> None:
    """` w0`, ` w1`, … `count` tokens as fast as they go."""
    await saying(x, words(int(count)))


@scenario("huge-line")
async def huge_line(x: Exchange, size: str) -> None:
    """One token whose `data:` line has this many bytes."""
    around = len(answers.script(x.payload, [""]).tokens[0]) - len("\n\n")
    await saying(x, ["x" * max(1, int(size) - around)])


@scenario("empty-content")
async def empty_content(x: Exchange) -> None:
    """Chunks with empty and null content before the first real token."""
    if not x.streamed:
        return await ok(x)
    return await play(x, answers.script(x.payload, ["", None, "", None, *answers.TOKENS]).whole())


async def saying(x: Exchange, tokens: Sequence[str]) -> None:
    """A good answer with these tokens."""
    if x.streamed:
        await play(x, answers.script(x.payload, tokens).whole())
    else:
        await x.whole(answers.odd(answers.completion(x.payload, tokens)))


def words(count: int) -> list[str]:
    """` w0`, ` w1`, …"""
    return [f" w{number}" for number in range(count)]


@scenario("paced")
async def paced(x: Exchange, count: str, every_ms: str) -> None:
    """` w0`, ` w1`, … one every `every_ms`, on a fixed schedule; not streamed: the whole, that late."""
    script, begun = answers.script(x.payload, words(int(count))), time.monotonic()
    if not x.streamed:
        await asyncio.sleep(int(count) * float(every_ms) / 1000)
        return await saying(x, words(int(count)))
    await x.open_stream()
    await x.chunks(script.opening)
    for number, token in enumerate(script.tokens):
        await asyncio.sleep(max(0.0, begun + number * float(every_ms) / 1000 - time.monotonic()))
        await x.chunk(token)
    await x.chunks((*script.finish, *script.usage, answers.DONE))
    return await x.end()


@scenario("usage-with-finish")
async def usage_with_finish(x: Exchange) -> None:
    """Usage on the chunk of the finish_reason, whether asked for or not."""
    if not x.streamed:
        return await ok(x)
    script = answers.script({**x.payload, "stream_options": {"include_usage": True}})
    spent = answers.event(answers.usage(len(script.tokens))).removeprefix(b"data: ").rstrip()
    finish = [part.replace(b'"usage":null', b'"usage":' + spent) for part in script.finish]
    return await play(x, (*script.opening, *script.tokens, *finish, answers.DONE))


@scenario("no-usage")
async def no_usage(x: Exchange) -> None:
    """Never any usage."""
    if x.streamed:
        return await play(x, answers.script({**x.payload, "stream_options": None}).whole())
    body = answers.completion(x.payload)
    del body["usage"]
    return await x.whole(answers.odd(body))


@scenario("reasoning")
async def reasoning(x: Exchange) -> None:
    """`reasoning_content` ("Let me think.") before the content."""
    if not x.streamed:
        body = answers.completion(x.payload, reasoning_content="Let me think.")
        return await x.whole(answers.odd(body))
    script = answers.script(x.payload)
    thoughts = [
        token.replace(b'"content"', b'"reasoning_content"')
        for token in answers.script(x.payload, ["Let me", " think."]).tokens
    ]
    return await play(x, (*script.opening, *thoughts, *script.whole()[len(script.opening) :]))


@scenario("gzip")
async def gzip(x: Exchange) -> None:
    """A good answer, compressed if the client allows."""
    if "gzip" not in x.request.headers.get("accept-encoding", ""):
        return await ok(x)
    packer = zlib.compressobj(wbits=31)
    encoding = {"Content-Encoding": "gzip"}
    if not x.streamed:
        return await x.whole(packer.compress(good_body(x)) + packer.flush(), headers=encoding)
    await x.open_stream(encoding)
    for part in answers.script(x.payload).whole():
        await x.chunk(packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH))
    await x.chunk(packer.flush())
    return await x.end()


@scenario("no-request-id")
async def no_request_id(x: Exchange) -> None:
    """A good answer without an `x-request-id`."""
    x.request_id = None
    await ok(x)


@scenario("early-hints")
async def early_hints(x: Exchange) -> None:
    """`100 Continue` and `103 Early Hints`, which nobody asked for, before a good answer."""
    await x.raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")
    await ok(x)


@scenario("shouted-type")
async def shouted_type(x: Exchange) -> None:
    """A good answer whose media type is written in capitals, which mean the same."""
    if not x.streamed:
        return await x.whole(good_body(x), kind="APPLICATION/JSON")
    await x.open_stream({"Content-Type": "TEXT/EVENT-STREAM; charset=UTF-8"})
    await x.chunks(answers.script(x.payload).whole())
    return await x.end()


@scenario("continue")
async def continue_(x: Exchange, count: str = "0", cut_after: str = "0") -> None:
    """` w0`, ` w1`, … `count` tokens (0: the good answer's) from where the trailing assistant message ends, with an id
    of its own; cut after `cut_after` of them unless that is 0. Another text is not continued."""
    texts = words(int(count)) or list(answers.TOKENS)
    said = x.payload["messages"][-1]
    if said.get("role") == "assistant" and "".join(texts).startswith(said["content"]):
        texts = re.findall(r"^\S+| \S+", "".join(texts)[len(said["content"]) :])
    if not x.streamed:
        return await x.whole(answers.odd(answers.completion(x.payload, texts)))
    script = answers.script(x.payload, texts)
    shown = script.until(int(cut_after)) if int(cut_after) else script.whole()
    await x.open_stream()
    await x.chunks(part.replace(b"chatcmpl-upstream", b"chatcmpl-continued") for part in shown)
    return x.close() if int(cut_after) else await x.end()
