"""A whole answer is shown as a whole one, however oddly it is written, paced or ended."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

import aiohttp
import pytest

from tests.faults import answers
from tests.faults.upstream import BreakingUpstream
from tests.inprocess import scripted, serving
from tests.ways import (
    BRAIN_EVENTS,
    BRAIN_JSON,
    OPENAI_EVENTS,
    STREAM_WAYS,
    WAYS,
    Way,
    ask,
    calling,
    events,
    judge,
    payloads,
)

TEXT: Final = "Hello, world!"
USAGE: Final = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
OTHER_TEXT: Final = {
    "utf8-trickle": "Grüße, 世界 🌍!",
    "big:2000": "".join(f" w{number}" for number in range(2000)),
    "paced:20:5": "".join(f" w{number}" for number in range(20)),
}
PROMPT: Final = (
    "ok",
    "crlf",
    "shouted-type",
    "no-space",
    "trickle",
    "trickle:1",
    "coalesced",
    "multi-line-data",
    "named-events",
    "usage-with-finish",
    "no-usage",
    "empty-content",
    "reasoning",
    "gzip",
    "no-request-id",
    "slow:0.05",
    "no-done",
    "finish-then-reset",
    *OTHER_TEXT,
)
ONLY_STREAMED: Final = ("malformed:0", "malformed:2", "wrong-length")
WITHOUT_USAGE: Final = ("no-usage", "finish-then-reset")
HUGE: Final = 1_000_000
END: Final = {BRAIN_EVENTS: b"event: final", OPENAI_EVENTS: b"data: [DONE]"}


@pytest.mark.parametrize("shape", [*PROMPT, *ONLY_STREAMED])
async def test_an_unusual_answer_is_whole(http: aiohttp.ClientSession, upstream: BreakingUpstream, shape: str) -> None:
    """The text is complete, the end is that of a whole answer, and the log knows no error."""
    async with serving(upstream.base_url) as gateway:
        for way in STREAM_WAYS if shape in ONLY_STREAMED else WAYS:
            reply = await ask(http, gateway.url, way, f"fault:{shape}")
            verdict = judge(reply)
            assert (way, reply.status, verdict.code) == (way, 200, None)
            assert verdict.text == OTHER_TEXT.get(shape, TEXT)
            line = gateway.lines.pop()
            assert (line["error"], line["status"], line["finish_reason"]) == (None, 200, "stop")


@pytest.mark.parametrize("shape", ["crlf", "multi-line-data", "named-events", "malformed:1", "trickle:3"])
async def test_odd_events_reach_an_openai_client_with_their_data_unchanged(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, shape: str
) -> None:
    """Every chunk that is passed on is valid JSON, says what the upstream's said, and comes in the same order."""
    async with serving(upstream.base_url) as gateway:
        reply = await ask(http, gateway.url, OPENAI_EVENTS, f"fault:{shape}", stream_options={"include_usage": True})
    *chunks, done = payloads(reply.body)
    assert done == "[DONE]"
    assert [json.loads(chunk) for chunk in chunks] == _sound(upstream.last_body)


async def test_a_very_long_line_is_passed_on(http: aiohttp.ClientSession, upstream: BreakingUpstream) -> None:
    """A single event of a megabyte is whole in every way."""
    async with serving(upstream.base_url) as gateway:
        for way in WAYS:
            verdict = judge(await ask(http, gateway.url, way, f"fault:huge-line:{HUGE}"))
            assert verdict.code is None
            assert HUGE * 0.9 < len(verdict.text) == verdict.text.count("x")


@pytest.mark.parametrize("way", STREAM_WAYS, ids=str)
async def test_a_finished_stream_that_stays_open_is_whole_at_once(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, way: Way
) -> None:
    """Without [DONE], usage or an end, a finished answer is given out within moments, not at a limit."""
    async with serving(upstream.base_url) as gateway:
        begun_s = time.monotonic()
        verdict = judge(await ask(http, gateway.url, way, "fault:no-done-open"))
        assert (verdict.text, verdict.code) == (TEXT, None)
        assert time.monotonic() - begun_s < 2.0


