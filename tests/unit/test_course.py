"""The course of a request: who is asked how often and when, what is told of it, and which failure the caller sees."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import (
    BadRequest,
    BrokenAnswer,
    ConnectionFailed,
    ConnectionReset,
    ContentFilter,
    ContextLengthExceeded,
    EchoBrainError,
    InternalError,
    NotReady,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    UpstreamAuthError,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
)
from shared.models import Answer, Exchange, Target
from shared.resilience.breaker import Outcome
from shared.resilience.retry import RetryBudget
from shared.resilience.shedding import Load
from shared.settings import BreakerPolicy, Limits, RetryPolicy
from shared.upstream import upstream
from tests.unit.course_cases import BUSY, CASES, REFUSED, Case
from tests.unit.scripted import (
    DEFAULTS,
    NEVER,
    Scripted,
    ask,
    course,
    drop,
    error,
    good,
    idle,
    logged,
    no_budget,
    now_s,
    order_of,
    up,
    virtually,
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@virtually
async def test_each_failure_becomes_what_the_design_says(case: Case) -> None:
    """Who is asked how often and when, the log, X-Failed-Providers, X-Attempts, and what the caller gets."""
    ups = [up(Scripted(name, list(turns)), **case.settings) for name, turns in case.turns.items()]
    of = course(*ups, budget=no_budget() if case.poor else None)
    began_s = now_s()
    with logged("failover") as lines:
        (outcome,) = await asyncio.gather(of.run(ask, drop), return_exceptions=True)
    took_s = now_s() - began_s
    await asyncio.sleep(0)
    if isinstance(outcome, Answer):
        assert outcome.body.decode() == case.result
        assert of.exchange.provider == case.result
    else:
        assert type(outcome) is case.result
    assert order_of(*ups) == case.asked
    assert took_s == pytest.approx(case.after_s)
    assert [f"{line['provider']} {line['decision']} {line['reason']}" for line in lines] == list(case.steps)
    assert (of.exchange.failed_providers, of.exchange.attempts) == (list(case.failed), len(case.asked))
    assert idle(*ups)


@virtually
async def test_a_decision_is_a_line_with_all_its_fields() -> None:
    """Provider, the model asked for, the error's code, the decision, its reason, the wait in milliseconds."""
    busy = Scripted("a", [error(RateLimited, retry_after_s=2.5), error(QuotaExceeded)], model="llama")
    with logged("failover") as lines:
        await course(up(busy), up(Scripted("b", [good("b")]))).run(ask, drop)
    assert lines == [
        {
            "provider": "a",
            "model": "llama",
            "error": "rate_limit",
            "decision": "retry",
            "reason": "retry_after",
            "wait_ms": 2500.0,
        },
        {
            "provider": "a",
            "model": "llama",
            "error": "quota_exceeded",
            "decision": "failover",
            "reason": "retries_used",
            "wait_ms": 0.0,
        },
    ]


@virtually
async def test_the_backoff_is_drawn_from_the_policys_range() -> None:
    """The course waits as long as the log says, each time at least the minimum, under a ceiling that doubles."""
    busy = Scripted("a", [BUSY] * 4)
    with logged("failover") as lines, pytest.raises(UpstreamBusy):
        await course(up(busy, retries=RetryPolicy(3, 1.0, 60.0))).run(ask, drop)
    waits_s = [later - sooner for sooner, later in zip(busy.asked_at_s, busy.asked_at_s[1:], strict=False)]
    assert [round(wait_s * 1000, 1) for wait_s in waits_s] == [line["wait_ms"] for line in lines[:3]]
    assert all(1.0 <= wait_s <= 2.0 ** (number + 1) for number, wait_s in enumerate(waits_s))
    assert len(set(waits_s)) == 3


@virtually
async def test_a_provider_that_came_back_is_not_named_as_failed() -> None:
    """X-Failed-Providers has those that were given up on."""
    of = course(up(Scripted("a", [BUSY, BUSY, good("a")])))
    await of.run(ask, drop)
    assert (of.exchange.failed_providers, of.exchange.attempts) == ([], 3)


