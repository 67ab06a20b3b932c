"""Time: a silent target is given up, a retry is not hurried, and one deadline holds for all targets."""

from __future__ import annotations

from functools import partial
from typing import Final

from tests.ways import JSON_WAYS, WAYS, Way

from .cases import SMALL, failed, whole
from .stand import in_every_way, standing, together

KEYS: Final = {**SMALL.keys, "max_retries": 2}


async def test_a_silent_target_is_given_up_and_not_asked_twice() -> None:
    """Signs of life are no tokens: at the limit of the first token the next target is asked, and the first closed."""
    faults = ("silent", "pings", "roles", "slow:30", "slow-first:30", "endless-hints", "stall:0")

    async def play(fault: str, way: Way) -> None:
        async with standing(way, keys={**KEYS, "circuit_breaker_threshold": 1}) as stand:
            stand.second.force("ok")
            async with stand.serving({"first_token_timeout": 0.5}, {}):
                seen = await stand.ask(f"fault:{fault}")
                whole(seen, by="second")
                assert [(row["provider"], row["to"]) for row in stand.gateway.lines("circuit")] == [("first", "open")]
                assert seen.early or seen.header("X-Failed-Providers") == "first"
                await stand.left(stand.first)
            assert seen.seconds >= 0.5
            assert stand.counts() == [1, 1, 0]

    await together({f"{fault} {way}": partial(play, fault, way) for fault in faults for way in WAYS})


async def test_silence_everywhere_ends_in_a_timeout() -> None:
    """Each is asked once and left; the error is a timeout, in bounded time."""
    faults = ("silent", "pings", "roles", "endless-hints", "drip-headers")
    keys = {"first_token_timeout": 0.5, "request_timeout": 1.0}

    async def play(fault: str, way: Way) -> None:
        async with standing(way, keys={**KEYS, **keys}) as stand, stand.serving({}, {}):
            seen = await stand.ask(f"fault:{fault}")
            failed(seen, "timeout", 504)
            await stand.left(stand.first)
            await stand.left(stand.second)
            assert stand.counts() == [1, 1, 0]

    await together({f"{fault} {way}": partial(play, fault, way) for fault in faults for way in WAYS})


async def test_company_for_a_late_answer_that_fails_does_not_take_it_down() -> None:
    """An answer that is not streamed goes on while the next target is asked: whoever has it first, serves it."""

    async def play(way: Way) -> None:
        async with standing(way, keys={**KEYS, "first_token_timeout": 0.1, "max_retries": 0}) as stand:
            stand.second.force("status:500")
            async with stand.serving({}, {}):
                seen = await stand.ask("fault:slow:0.4")
            whole(seen, by="first")
            assert stand.counts() == [1, 1, 0]
            assert (seen.header("X-Attempts"), seen.header("X-Failed-Providers")) == ("2", "second")

    await in_every_way(JSON_WAYS, play)


async def test_one_silent_target_after_the_other_gets_company() -> None:
    """Two are silent, each for its own limit; the third answers, and both are left and named."""

    async def play(way: Way) -> None:
        silent = {"first_token_timeout": 0.3}
        async with standing(way, keys=KEYS) as stand:
            stand.first.force("silent")
            stand.second.force("stall:0")
            async with stand.serving(silent, silent, {}):
                seen = await stand.ask()
                whole(seen, by="third")
                await stand.left(stand.first)
                await stand.left(stand.second)
            assert stand.counts() == [1, 1, 1]
            failed_ones = (seen.header("X-Failed-Providers") or "").split(",")
            assert seen.early or sorted(failed_ones) == ["first", "second"]
            assert seen.seconds >= 0.6

    await in_every_way(WAYS, play)


async def test_no_retry_comes_sooner_than_it_was_asked_to() -> None:
    """Seconds, milliseconds (which win) and a date are all obeyed, whatever the backoff would be."""

    async def play(form: str, seconds: float, way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            async with stand.serving({}):
                whole(await stand.ask(f"fault:turns:later:{form}:{seconds}/ok"), by="first")
            refused, again = stand.first.requests
            assert again.arrived_at - refused.arrived_at >= seconds - 0.01

    forms = (("s", 0.2), ("ms", 0.2), ("date", 0.1))
    await together({f"{form} {way}": partial(play, form, seconds, way) for form, seconds in forms for way in WAYS})


async def test_the_deadline_is_one_for_all_targets() -> None:
    """Neither a retry nor another target gives a request more time than its limit, by the gateway's own clock."""
    limit = {"request_timeout": 0.5, "streaming_timeout": 0.5}

    async def play(way: Way) -> None:
        async with standing(way, keys={**KEYS, **limit}) as stand:
            stand.first.force("turns:status:503/slow:30")
            stand.second.force("slow:30")
            async with stand.serving({}, {}):
                seen = await stand.ask()
                line = await stand.line()
                await stand.left(stand.first)
            assert seen.verdict.code in ("timeout", "upstream_error")
            assert 490 <= line["total_ms"] < 10_000

    await in_every_way(WAYS, play)
