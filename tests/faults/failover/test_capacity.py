"""Limits that protect the providers and the process: room, circuits, the retry budget."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from typing import Any, Final

import pytest

from tests.ways import BRAIN_JSON, OPENAI_EVENTS, OPENAI_JSON, STREAM_WAYS, WAYS, Way

from .cases import SMALL, whole
from .stand import NAMES, Seen, Stand, in_every_way, standing, together

QUICK: Final = {**SMALL.keys, "max_retries": 0}
LONG: Final = "fault:silent"


async def test_a_full_provider_is_skipped() -> None:
    """It counts neither as an attempt nor as a failure, and is asked again once there is room."""

    async def play(way: Way) -> None:
        async with standing(way, keys=QUICK) as stand, stand.serving({"max_in_flight": 1}, {}):
            busy = asyncio.create_task(stand.ask("fault:slow:30"))
            await stand.first.until(lambda it: it.requests)
            seen = await stand.ask("hi")
            whole(seen, by="second")
            assert (seen.header("X-Attempts"), seen.header("X-Failed-Providers")) == ("1", None)
            await _cancelled(busy)
            await stand.left(stand.first)
            await _until_served_by(stand, "first")

    await in_every_way(WAYS, play)


async def test_a_provider_that_fills_up_while_another_is_tried_is_skipped() -> None:
    """Room is looked for when a target's turn comes, not only when the request does."""
    async with standing(OPENAI_JSON, keys=QUICK) as stand:
        stand.third.force("ok")
        async with stand.serving({}, {"max_in_flight": 1}, {}):
            slow = asyncio.create_task(stand.ask("fault:turns:slow:0.3 x"))
            busy = asyncio.create_task(stand.ask(LONG, headers={"X-Provider": "second"}))
            await stand.second.until(lambda it: it.requests)
            whole(await stand.ask("fault:status:500"), by="third")
            assert (await slow).status == 200
            await _cancelled(busy)


async def test_a_pinned_provider_that_is_full_refuses_at_once() -> None:
    """503 with Retry-After: 1, and nobody stands in."""

    async def play(way: Way) -> None:
        async with standing(way, keys=QUICK) as stand, stand.serving({"max_in_flight": 1}, {}):
            busy = asyncio.create_task(stand.ask(LONG))
            await stand.first.until(lambda it: it.requests)
            _shed(await stand.ask("hi", headers={"X-Provider": "first"}))
            assert stand.counts() == [1, 0, 0]
            await _cancelled(busy)

    await in_every_way(WAYS, play)


@pytest.mark.parametrize("limits", [{"max_in_flight": 1}, {}], ids=["provider", "process"])
async def test_what_has_no_room_is_refused_at_once(limits: dict[str, int]) -> None:
    """No queue: 503 with Retry-After: 1, and an answer again as soon as there is room."""

    async def play(way: Way) -> None:
        top: dict[str, Any] = {} if limits else {"load_shedding": {"max_in_flight": 1}}
        async with standing(way, keys=QUICK) as stand, stand.serving(limits, **top):
            busy = asyncio.create_task(stand.ask(LONG))
            await stand.first.until(lambda it: it.requests)
            _shed(*await asyncio.gather(*(stand.ask(f"question {number}") for number in range(5))))
            assert stand.counts() == [1, 0, 0]
            await _cancelled(busy)
            await stand.left(stand.first)
            await _until_served_by(stand, "first")

    await in_every_way(WAYS, play)


async def test_of_those_that_come_together_the_rest_is_refused() -> None:
    """Also where all are admitted before the first has taken its place: plainly, with a status, in every dialect."""

    async def play(way: Way) -> None:
        async with standing(way, keys=QUICK) as stand, stand.serving({}, load_shedding={"max_in_flight": 1}):
            seen = await asyncio.gather(*(stand.ask("fault:slow-first:0.2") for _ in range(8)))
            refused = [one for one in seen if one.status != 200]
            _shed(*refused)
            assert sum(stand.counts()) == len(seen) - len(refused) < len(seen)

    await in_every_way(WAYS, play)