@virtually
async def test_two_targets_of_one_provider_are_named_once() -> None:
    """The header has names of providers, not of targets."""
    script = Scripted("a", [REFUSED, REFUSED])
    of = course(up(script), up(script), up(Scripted("b", [good("b")])))
    await of.run(ask, drop)
    assert of.exchange.failed_providers == ["a"]


@virtually
async def test_a_bug_is_raised_as_it_is() -> None:
    """Nothing is retried, no provider named, no circuit moved; the count is given back."""
    broken = up(Scripted("a", [[ZeroDivisionError()]]), breaker=BreakerPolicy(1, 30.0))
    of = course(broken, up(Scripted("b")))
    with pytest.raises(ZeroDivisionError):
        await of.run(ask, drop)
    assert (of.exchange.failed_providers, broken.breaker.state, idle(broken)) == ([], "closed", True)


@pytest.mark.parametrize("leaves_s", [0.0, 0.5, 1.5, 2.5])
@virtually
async def test_a_caller_that_leaves_is_nobodys_failure(leaves_s: float) -> None:
    """While it is asked, while it waits, while it is asked again: nothing more is asked, nothing is left."""
    script = Scripted("a", [[1.0, UpstreamBusy()], [NEVER]])
    one, other = up(script, breaker=BreakerPolicy(2, 30.0)), up(Scripted("b"))
    of = course(one, other)
    task = asyncio.create_task(of.run(ask, drop))
    await asyncio.sleep(leaves_s)
    task.cancel()
    await asyncio.wait({task})
    asked = len(script.asked_at_s)
    await asyncio.sleep(100.0)
    assert task.cancelled()
    assert (len(script.asked_at_s), order_of(other), of.exchange.failed_providers) == (asked, "", [])
    assert (one.breaker.state, idle(one, other)) == ("closed", True)


@virtually
async def test_what_is_out_is_skipped() -> None:
    """Full or with an open circuit when its turn comes: it is passed over, without a question, and not named."""
    full, dead = Load(1), up(Scripted("b"), breaker=BreakerPolicy(1, 300.0))
    of = course(
        up(Scripted("a", [[1.0, QuotaExceeded()]])), dead, up(Scripted("c"), load=full), up(Scripted("d", [good("d")]))
    )
    task = asyncio.create_task(of.run(ask, drop))
    await asyncio.sleep(0.5)
    full.enter()
    dead.breaker.settle(dead.breaker.enter(), Outcome.FAILURE, now_s())
    assert (await task).body == b"d"
    assert of.exchange.failed_providers == ["a"]


@virtually
async def test_where_all_are_out_meanwhile_the_caller_may_come_again() -> None:
    """Between admission and the question the last place was taken."""
    full = Load(1)
    of = course(up(Scripted("a"), load=full))
    full.enter()
    with pytest.raises(Overloaded):
        await of.run(ask, drop)
    assert (of.exchange.attempts, full.under_way) == (0, 1)


@virtually
async def test_a_failure_that_opens_the_circuit_is_not_waited_for() -> None:
    """There is no retry behind an open circuit: the next target is asked at once, and no budget is spent."""
    budget = RetryBudget()
    dying = up(Scripted("a", [BUSY]), breaker=BreakerPolicy(1, 30.0))
    began_s = now_s()
    with logged("failover") as lines:
        await course(dying, up(Scripted("b", [good("b")])), budget=budget).run(ask, drop)
    assert (now_s() - began_s, [line["reason"] for line in lines]) == (0.0, ["unavailable"])
    assert sum(1 for _ in iter(budget.spend, False)) == 3


@virtually
async def test_a_circuit_that_opens_while_it_is_waited_leads_on() -> None:
    """Another request's failure opened it: the provider is given up on, as the log and the header say."""
    dying = up(Scripted("a", [BUSY]), breaker=BreakerPolicy(2, 30.0))
    of = course(dying, up(Scripted("b", [good("b")])))
    task = asyncio.create_task(of.run(ask, drop))
    await asyncio.sleep(0.5)
    dying.breaker.settle(dying.breaker.enter(), Outcome.FAILURE, now_s())
    with logged("failover") as lines:
        assert (await task).body == b"b"
    assert (of.exchange.failed_providers, order_of(dying)) == (["a"], "a")
    assert [(line["decision"], line["reason"]) for line in lines] == [("failover", "unavailable")]