async def test_signs_of_life_after_the_finish_do_not_delay_the_answer(http: aiohttp.ClientSession) -> None:
    """An upstream that pings on and on behind a finished answer is not waited for."""
    script = answers.script({})

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(b"".join((*script.opening, *script.tokens, *script.finish)))
        while not writer.is_closing():
            writer.write(b": ping\n\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with scripted(upstream) as base_url, serving(base_url, idle_s=3.0) as gateway:
        begun_s = time.monotonic()
        for verdict in [judge(await ask(http, gateway.url, way)) for way in STREAM_WAYS]:
            assert (verdict.text, verdict.code) == (TEXT, None)
        assert time.monotonic() - begun_s < 5.0


async def test_short_limits_do_not_spoil_a_finished_stream(
    http: aiohttp.ClientSession, upstream: BreakingUpstream
) -> None:
    """Once every choice has finished, no limit makes the answer a broken one."""
    async with serving(upstream.base_url, idle_s=0.2, streaming_s=10.0) as gateway:
        verdict = judge(await ask(http, gateway.url, OPENAI_EVENTS, "fault:no-done-open"))
        assert (verdict.text, verdict.code) == (TEXT, None)


@pytest.mark.parametrize("shape", ["ok", "usage-with-finish", "no-usage", "coalesced", "no-done"])
async def test_a_brain_answer_has_the_usage_the_provider_reported(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, shape: str
) -> None:
    """The same numbers, streamed or not; null where the provider gave none."""
    expected = None if shape == "no-usage" else USAGE
    async with serving(upstream.base_url) as gateway:
        plain = await ask(http, gateway.url, BRAIN_JSON, f"fault:{shape}")
        streamed = await ask(http, gateway.url, BRAIN_EVENTS, f"fault:{shape}")
    assert plain.json["usage"] == expected
    assert json.loads(events(streamed.body)[-1][1])["usage"] == expected


@pytest.mark.parametrize("way", STREAM_WAYS, ids=str)
async def test_a_slow_caller_is_not_a_silent_provider(upstream: BreakingUpstream, way: Way) -> None:
    """A caller that reads nothing for longer than the idle limit still gets its whole answer."""
    async with (
        serving(upstream.base_url, small=True, idle_s=0.2) as gateway,
        calling(gateway.url, way, "fault:big:5000", lazy=True) as caller,
    ):
        await caller.read_until(b" w0")
        await asyncio.sleep(0.6)  # waits for nothing: it is the time in which nobody reads
        received = await caller.read_until(END[way])
    assert b" w4999" in received
    assert gateway.lines[0]["error"] is None


async def test_what_has_come_is_not_lost_when_the_connection_breaks_behind_it() -> None:
    """The end of a whole answer that waits in the gateway for a slow caller counts, though its connection breaks."""
    blocked, broken = asyncio.Event(), asyncio.Event()
    script = answers.script({}, ["x" * 400_000, "behind"])

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999999\r\n\r\n")
        writer.write(b"".join(script.until(1)))
        await blocked.wait()
        writer.write(script.tokens[1])
        for _ in range(100):  # turns of the loop that all share: the gateway now waits for its caller
            await asyncio.sleep(0)
        writer.write(b"".join(script.finish) + answers.DONE)
        writer.write_eof()
        await reader.read()  # the rest of the request, until the gateway gives the connection up
        broken.set()

    async with (
        scripted(upstream) as base_url,
        serving(base_url, small=True) as gateway,
        calling(gateway.url, OPENAI_EVENTS, "hi", lazy=True) as caller,
    ):
        await caller.read_until(b"xxxxx")
        blocked.set()
        await asyncio.wait_for(broken.wait(), 10)
        await caller.read_until(END[OPENAI_EVENTS])
        assert gateway.lines[0]["error"] is None


def _sound(stream: bytes) -> list[object]:
    """The upstream's chunks without [DONE] and without those that are not JSON."""
    found = []
    for data in payloads(stream):
        try:
            found.append(json.loads(data))
        except ValueError:
            assert data == "[DONE]" or "bro" in data  # what the scenario breaks
    return found
