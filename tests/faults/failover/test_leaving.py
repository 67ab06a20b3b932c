"""A caller that leaves is nobody's failure, wherever its request stands: all is closed within a second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import pytest

from tests.ways import BRAIN_EVENTS, WAYS, Way, calling, eventually

from .cases import SMALL, whole
from .stand import Stand, in_every_way, standing, together
from .test_hedging import hedged

PROMPTLY_S: Final = 3.0  # one second is promised, a busy machine may add; all limits of the gateway are far behind it
KEYS: Final = {**SMALL.keys, "circuit_breaker_threshold": 1}
PATIENT: Final = {"retry_backoff_min": 30, "retry_backoff_max": 30, "circuit_breaker_threshold": 5}


async def _first_asked(stand: Stand) -> None:
    await stand.first.until(lambda it: it.requests and (it.forced != "status:503" or it.requests[-1].answered_at))


async def _second_asked(stand: Stand) -> None:
    await stand.second.until(lambda it: it.requests)


Until = Callable[[Stand], Awaitable[None]]
# What the upstreams do, with which settings of the first, with which routes, when the caller leaves, and how often each
# was asked by then.
WHERE: Final[dict[str, tuple[tuple[str, str], dict[str, Any], dict[str, Any], Until, list[int]]]] = {
    "asking": (("silent", "ok"), {}, {}, _first_asked, [1, 0, 0]),
    "backing off": (("status:503", "ok"), PATIENT, {}, _first_asked, [1, 0, 0]),
    "failing over": (("html", "silent"), {"circuit_breaker_threshold": 5}, {}, _second_asked, [1, 1, 0]),
    "hedging": (("silent", "silent"), {}, {"routes": hedged(20)}, _second_asked, [1, 1, 0]),
    "late": (("silent", "silent"), {"first_token_timeout": 0.1}, {}, _second_asked, [1, 1, 0]),
}


@pytest.mark.parametrize("where", WHERE)
async def test_everything_is_closed_when_the_caller_leaves(where: str) -> None:
    """Nothing is asked after that, no circuit moves, and the log says 499 without alarm."""
    faults, keys, top, until, counts = WHERE[where]

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            for upstream, fault in zip(stand.upstreams, faults, strict=False):
                upstream.force(fault)
            async with stand.serving(keys, {}, **top), calling(stand.gateway.url, way, "hi") as caller:
                await until(stand)
                caller.leave()
                await stand.left(stand.first, PROMPTLY_S)
                await stand.left(stand.second, PROMPTLY_S)
            # The gateway is idle now: whatever it did for this caller is over.
            assert stand.counts() == counts
            line = await stand.line()
            assert (line["error"], line["severity"]) == ("client_closed_request", "INFO")
            # A silent first that was given up at its own limit may be blamed; the one that the caller left may not.
            blamed = {row["provider"] for row in stand.gateway.lines("circuit")}
            assert blamed <= ({"first"} if where == "late" and way.stream else set())

    await in_every_way(WAYS, play)


async def test_leaving_after_the_headers_is_leaving_all_the_same() -> None:
    """A Brain stream has begun with its meta event while the gateway still looks for an answer."""

    async def play(where: str) -> None:
        faults, keys, top, until, _ = WHERE[where]
        async with standing(BRAIN_EVENTS, keys=KEYS) as stand:
            for upstream, fault in zip(stand.upstreams, faults, strict=False):
                upstream.force(fault)
            async with (
                stand.serving(keys, {}, load_shedding={"max_in_flight": 1}, **top),
                calling(stand.gateway.url, BRAIN_EVENTS, "hi") as caller,
            ):
                await until(stand)
                await caller.read_until(b"event: meta")
                before = stand.counts()
                caller.leave()
                await stand.left(stand.first, PROMPTLY_S)
                await stand.left(stand.second, PROMPTLY_S)
                assert (await stand.line())["error"] == "client_closed_request"
                assert stand.counts() == before
                stand.first.force("ok")
                stand.second.force("ok")
                whole(await stand.ask())  # there is room again

    await together({where: partial(play, where) for where in WHERE})


async def test_leaving_a_continued_stream_closes_who_goes_on() -> None:
    """The second is at it when the caller leaves."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("pause:3:60:30")
            async with (
                stand.serving({}, {"continues_prefill": True}),
                calling(stand.gateway.url, way, "fault:cut:2") as caller,
            ):
                await caller.read_until(b'" w2"')
                caller.leave()
                await stand.left(stand.second, PROMPTLY_S)
            assert {row["provider"] for row in stand.gateway.lines("circuit")} == {"first"}
            line = await stand.line()
            assert line["error"] == "client_closed_request"

    await in_every_way([way for way in WAYS if way.stream], play)


async def test_a_probe_that_the_caller_leaves_is_no_verdict() -> None:
    """The circuit neither closes nor waits another cooldown: the next request is the next probe."""

    async def play(way: Way) -> None:
        keys = {**KEYS, "max_retries": 0, "circuit_breaker_cooldown": 0.1}
        async with standing(way, keys=keys) as stand:
            stand.first.force("status:500")
            stand.second.force("ok")
            async with stand.serving({}, {}):
                whole(await stand.ask(), by="second")
                stand.first.reset()
                stand.first.force("silent")
                await _left_as_probe(stand, way)
                stand.first.force("ok")
                whole(await stand.ask("after"), by="first")

    await in_every_way(WAYS, play)


async def _left_as_probe(stand: Stand, way: Way) -> None:
    """Asks until a request is the probe, and leaves it."""
    while not stand.first.requests:
        async with calling(stand.gateway.url, way, "hi") as caller:
            await eventually(partial(_asked_since, stand, len(stand.second.requests)))
            caller.leave()
            await stand.left(stand.first, PROMPTLY_S)
    await eventually(lambda: stand.gateway.lines("circuit")[-1]["to"] == "open")


def _asked_since(stand: Stand, before: int) -> bool:
    return bool(stand.first.requests) or len(stand.second.requests) > before