@pytest.mark.parametrize(
    ("kind", "opens"),
    [
        (UpstreamBusy, True),
        (UpstreamError, True),
        (BrokenAnswer, True),
        (ConnectionFailed, True),
        (ConnectionReset, True),
        (RateLimited, False),
        (QuotaExceeded, False),
        (UpstreamAuthError, False),
        (ContextLengthExceeded, False),
        (BadRequest, False),
        (ContentFilter, False),
        (NotReady, False),
        (InternalError, False),
    ],
)
@virtually
async def test_only_what_speaks_against_its_health_opens_a_circuit(kind: type[EchoBrainError], opens: bool) -> None:
    """The last column of the table of errors."""
    of = up(Scripted("a", [error(kind)]), breaker=BreakerPolicy(1, 30.0), retries=RetryPolicy(0))
    with pytest.raises(kind):
        await course(of).run(ask, drop)
    assert of.breaker.state == ("open" if opens else "closed")


@virtually
async def test_a_timeout_opens_a_circuit() -> None:
    """A target that never answers is as dead as one that refuses."""
    of = up(Scripted("a", [[NEVER]]), breaker=BreakerPolicy(1, 30.0))
    with pytest.raises(UpstreamTimeout):
        await course(of).run(ask, drop)
    assert of.breaker.state == "open"


@virtually
async def test_each_target_has_its_own_limit_within_the_requests() -> None:
    """The request has the longest limit of its targets; a target's own is over sooner, and the next has the rest."""
    short, long = Limits(request_s=5.0), Limits(request_s=12.0)
    ups = [up(Scripted("a", [[NEVER]]), limits=short), up(Scripted("b", [[NEVER]]), limits=long)]
    of, began_s = course(*ups), now_s()
    with pytest.raises(UpstreamTimeout) as caught:
        await of.run(ask, drop)
    assert (now_s() - began_s, of.exchange.failed_providers, order_of(*ups)) == (12.0, ["a", "b"], "ab")
    assert "12 s" in caught.value.message


@pytest.mark.parametrize(("stream", "limit_s"), [(True, 40.0), (False, 20.0)])
@virtually
async def test_streams_and_answers_have_limits_of_their_own(stream: bool, limit_s: float) -> None:
    """Each attempt knows the one that counts for it."""
    limits = Limits(request_s=20.0, streaming_s=40.0, first_token_s=100.0)
    of, began_s = course(up(Scripted("a", [[NEVER]]), limits=limits), stream=stream), now_s()
    with pytest.raises(UpstreamTimeout):
        await of.run(ask, drop)
    assert now_s() - began_s == limit_s


@virtually
async def test_a_target_of_another_model_is_named_by_its_model() -> None:
    """The exchange has the model that was asked for, until the answer tells its own."""
    settings = DEFAULTS
    provider = Scripted("a", [good("a")], model="own")
    target = upstream(Target("a", "llama"), provider, settings, Load(None))
    row: Exchange = (of := course(target)).exchange
    await of.run(ask, drop)
    assert (row.provider, row.model, provider.asked[0].model) == ("a", "llama", None)


@pytest.mark.parametrize(("used_s", "state"), [(0.5, "open"), (4.0, "closed")])
@virtually
async def test_a_target_is_not_blamed_for_time_that_it_was_not_given(used_s: float, state: str) -> None:
    """Where another had used the request's time up, the last one's silence in the little rest says nothing of it."""
    limits, breaker = Limits(request_s=10.0), BreakerPolicy(threshold=1)
    hasty = up(Scripted("a", [[used_s, BrokenAnswer()]]), limits=limits)
    of = course(hasty, last := up(Scripted("b", [[NEVER]]), limits=limits, breaker=breaker))
    with pytest.raises(UpstreamTimeout):
        await of.run(ask, drop)
    assert last.breaker.state == state