async def test_room_is_given_back_after_every_end() -> None:
    """Whole, refused, broken, timed out: with room for one, each next request is admitted."""
    faults = ("hi", "fault:status:500", "fault:status:400", "fault:reset", "fault:cut:2", "fault:silent", "fault:html")

    async def play(way: Way) -> None:
        keys = {**QUICK, "first_token_timeout": 0.1, "request_timeout": 0.3, "circuit_breaker_threshold": 100}
        top: dict[str, Any] = {"load_shedding": {"max_in_flight": 1}}
        async with standing(way, keys=keys) as stand, stand.serving({"max_in_flight": 1}, **top):
            for fault in (*faults, "hi"):
                seen = await stand.ask(fault)
                assert seen.verdict.code != "overloaded"
            assert sum(stand.counts()) == len(faults) + 1

    await in_every_way(WAYS, play)


async def test_when_every_circuit_is_open_the_caller_is_told_so() -> None:
    """503 with the Retry-After of the first probe, at once and without asking anyone; each circuit logged it."""

    async def play(way: Way) -> None:
        keys = {**QUICK, "circuit_breaker_threshold": 1, "circuit_breaker_cooldown": 60}
        async with standing(way, keys=keys) as stand, stand.serving({}, {}):
            assert (await stand.ask("fault:status:500")).verdict.code == "upstream_error"
            assert stand.counts() == [1, 1, 0]
            seen = await stand.ask("hi")
            assert (seen.status, seen.verdict.code) == (503, "overloaded")
            assert 1 <= int(seen.header("Retry-After") or 0) <= 60
            assert stand.counts() == [1, 1, 0]
            moves = [(row["provider"], row["model"], row["from"], row["to"]) for row in stand.gateway.lines("circuit")]
            assert moves == [(name, "m", "closed", "open") for name in ("first", "second")]

    await in_every_way(WAYS, play)


async def test_deep_health_shows_every_circuit() -> None:
    """As this process sees it: one open, one closed."""
    keys = {**QUICK, "circuit_breaker_threshold": 1, "circuit_breaker_cooldown": 60}
    async with standing(BRAIN_JSON, keys=keys) as stand:
        stand.second.force("ok")
        async with stand.serving({}, {}, {"base_url": "http://127.0.0.1:9/v1"}):
            whole(await stand.ask("fault:status:500"), by="second")
            async with stand.http.get(f"{stand.gateway.url}/v1/brain/health?deep=true") as answer:
                providers = (await answer.json())["providers"]
    assert {name: row["circuit"] for name, row in providers.items()} == dict(
        zip(NAMES, ("open", "closed", "closed"), strict=True)
    )
    assert {name: row["healthy"] for name, row in providers.items()} == dict(
        zip(NAMES, (True, True, False), strict=True)
    )


async def test_what_is_not_the_providers_ill_health_opens_nothing() -> None:
    """Refusals and limits speak of the request, the key or the pace."""
    faults = ("status:400", "status:401", "status:429", "status:400:content_filter")

    async def play(fault: str, way: Way) -> None:
        keys = {**QUICK, "circuit_breaker_threshold": 1}
        async with standing(way, keys=keys) as stand, stand.serving({}):
            for _ in range(3):
                await stand.ask(f"fault:{fault}")
            assert stand.counts() == [3, 0, 0]
            assert stand.gateway.lines("circuit") == []

    await together({f"{fault} {way}": partial(play, fault, way) for fault in faults for way in WAYS})


async def test_a_truncated_stream_counts_against_its_provider() -> None:
    """Broken behind its first token, it opens the circuit like any other failure."""
    faults = ("cut:2", "stall:2", "in-band-error:2", "clean-end:2")

    async def play(fault: str, way: Way) -> None:
        keys = {**QUICK, "circuit_breaker_threshold": 2, "idle_timeout": 0.1}
        async with standing(way, keys=keys) as stand:
            stand.second.force("ok")
            async with stand.serving({}, {}):
                for _ in range(2):
                    assert (await stand.ask(f"fault:{fault}")).verdict.text == "Hello,"
                whole(await stand.ask("hi"), by="second")

    await together({f"{fault} {way}": partial(play, fault, way) for fault in faults for way in STREAM_WAYS})


