"""Several targets at the same time: who joins a silent one, who wins, what is held against whom, and no time lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.course import Course
from shared.errors import (
    BadRequest,
    BrokenAnswer,
    ConnectionFailed,
    ContentFilter,
    EchoBrainError,
    QuotaExceeded,
    RateLimited,
    UpstreamBusy,
    UpstreamError,
)
from shared.models import Answer
from shared.resilience.retry import RetryBudget
from shared.resilience.shedding import Load
from shared.settings import BreakerPolicy, Limits, RetryPolicy
from shared.upstream import Upstream
from tests.simulation.virtual_time import VirtualLoop, run
from tests.unit.fakes import seeded
from tests.unit.scripted import (
    NEVER,
    Scripted,
    Turn,
    answer,
    ask,
    course,
    drop,
    idle,
    logged,
    no_budget,
    now_s,
    order_of,
    up,
    virtually,
)

EARLY = Limits(request_s=60.0, first_token_s=5.0)


def silent(name: str, *turns: Turn, **more: Any) -> Upstream:
    """A target that is late after five seconds, and whose circuit opens with its first failure."""
    return up(Scripted(name, list(turns)), **{"limits": EARLY, "breaker": BreakerPolicy(1, 30.0), **more})


@virtually
async def test_a_late_answer_may_still_win() -> None:
    """The first target is joined by the next, and answers before it: a slow target has not failed."""
    slow, quick = silent("a", [7.0, answer("a")]), silent("b", [NEVER])
    of, began_s = course(slow, quick), now_s()
    with logged("failover") as lines:
        assert (await of.run(ask, drop)).body == b"a"
    await asyncio.sleep(0)
    assert (now_s() - began_s, order_of(slow, quick)) == (7.0, "ab")
    assert lines == [
        {"provider": "a", "model": None, "error": "timeout", "decision": "hedge", "reason": "late", "wait_ms": 0.0}
    ]
    row = of.exchange
    assert (row.provider, row.failed_providers, row.attempts) == ("a", [], 2)
    assert (slow.breaker.state, quick.breaker.state, idle(slow, quick)) == ("closed", "closed", True)


@virtually
async def test_a_late_loser_has_failed() -> None:
    """Another target had to answer: the silent one is left, named, and its circuit knows."""
    slow, quick = silent("a", [NEVER]), silent("b", [1.0, answer("b")])
    of, began_s = course(slow, quick), now_s()
    assert (await of.run(ask, drop)).body == b"b"
    assert now_s() - began_s == 6.0
    await asyncio.sleep(0)
    row = of.exchange
    assert (row.provider, row.attempts, slow.breaker.state, idle(slow, quick)) == ("b", 2, "open", True)


@virtually
async def test_the_failed_providers_are_known_when_the_answer_goes_out() -> None:
    """The header is written at once: the silent one is in it."""
    of = course(silent("a", [NEVER]), silent("b", [1.0, answer("b")]))
    await of.run(ask, drop)
    assert of.exchange.failed_providers == ["a"]


@virtually
async def test_a_late_target_is_not_charged_when_the_caller_leaves() -> None:
    """Nobody knows what would have come of it."""
    slow, next_ = silent("a", [NEVER]), silent("b", [NEVER])
    of = course(slow, next_)
    task = asyncio.create_task(of.run(ask, drop))
    await asyncio.sleep(6.0)
    task.cancel()
    await asyncio.wait({task})
    await asyncio.sleep(0)
    assert (of.exchange.failed_providers, slow.breaker.state, idle(slow, next_)) == ([], "closed", True)


@virtually
async def test_every_silent_target_is_joined_by_the_next() -> None:
    """One after the other, each after its own limit, and no budget is spent: failing over is free."""
    ups = [
        silent("a", [NEVER], limits=Limits(first_token_s=5.0)),
        silent("b", [NEVER], limits=Limits(first_token_s=3.0)),
        silent("c", [1.0, answer("c")], limits=Limits(first_token_s=30.0)),
    ]
    of, began_s = course(*ups, budget=no_budget()), now_s()
    assert (await of.run(ask, drop)).body == b"c"
    assert now_s() - began_s == 9.0
    assert of.exchange.failed_providers == ["a", "b"]


@virtually
async def test_while_one_is_late_another_ones_failure_is_not_the_end() -> None:
    """The late one still has its time."""
    slow, broken = silent("a", [20.0, answer("a")]), silent("b", [1.0, UpstreamError()])
    of = course(slow, broken)
    assert (await of.run(ask, drop)).body == b"a"
    assert (of.exchange.provider, of.exchange.failed_providers) == ("a", ["b"])


@virtually
async def test_a_refusal_of_the_request_leaves_the_late_one_its_time() -> None:
    """Another target may not know the model that the late one is answering with; nobody else is asked."""
    slow, strict, third = silent("a", [20.0, answer("a")]), silent("b", [1.0, BadRequest()]), silent("c")
    of = course(slow, strict, third)
    assert (await of.run(ask, drop)).body == b"a"
    assert (order_of(third), slow.breaker.state, idle(slow, strict)) == ("", "closed", True)


@virtually
async def test_a_refusal_of_the_request_is_told_where_nobody_answers() -> None:
    """It tells the caller more than the late one's time-out."""
    of = course(silent("a", [NEVER]), silent("b", [1.0, BadRequest()]))
    with pytest.raises(BadRequest):
        await of.run(ask, drop)


