"""Whatever breaks before the first content byte is unseen where another target answers, and a clear error where not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest

from tests.faults.upstream import REDIRECTED
from tests.inprocess import scripted
from tests.servers import free_port
from tests.ways import BRAIN_EVENTS, JSON_WAYS, STREAM_WAYS, WAYS, Way

from .cases import SMALL, failed, whole
from .stand import in_every_way, standing, together

KEYS: Final = {**SMALL.keys, "max_retries": 2}
STATUS: Final = {
    "bad_request": (400, 400),
    "content_filter": (400, 400),
    "context_length_exceeded": (400, 400),
    "auth_error": (401, 500),
    "quota_exceeded": (429, 429),
    "rate_limit": (429, 429),
    "connection_error": (502, 502),
    "upstream_error": (502, 502),
    "timeout": (504, 504),
}


@dataclass(frozen=True)
class Row:
    """A fault; how often the first is asked where there is a second and where there is none; and what it then is."""

    fault: str
    beside: int
    alone: int
    code: str
    ways: tuple[Way, ...] = WAYS
    routed: bool = True  # the second may be asked


ROWS: Final = (
    Row("status:429", 3, 3, "rate_limit"),
    Row("status:503", 3, 3, "upstream_error"),
    Row("status:529", 3, 3, "upstream_error"),
    Row("status:500", 2, 2, "upstream_error"),
    Row("status:502", 2, 2, "upstream_error"),
    Row("status:504", 2, 2, "upstream_error"),
    Row("status:408", 2, 2, "upstream_error"),
    Row("status:409", 2, 2, "upstream_error"),
    Row("reset", 2, 2, "connection_error"),
    Row("refuse-headers", 2, 2, "connection_error"),
    Row("html", 1, 2, "upstream_error"),
    Row("json-error-200", 1, 2, "upstream_error"),
    Row("invalid-json", 1, 2, "upstream_error"),
    Row("no-choices", 1, 2, "upstream_error"),
    Row("empty", 1, 2, "upstream_error"),
    Row("no-content", 1, 2, "upstream_error"),
    Row("gzip-garbage", 1, 2, "upstream_error"),
    Row("cut:0", 1, 2, "upstream_error"),
    Row("cut-reset:0", 1, 2, "upstream_error"),
    Row("clean-end:0", 1, 2, "upstream_error"),
    Row("in-band-error:0", 1, 2, "upstream_error"),
    Row("malformed-cut:0", 1, 2, "upstream_error"),
    Row("done-without-finish:0", 1, 2, "upstream_error", STREAM_WAYS),
    Row("wrong-length", 1, 2, "upstream_error", JSON_WAYS),
    Row("null-finish", 1, 2, "upstream_error", JSON_WAYS),
    Row("finish-error", 1, 2, "upstream_error", JSON_WAYS),
    Row("in-band-code:429:0", 3, 3, "rate_limit"),
    Row("in-band-code:503:0", 3, 3, "upstream_error"),
    Row("in-band-code:insufficient_quota:0", 1, 1, "quota_exceeded"),
    Row("in-band-code:context_length_exceeded:0", 1, 1, "context_length_exceeded"),
    Row("in-band-code:content_filter:0", 1, 1, "content_filter", routed=False),
    Row("status:400", 1, 1, "bad_request", routed=False),
    Row("status:404", 1, 1, "bad_request", routed=False),
    Row("status:413", 1, 1, "bad_request", routed=False),
    Row("status:422", 1, 1, "bad_request", routed=False),
    Row("param-error", 1, 1, "bad_request", routed=False),
    Row("status:400:content_filter", 1, 1, "content_filter", routed=False),
    Row("status:400:context_length_exceeded", 1, 1, "context_length_exceeded"),
    Row("status:401", 1, 1, "auth_error"),
    Row("status:403", 1, 1, "auth_error"),
    Row("status:402", 1, 1, "quota_exceeded"),
    Row("status:429:insufficient_quota", 1, 1, "quota_exceeded"),
)


KINDS: Final = sorted({row.code for row in ROWS})


async def in_every_row(code: str, play: Callable[[Row, Way], Awaitable[None]]) -> None:
    """Plays all faults that have this code, in all ways, at the same time."""
    rows = [row for row in ROWS if row.code == code]
    await together({f"{row.fault} {way}": partial(play, row, way) for row in rows for way in row.ways})


@pytest.mark.parametrize("code", KINDS)
async def test_another_target_answers_unseen(code: str) -> None:
    """The caller gets the whole answer, or at once the error that is the same everywhere; the first is not hammered."""

    async def play(row: Row, way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("ok")
            async with stand.serving({}, {}):
                seen = await stand.ask(f"fault:{row.fault}")
                logged = await stand.line()
            if row.routed:
                whole(seen, by="second")
                books = (seen.header("X-Attempts"), seen.header("X-Failed-Providers"))
                assert seen.early or books == (str(row.beside + 1), "first")
            else:
                failed(seen, row.code, status_of(row.code, way))
            assert stand.counts() == [row.beside, int(row.routed), 0]
            assert logged["attempts"] == sum(stand.counts())
            assert list(logged["failed_providers"]) == (["first"] if row.routed else [])

    await in_every_row(code, play)


@pytest.mark.parametrize("code", KINDS)
async def test_without_another_target_the_error_is_clear(code: str) -> None:
    """The error has its own code and status, after as many attempts as its class allows."""

    async def play(row: Row, way: Way) -> None:
        async with standing(way, keys=KEYS) as stand, stand.serving({}):
            seen = await stand.ask(f"fault:{row.fault}")
            failed(seen, row.code, status_of(row.code, way))
            assert stand.counts() == [row.alone, 0, 0]
            if way is not BRAIN_EVENTS:
                assert seen.header("X-Attempts") == str(row.alone)
                assert (seen.header("Retry-After") is not None) is (row.code == "rate_limit")

    await in_every_row(code, play)


@pytest.mark.parametrize("where", ["refused", "dns", "tls", "no-http"])
async def test_what_cannot_be_reached_is_left_at_once(where: str) -> None:
    """Refused, unknown, not TLS or not HTTP: the next target answers, and no backoff is waited for."""

    async def mail(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP ready\r\n")
        await writer.drain()

    async def play(way: Way) -> None:
        slow = {**KEYS, "retry_backoff_min": 30, "retry_backoff_max": 30}
        async with scripted(mail) as no_http, standing(way, keys=slow) as stand:
            base_url = {
                "refused": f"http://127.0.0.1:{free_port()}/v1",
                "dns": "https://nowhere.invalid/v1",
                "tls": no_http.replace("http:", "https:"),
                "no-http": no_http,
            }[where]
            async with stand.serving({"base_url": base_url}, {}):
                seen = await stand.ask()
            whole(seen, by="second")
            assert seen.early or (seen.header("X-Attempts"), seen.header("X-Failed-Providers")) == ("2", "first")

    await in_every_way(WAYS, play)


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_three_targets_two_broken_in_different_ways(way: Way) -> None:
    """Each is given what its failure deserves, and the third answers."""
    async with standing(way, keys=KEYS) as stand:
        for one, other, counts in (
            ("html", "status:503", [1, 3, 1]),
            ("status:401", "reset", [1, 2, 1]),
            ("status:500", "status:400:context_length_exceeded", [2, 1, 1]),
        ):
            stand.first.force(one)
            stand.second.force(other)
            stand.third.force("ok")
            async with stand.serving({}, {}, {}):
                seen = await stand.ask()
            whole(seen, by="third")
            assert stand.counts() == counts
            assert seen.header("X-Failed-Providers") == "first,second"
            assert seen.header("X-Attempts") == str(sum(counts))
            for upstream in stand.upstreams:
                upstream.reset()


# What three targets say, what the caller is told, and how often each was asked.
EVERYTHING_BROKEN: Final = (
    (("reset", "status:401", "html"), {"connection_error", "upstream_error"}),
    (("status:400:context_length_exceeded", "status:500", "html"), {"upstream_error"}),
    (("status:400:context_length_exceeded",) * 3, {"context_length_exceeded"}),
    (("status:401", "status:403", "status:401"), {"auth_error"}),
    (("status:429:insufficient_quota", "status:401", "status:402"), {"quota_exceeded", "auth_error"}),
    (("html", "status:400", "ok"), {"bad_request"}),
    (("html", "status:400:content_filter", "ok"), {"content_filter"}),
)


@pytest.mark.parametrize(("faults", "codes"), EVERYTHING_BROKEN, ids=lambda value: "+".join(value))
async def test_when_all_are_broken_the_caller_learns_what_matters(faults: tuple[str, ...], codes: set[str]) -> None:
    """Where one failure passes and another does not, the caller may try again."""

    async def play(way: Way) -> None:
        async with standing(way, keys={**KEYS, "max_retries": 0}) as stand:
            for upstream, fault in zip(stand.upstreams, faults, strict=True):
                upstream.force(fault)
            async with stand.serving({}, {}, {}):
                seen = await stand.ask()
            assert seen.verdict.code in codes
            asked = 2 if "ok" in faults else 3
            assert stand.counts() == [1, 1, asked - 2]

    await in_every_way(WAYS, play)


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_when_all_are_limited_the_caller_is_told_when_to_come_back(way: Way) -> None:
    """429 with a Retry-After that one of them named, and nobody was asked before it had passed."""
    async with standing(way, keys={**KEYS, "request_timeout": 5, "streaming_timeout": 5}) as stand:
        for upstream, wait_s in zip(stand.upstreams, (50, 40, 60), strict=True):
            upstream.force(f"status:429:rate_limit_exceeded:{wait_s}")
        async with stand.serving({}, {}, {}):
            seen = await stand.ask()
    failed(seen, "rate_limit", 429)
    assert stand.counts() == [1, 1, 1]
    assert seen.reply.streamed or seen.header("Retry-After") in ("40", "50", "60")


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_redirect_is_not_followed_on_any_target(way: Way) -> None:
    """The other address would get the key."""
    async with standing(way, keys=KEYS) as stand:
        stand.second.force("ok")
        async with stand.serving({}, {}):
            whole(await stand.ask("fault:redirect"), by="second")
        assert REDIRECTED not in {row.path for row in stand.first.requests}


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_every_decision_is_logged_with_its_reason(way: Way) -> None:
    """One line a step: the retry with its wait, the failover, and nothing for the answer itself."""
    async with standing(way, keys=KEYS) as stand:
        stand.second.force("ok")
        async with stand.serving({}, {}):
            await stand.ask("fault:status:500")
            steps: list[dict[str, Any]] = stand.gateway.lines("failover")
    assert [(row["provider"], row["model"], row["error"], row["decision"]) for row in steps] == [
        ("first", "m", "upstream_error", "retry"),
        ("first", "m", "upstream_error", "failover"),
    ]
    assert all(row["reason"] for row in steps)
    assert 10 <= steps[0]["wait_ms"] <= 20
    assert steps[1]["wait_ms"] == 0


def status_of(code: str, way: Way) -> int:
    """The HTTP status of this code in the way's dialect."""
    return STATUS[code][way.dialect == "openai"]
