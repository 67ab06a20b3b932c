"""A broken answer is never shown as a whole one: in both dialects, streamed or not, before the first token or after."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import aiohttp
import pytest

from shared.api import brain, endpoints, sse
from tests.faults.upstream import REDIRECTED, BreakingUpstream
from tests.inprocess import scripted, serving
from tests.ways import BRAIN_EVENTS, JSON_WAYS, OPENAI_EVENTS, STREAM_WAYS, WAYS, Way, ask, calling, eventually, judge

STATUS: Final = {"connection_error": 502, "upstream_error": 502, "timeout": 504}
# What a caller sees of a stream before it breaks: the text of the first two tokens, of all, or nothing.
SOME, ALL, NONE = "Hello,", "Hello, world!", ""

STREAMED: Final = (
    ("reset", "connection_error", NONE),
    ("refuse-headers", "connection_error", NONE),
    ("cut:0", "upstream_error", NONE),
    ("cut:2", "upstream_error", SOME),
    ("cut-reset:0", "upstream_error", NONE),
    ("cut-reset:2", "upstream_error", SOME),
    ("clean-end:0", "upstream_error", NONE),
    ("clean-end:2", "upstream_error", SOME),
    ("done-without-finish:0", "upstream_error", NONE),
    ("done-without-finish:2", "upstream_error", SOME),
    ("in-band-error:0", "upstream_error", NONE),
    ("in-band-error:2", "upstream_error", SOME),
    ("malformed-cut:0", "upstream_error", NONE),
    ("malformed-cut:2", "upstream_error", SOME),
    ("null-finish", "upstream_error", ALL),
    ("finish-error", "upstream_error", ALL),
    ("html", "upstream_error", NONE),
    ("json-error-200", "upstream_error", NONE),
    ("invalid-json", "upstream_error", NONE),
    ("no-choices", "upstream_error", NONE),
    ("redirect", "upstream_error", NONE),
)
NOT_STREAMED: Final = (
    ("reset", "connection_error"),
    ("refuse-headers", "connection_error"),
    ("cut", "upstream_error"),
    ("cut-reset", "upstream_error"),
    ("clean-end", "upstream_error"),
    ("in-band-error", "upstream_error"),
    ("malformed", "upstream_error"),
    ("null-finish", "upstream_error"),
    ("finish-error", "upstream_error"),
    ("html", "upstream_error"),
    ("json-error-200", "upstream_error"),
    ("invalid-json", "upstream_error"),
    ("no-choices", "upstream_error"),
    ("wrong-length", "upstream_error"),
    ("redirect", "upstream_error"),
)
# The limits are short one at a time, so that only the one that is meant can be reached.
TIMED: Final = (
    ("silent", {"first_token_s": 0.3}, "no first token", NONE),
    ("pings", {"first_token_s": 0.3}, "no first token", NONE),
    ("stall:0", {"first_token_s": 0.3}, "no first token", NONE),
    ("stall:2", {"idle_s": 0.3}, "stood still", SOME),
    ("stall-pings:0", {"first_token_s": 0.3}, "no first token", NONE),
    ("stall-pings:2", {"idle_s": 0.3}, "stood still", SOME),
    ("silent", {"streaming_s": 0.3}, "not complete", NONE),
    ("stall-pings:2", {"streaming_s": 0.6}, "not complete", NONE),
    ("paced:500:10", {"streaming_s": 0.6}, "not complete", NONE),
)


@pytest.mark.parametrize(("fault", "code", "shown"), STREAMED, ids=[row[0] for row in STREAMED])
async def test_a_broken_stream_ends_in_an_error(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, fault: str, code: str, shown: str
) -> None:
    """What came before the fault is shown, then the error; before the first token OpenAI's callers get a status."""
    async with serving(upstream.base_url) as gateway:
        for way in STREAM_WAYS:
            reply = await ask(http, gateway.url, way, f"fault:{fault}")
            verdict = judge(reply)
            status = STATUS[code] if way is OPENAI_EVENTS and not shown else 200
            assert (way, reply.status, verdict.code, verdict.text) == (way, status, code, shown)
            line = gateway.lines.pop()
            assert (line["error"], line["status"], line["severity"]) == (code, reply.status, "ERROR")


@pytest.mark.parametrize(("fault", "code"), NOT_STREAMED, ids=[row[0] for row in NOT_STREAMED])
async def test_a_broken_answer_is_an_error(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, fault: str, code: str
) -> None:
    """Without a stream the status tells, after one attempt, and nothing of the broken body is shown."""
    async with serving(upstream.base_url) as gateway:
        for way in JSON_WAYS:
            reply = await ask(http, gateway.url, way, f"fault:{fault}")
            assert (way, reply.status, judge(reply).code) == (way, STATUS[code], code)
            assert (reply.headers["X-Attempts"], reply.headers["X-Failed-Providers"]) == ("1", "openai")
            line = gateway.lines.pop()
            assert (line["error"], line["status"]) == (code, reply.status)
        assert len(upstream.requests) == len(JSON_WAYS)


