"""Hedging: a silent target gets company, the first token wins, and the loser is closed at once."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from tests.ways import WAYS, Way

from .cases import SMALL, whole
from .stand import in_every_way, standing, together

KEYS: Final = {**SMALL.keys, "max_retries": 0, "circuit_breaker_threshold": 1}


def hedged(after_ms: float = 50) -> dict[str, Any]:
    """Routes that lead every request to the first and the second, with a hedge."""
    route = {"hedge_after_ms": after_ms, "targets": [{"provider": "first"}, {"provider": "second"}]}
    return {"m": route, "default": route}


async def test_the_first_token_wins() -> None:
    """The second answers for a silent first, which is closed at once and not blamed."""
    faults = ("silent", "pings", "roles", "slow-first:30", "slow:30")

    async def play(fault: str, way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("ok")
            async with stand.serving({}, {}, routes=hedged()):
                seen = await stand.ask(f"fault:{fault}")
                await stand.left(stand.first)
                circuits = stand.gateway.lines("circuit")
                line = await stand.line()
            whole(seen, by="second")
            assert stand.counts() == [1, 1, 0]
            assert stand.second.requests[0].arrived_at - seen.begun >= 0.04
            assert (circuits, line["provider"], line["attempts"], line["error"]) == ([], "second", 2, None)

    await together({f"{fault} {way}": partial(play, fault, way) for fault in faults for way in WAYS})


async def test_the_hedge_may_lose() -> None:
    """The first answers late but before the second, which is closed at once and not blamed."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("silent")
            async with stand.serving({}, {}, routes=hedged()):
                seen = await stand.ask("fault:slow:0.3")
                await stand.left(stand.second)
                circuits = stand.gateway.lines("circuit")
            whole(seen, by="first")
            assert (stand.counts(), circuits) == ([1, 1, 0], [])
            assert seen.header("X-Failed-Providers") is None

    await in_every_way(WAYS, play)


async def test_a_quick_answer_is_not_hedged() -> None:
    """Whoever has said something in time stays alone, however long the rest takes."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            async with stand.serving({}, {}, routes=hedged(5000)):
                whole(await stand.ask("hi"), by="first")
            assert stand.counts() == [1, 0, 0]

    await in_every_way(WAYS, play)


async def test_a_stream_that_has_begun_is_not_hedged() -> None:
    """After the first token there is nothing to win."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            async with stand.serving({}, {}, routes=hedged(300)):
                whole(await stand.ask("fault:pause:2:4:0.5"), " w0 w1 w2 w3", by="first")
            assert stand.counts() == [1, 0, 0]

    await in_every_way([way for way in WAYS if way.stream], play)


async def test_a_first_that_fails_beside_its_hedge_does_not_take_it_down() -> None:
    """The second goes on, and the first is named as failed."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("slow:0.3")
            async with stand.serving({}, {}, routes=hedged()):
                seen = await stand.ask("fault:slow-status:500:0.15")
            whole(seen, by="second")
            assert seen.header("X-Failed-Providers") == "first"
            assert stand.counts() == [1, 1, 0]

    await in_every_way(WAYS, play)


async def test_when_both_fail_the_error_is_clear() -> None:
    """One error, after both have been heard."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("status:500")
            async with stand.serving({}, {}, routes=hedged()):
                seen = await stand.ask("fault:slow-status:500:0.15")
            assert seen.verdict.code == "upstream_error"
            assert stand.counts() == [1, 1, 0]

    await in_every_way(WAYS, play)


async def test_hedges_spend_from_the_retry_budget() -> None:
    """Of ten slow requests only the first three or four are hedged; the others wait."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.first.force("slow:0.06")
            stand.second.force("silent")
            async with stand.serving({}, {}, routes=hedged(10)):
                for number in range(10):
                    whole(await stand.ask(f"question {number}"), by="first")
            assert stand.counts() == [10, 3, 0] or stand.counts() == [10, 4, 0]

    await in_every_way(WAYS, play)


async def test_no_hedge_without_being_asked_for() -> None:
    """Off by default: a slow answer is just slow."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("ok")
            async with stand.serving({}, {}):
                whole(await stand.ask("fault:slow:0.3"), by="first")
            assert stand.counts() == [1, 0, 0]

    await in_every_way(WAYS, play)


async def test_no_hedge_where_failover_is_forbidden() -> None:
    """X-No-Failover asks for one target, and gets one."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("ok")
            async with stand.serving({}, {}, routes=hedged(20)):
                whole(await stand.ask("fault:slow:0.3", headers={"X-No-Failover": "true"}), by="first")
            assert stand.counts() == [1, 0, 0]

    await in_every_way(WAYS, play)