async def test_exactly_one_probe_is_sent() -> None:
    """Behind the cooldown one request of many tries the first; its success lets the others come back."""
    keys = {**QUICK, "circuit_breaker_threshold": 1, "circuit_breaker_cooldown": 0.2}
    async with standing(OPENAI_JSON, keys=keys) as stand:
        stand.first.force("status:500")
        stand.second.force("ok")
        async with stand.serving({}, {}):
            whole(await stand.ask(), by="second")
            stand.first.reset()
            stand.first.force("slow:0.2")
            while not stand.first.requests:
                burst = await asyncio.gather(*(stand.ask() for _ in range(8)))
                for seen in burst:
                    whole(seen)
            assert stand.counts()[0] == 1
            whole(await stand.ask(), by="first")
            moves = [row["to"] for row in stand.gateway.lines("circuit")]
            assert moves == ["open", "half_open", "closed"]


async def test_a_failed_probe_opens_for_another_cooldown() -> None:
    """The first stays down: it is asked once a cooldown, and no caller notices."""
    keys = {**QUICK, "circuit_breaker_threshold": 1, "circuit_breaker_cooldown": 0.1}
    async with standing(OPENAI_EVENTS, keys=keys) as stand:
        stand.first.force("status:500")
        stand.second.force("ok")
        async with stand.serving({}, {}):
            while len(stand.first.requests) < 4:
                whole(await stand.ask(), by="second")
        arrivals = [row.arrived_at for row in stand.first.requests]
        assert min(after - before for before, after in itertools.pairwise(arrivals)) >= 0.09


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_outage_is_not_multiplied(way: Way) -> None:
    """60 requests to a provider that is down for good: at most 10 % more attempts, and three."""
    keys = {**SMALL.keys, "retry_backoff_min": 0.01, "retry_backoff_max": 0.02, "circuit_breaker_threshold": 10**6}
    async with standing(way, keys=keys) as stand:
        stand.first.force("status:503")
        async with stand.serving({}):
            for seen in await asyncio.gather(*(stand.ask(f"question {number}") for number in range(60))):
                assert seen.verdict.code == "upstream_error"
        assert 60 < stand.counts()[0] <= 60 * 1.1 + 3


async def test_failing_over_is_free() -> None:
    """An exhausted retry budget does not keep requests from the targets that work."""
    keys = {**SMALL.keys, "circuit_breaker_threshold": 10**6}
    async with standing(OPENAI_JSON, keys=keys) as stand:
        stand.first.force("status:503")
        stand.second.force("ok")
        async with stand.serving({}, {}):
            for seen in await asyncio.gather(*(stand.ask(f"question {number}") for number in range(60))):
                whole(seen, by="second")
        assert 60 < stand.counts()[0] <= 60 * 1.1 + 3
        assert stand.counts()[1] == 60


async def test_shares_are_roughly_the_weights() -> None:
    """Of 200 requests with weights 4 and 1 about 160 go to the first, and none to a weight of 0."""
    async with standing(OPENAI_JSON, keys=QUICK) as stand:
        same = {"priority": 1}
        shares = ({**same, "weight": 4}, {**same, "weight": 1}, {**same, "weight": 0})
        async with stand.serving(*shares):
            for _ in range(10):
                for seen in await asyncio.gather(*(stand.ask() for _ in range(20))):
                    whole(seen)
    first, second, third = stand.counts()
    assert (first + second, third) == (200, 0)
    assert 125 <= first <= 190  # six standard deviations


async def test_the_last_resort_is_asked_when_all_others_are_out() -> None:
    """Weight 0 serves when nobody else does."""
    async with standing(OPENAI_JSON, keys=QUICK) as stand:
        stand.first.force("status:500")
        stand.third.force("status:500")
        async with stand.serving({}, {"weight": 0, "priority": 1}, {"priority": 2}):
            whole(await stand.ask(), by="second")
        assert stand.counts() == [1, 1, 1]


def _shed(*refused: Seen) -> None:
    for seen in refused:
        assert (seen.status, seen.verdict.code, seen.header("Retry-After")) == (503, "overloaded", "1")


async def _cancelled(task: asyncio.Task[Seen]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _until_served_by(stand: Stand, name: str) -> None:
    for _ in range(200):
        seen = await stand.ask("hi again")
        if (seen.status, seen.header("X-Served-By")) == (200, name):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never again served by {name}")