@virtually
async def test_refused_content_is_refused_at_once() -> None:
    """It is not taken to another, not even to one that has been asked already; the late one is not charged."""
    slow, strict = silent("a", [NEVER]), silent("b", [1.0, ContentFilter()])
    of = course(slow, strict)
    with pytest.raises(ContentFilter):
        await of.run(ask, drop)
    await asyncio.sleep(0)
    assert (of.exchange.failed_providers, slow.breaker.state, idle(slow, strict)) == ([], "closed", True)


@virtually
async def test_an_answer_that_is_streamed_is_not_joined() -> None:
    """Its silence is judged by its own watch: without a hedge only one is asked at a time."""
    slow, next_ = silent("a", [20.0, answer("a")]), silent("b")
    assert (await course(slow, next_, stream=True).run(ask, drop)).body == b"a"
    assert order_of(next_) == ""


@pytest.mark.parametrize("stream", [True, False])
@virtually
async def test_a_hedge_is_started_beside_a_silent_target(stream: bool) -> None:
    """After its time; it costs a retry; the loser is left at once, and nothing is held against it."""
    slow, quick, budget = silent("a", [NEVER]), silent("b", [1.0, answer("b")]), RetryBudget()
    of, began_s = course(slow, quick, stream=stream, hedge_after_s=2.0, budget=budget), now_s()
    with logged("failover") as lines:
        assert (await of.run(ask, drop)).body == b"b"
    await asyncio.sleep(0)
    assert now_s() - began_s == 3.0
    assert lines == [
        {"provider": "a", "model": None, "error": None, "decision": "hedge", "reason": "silent", "wait_ms": 0.0}
    ]
    row = of.exchange
    assert (row.provider, row.attempts, row.failed_providers) == ("b", 2, [])
    assert (slow.breaker.state, idle(slow, quick)) == ("closed", True)
    assert sum(1 for _ in iter(budget.spend, False)) == 2


@virtually
async def test_the_first_target_may_win_against_its_hedge() -> None:
    """Then the hedge is left."""
    slow, hedge = silent("a", [3.0, answer("a")]), silent("b", [NEVER])
    of = course(slow, hedge, hedge_after_s=2.0)
    assert (await of.run(ask, drop)).body == b"a"
    await asyncio.sleep(0)
    assert (of.exchange.provider, of.exchange.failed_providers, idle(slow, hedge)) == ("a", [], True)


@virtually
async def test_without_budget_there_is_no_hedge() -> None:
    """The log says why, once; the first target goes on."""
    slow, hedge = silent("a", [4.0, answer("a")]), silent("b")
    of = course(slow, hedge, stream=True, hedge_after_s=2.0, budget=no_budget())
    with logged("failover") as lines:
        assert (await of.run(ask, drop)).body == b"a"
    assert order_of(hedge) == ""
    assert [(line["decision"], line["reason"]) for line in lines] == [("wait", "budget")]


@virtually
async def test_without_budget_a_late_target_is_joined_all_the_same() -> None:
    """That is failing over, at its own limit from when it was asked."""
    slow, next_ = silent("a", [NEVER]), silent("b", [1.0, answer("b")])
    of, began_s = course(slow, next_, hedge_after_s=2.0, budget=no_budget()), now_s()
    with logged("failover") as lines:
        assert (await of.run(ask, drop)).body == b"b"
    assert now_s() - began_s == 6.0
    assert [(line["decision"], line["reason"]) for line in lines] == [("wait", "budget"), ("hedge", "late")]