@pytest.mark.parametrize(
    ("fault", "limits", "said", "shown"), TIMED, ids=[f"{row[0]}-{next(iter(row[1]))}" for row in TIMED]
)
async def test_a_late_stream_is_given_up(
    http: aiohttp.ClientSession,
    upstream: BreakingUpstream,
    fault: str,
    limits: dict[str, Any],
    said: str,
    shown: str,
) -> None:
    """Each limit ends the stream by its own name, whatever signs of life there are, and closes upstream."""
    async with serving(upstream.base_url, **limits) as gateway:
        begun_s = time.monotonic()
        replies = await asyncio.gather(*(ask(http, gateway.url, way, f"fault:{fault}") for way in STREAM_WAYS))
        assert time.monotonic() - begun_s >= min(limits.values())
        for reply in replies:
            verdict = judge(reply)
            assert (reply.way, verdict.code, said in verdict.message) == (reply.way, "timeout", True)
            assert verdict.text.startswith(shown)
            assert reply.status == (504 if reply.way is OPENAI_EVENTS and not verdict.text else 200)
        await upstream.until(lambda it: all(request.aborted for request in it.requests), 1.0)


@pytest.mark.parametrize("fault", ["silent", "stall", "pings", "stall-pings", "slow:30"])
async def test_a_late_answer_is_given_up(http: aiohttp.ClientSession, upstream: BreakingUpstream, fault: str) -> None:
    """Without a stream the total limit counts, whatever signs of life there are, and closes upstream."""
    async with serving(upstream.base_url, request_s=0.3) as gateway:
        for reply in await asyncio.gather(*(ask(http, gateway.url, way, f"fault:{fault}") for way in JSON_WAYS)):
            verdict = judge(reply)
            assert (reply.status, verdict.code, "not complete" in verdict.message) == (504, "timeout", True)
        await upstream.until(lambda it: all(request.aborted for request in it.requests), 1.0)


@pytest.mark.parametrize("keep_alive_s", [60.0, 0.2])
@pytest.mark.parametrize("way", STREAM_WAYS, ids=str)
async def test_a_caller_that_reads_nothing_is_given_up_at_the_total_limit(
    upstream: BreakingUpstream, monkeypatch: pytest.MonkeyPatch, way: Way, keep_alive_s: float
) -> None:
    """A caller that stops reading for good does not hold its stream, and upstream's, for ever."""
    monkeypatch.setattr(endpoints, "UNREAD_GRACE_S", 0.1)
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", keep_alive_s)
    async with (
        serving(upstream.base_url, small=True, streaming_s=0.5) as gateway,
        calling(gateway.url, way, "fault:big:5000", lazy=True) as caller,
    ):
        await caller.read_until(b" w0")
        await eventually(lambda: gateway.lines)
        assert gateway.lines[0]["error"] in ("timeout", "client_closed_request")


@pytest.mark.parametrize("way", STREAM_WAYS, ids=str)
async def test_a_silent_stream_is_kept_alive_but_not_for_ever(
    upstream: BreakingUpstream, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    """Comments go out while nothing else does, and no limit takes them for tokens."""
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.05)
    async with serving(upstream.base_url, idle_s=0.4) as gateway:
        reply = await ask(http, gateway.url, way, "fault:stall:2")
    assert judge(reply).code == "timeout"
    assert reply.body.count(b"\n\n: keep-alive\n\n") >= 1


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_redirect_is_never_followed(http: aiohttp.ClientSession, upstream: BreakingUpstream, way: Way) -> None:
    """The other address is not asked: it would get the key."""
    async with serving(upstream.base_url) as gateway:
        await ask(http, gateway.url, way, "fault:redirect")
        await ask(http, gateway.url, way, "hi")
    assert len(upstream.requests) == 2
    assert REDIRECTED not in {request.path for request in upstream.requests}


async def test_the_gateway_is_sound_after_every_fault(http: aiohttp.ClientSession, upstream: BreakingUpstream) -> None:
    """All faults at once, then a good answer, and each request has exactly one line in the log."""
    faults = {row[0] for row in (*STREAMED, *NOT_STREAMED)}
    async with serving(upstream.base_url) as gateway:
        await asyncio.gather(*(ask(http, gateway.url, way, f"fault:{fault}") for fault in faults for way in WAYS))
        for way in WAYS:
            assert judge(await ask(http, gateway.url, way)).text == ALL
        assert len(gateway.lines) == (len(faults) + 1) * len(WAYS)


async def test_a_stream_that_says_nothing_does_not_fill_the_memory(http: aiohttp.ClientSession) -> None:
    """Chunks without content are kept back for a plain error, but not without end."""
    role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    sent = 0

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999999999\r\n\r\n")
        while True:
            writer.write(role * 1000)
            await writer.drain()
            sent += 1

    async with scripted(upstream) as base_url, serving(base_url) as gateway:
        reply = await ask(http, gateway.url, OPENAI_EVENTS)
    assert (reply.status, judge(reply).code) == (502, "upstream_error")
    assert sent < 200


async def test_a_brain_stream_is_not_gathered_without_end(
    upstream: BreakingUpstream, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text for the final event has a limit, and beyond it the stream ends in an error."""
    monkeypatch.setattr(brain, "MAX_ANSWER_CHARS", 1000)
    async with serving(upstream.base_url) as gateway:
        verdict = judge(await ask(http, gateway.url, BRAIN_EVENTS, "fault:big:5000"))
    assert verdict.code == "upstream_error"
    assert len(verdict.text) <= 1000