@virtually
async def test_a_quick_answer_needs_no_hedge() -> None:
    """Nothing is spent."""
    budget = RetryBudget()
    hedge = silent("b")
    await course(silent("a", [1.9, answer("a")]), hedge, hedge_after_s=2.0, budget=budget).run(ask, drop)
    assert (order_of(hedge), sum(1 for _ in iter(budget.spend, False))) == ("", 3)


@virtually
async def test_one_request_has_one_hedge() -> None:
    """Two silent targets are not joined by a third at once."""
    ups = [silent(name, [NEVER]) for name in "abc"]
    of = course(*ups, stream=True, hedge_after_s=2.0)
    task = asyncio.create_task(of.run(ask, drop))
    await asyncio.sleep(30.0)
    assert order_of(*ups) == "ab"
    task.cancel()
    await asyncio.wait({task})


@virtually
async def test_a_hedge_whose_target_is_gone_leaves_the_first_in_peace() -> None:
    """Two requests hedge at the same moment, and there is one place: the other goes on with what it has."""
    place = Load(1)
    slow = [silent("a", [10.0, answer("a")]) for _ in range(2)]
    hedge = silent("b", [1.0, answer("b")], load=place)
    runs = [course(one, hedge, hedge_after_s=2.0).run(ask, drop) for one in slow]
    assert sorted([got.body for got in await asyncio.gather(*runs)]) == [b"a", b"b"]


@virtually
async def test_a_failure_before_the_hedge_goes_on_at_once() -> None:
    """The next target is asked because the first has failed; it is hedged by a third, if it is silent."""
    ups = [silent("a", [1.0, ConnectionFailed()]), silent("b", [NEVER]), silent("c", [1.0, answer("c")])]
    of, began_s = course(*ups, stream=True, hedge_after_s=2.0), now_s()
    assert (await of.run(ask, drop)).body == b"c"
    assert (now_s() - began_s, of.exchange.failed_providers) == (4.0, ["a"])


@virtually
async def test_the_one_whose_answer_is_passed_on_is_named() -> None:
    """Two answers at the same moment: provider, model and request id are those of the one that the caller gets."""
    for _ in range(4):
        ups = [silent("a", [3.0, answer("a")]), silent("b", [1.0, answer("b")])]
        of = course(*ups, hedge_after_s=2.0)
        got = await of.run(ask, drop)
        assert of.exchange.provider == got.body.decode()


SOME = st.one_of(
    st.sampled_from([UpstreamError, UpstreamBusy, RateLimited, ConnectionFailed, BrokenAnswer, QuotaExceeded]),
    st.just(None),
)
TURNS = st.tuples(st.sampled_from([0.0, 0.3, 2.0, 9.0, NEVER]), SOME, st.sampled_from([None, 0.5, 4.0, 30.0]))


def turn_of(name: str, drawn: tuple[float, type[EchoBrainError] | None, float | None]) -> Turn:
    """A wait, then a failure or an answer."""
    wait_s, kind, retry_after_s = drawn
    if kind is None:
        return [wait_s, answer(name)]
    return [wait_s, kind(retry_after_s=retry_after_s) if kind in (RateLimited, UpstreamBusy) else kind()]


@settings(max_examples=300)
@given(st.lists(TURNS, min_size=20, max_size=20), st.booleans(), st.sampled_from([NEVER, 1.0]), st.integers(0, 99))
def test_the_deadline_holds_whatever_the_order_of_faults(
    drawn: list[tuple[float, type[EchoBrainError] | None, float | None]], stream: bool, hedge_after_s: float, seed: int
) -> None:
    """An answer or a failure is there within the limit and 100 ms; afterwards no count and no question is left."""

    async def request() -> None:
        limits = Limits(request_s=10.0, streaming_s=10.0, first_token_s=4.0)
        cut = len(drawn) // 2
        turns = {"a": drawn[:cut], "b": drawn[cut:]}
        ups = [
            up(Scripted(name, [turn_of(name, turn) for turn in rows]), limits=limits, retries=RetryPolicy(4, 0.2, 3.0))
            for name, rows in turns.items()
        ]
        seeded(seed).shuffle(ups)
        of: Course = course(*ups, stream=stream, hedge_after_s=hedge_after_s)
        began_s = now_s()
        (outcome,) = await asyncio.gather(of.run(ask, drop), return_exceptions=True)
        assert now_s() - began_s <= 10.1
        assert isinstance(outcome, (Answer, EchoBrainError))
        assert of.exchange.attempts <= 10
        await asyncio.sleep(0)
        assert idle(*ups)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    loop = VirtualLoop()
    run(request(), loop)
    assert loop.complaints == []
