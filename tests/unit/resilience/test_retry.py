"""What is done after a failure: a table over all errors, the bounds of the backoff, the budget of a process."""

from __future__ import annotations

from typing import Final, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import errors
from shared.errors import EchoBrainError, RateLimited, UpstreamBusy, UpstreamError
from shared.resilience.retry import BUDGET_LIMIT, RetryBudget, Situation, Step, backoff_s, next_step
from shared.settings import RetryPolicy
from tests.unit.fakes import seeded
from tests.unit.test_errors import example, family

POLICY: Final = RetryPolicy(max_retries=3, backoff_min_s=1.0, backoff_max_s=60.0)

# How often the target that failed is asked again where another is there to be asked, and where it is alone; and what
# then. These are sections 4 and 6 of the design, error by error.
NOTHING: Final = (0, 0, "give_up")
OTHERS_ONLY: Final = (0, 0, "on")
ONCE_WHERE_ALONE: Final = (0, 1, "on")
ONCE: Final = (1, 1, "on")
AS_ALLOWED: Final = (3, 3, "on")
TABLE: Final[dict[str, tuple[int, int, str]]] = {
    "BadRequest": NOTHING,  # the same everywhere
    "PrefillRefused": OTHERS_ONLY,  # another may go on with the text
    "ContextLengthExceeded": OTHERS_ONLY,  # another model may have a longer one
    "ContentFilter": NOTHING,  # never, nor routed around
    "UpstreamAuthError": OTHERS_ONLY,  # the key has been refreshed and tried already
    "QuotaExceeded": OTHERS_ONLY,
    "RateLimited": AS_ALLOWED,
    "UpstreamBusy": AS_ALLOWED,
    "UpstreamError": ONCE,
    "ConnectionReset": ONCE,
    "ConnectionFailed": ONCE_WHERE_ALONE,
    "BrokenAnswer": ONCE_WHERE_ALONE,
    "UpstreamTimeout": OTHERS_ONLY,  # a silent target is not tried twice
    "NotReady": OTHERS_ONLY,  # this provider's key could not be read
    "InternalError": NOTHING,  # a bug of ours
    "NotFound": NOTHING,  # from here on: failures that no provider has
    "ModelNotFound": NOTHING,
    "MethodNotAllowed": NOTHING,
    "PayloadTooLarge": NOTHING,
    "UnsupportedMediaType": NOTHING,
    "ClientClosedRequest": NOTHING,
}


def rich() -> RetryBudget:
    """A budget with three retries."""
    return RetryBudget()


def poor() -> RetryBudget:
    """A budget that is used up."""
    budget = RetryBudget()
    while budget.spend():
        pass
    return budget


def left_in(budget: RetryBudget) -> int:
    """How many retries can still be spent."""
    return sum(1 for _ in iter(budget.spend, False))


def step(
    error: EchoBrainError,
    *,
    retries: int = 0,
    open_here: bool = True,
    others: bool = True,
    remaining_s: float = 1000.0,
    budget: RetryBudget | None = None,
    policy: RetryPolicy = POLICY,
) -> Step:
    """The step after `error`; where nothing else is said, everything speaks for a retry."""
    at = Situation(retries=retries, open_here=open_here, others=others, remaining_s=remaining_s)
    return next_step(error, at, policy, budget or rich(), seeded(0))


def elsewhere(others: bool) -> Literal["failover", "give_up"]:
    """Where to go when the target itself is not asked again."""
    return "failover" if others else "give_up"


def kind_of(name: str) -> EchoBrainError:
    """An error of that class."""
    kind: type[EchoBrainError] = getattr(errors, name)
    return example(kind)


def test_the_table_has_every_error() -> None:
    """A new error needs a decision; `Overloaded` alone is our own answer, not a provider's."""
    assert {kind.__name__ for kind in family()} - {"Overloaded"} == set(TABLE)


@pytest.mark.parametrize("others", [True, False], ids=["others", "alone"])
@pytest.mark.parametrize("retries", range(5))
@pytest.mark.parametrize("name", TABLE)
def test_each_error_goes_where_the_table_says(name: str, retries: int, others: bool) -> None:
    """The same target as often as allowed, then another, and where there is none the failure."""
    with_others, alone, then = TABLE[name]
    if retries < (with_others if others else alone):
        expected = "retry"
    else:
        expected = "failover" if then == "on" and others else "give_up"
    assert step(kind_of(name), retries=retries, others=others).where == expected


@pytest.mark.parametrize("others", [True, False], ids=["others", "alone"])
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[1]])
def test_what_forbids_a_retry_leads_on(name: str, others: bool) -> None:
    """No budget, no room or circuit, no retries configured: another target where there is one, at once."""
    on = elsewhere(others)
    none = RetryPolicy(max_retries=0)
    assert step(kind_of(name), others=others, budget=poor()).where == on
    assert step(kind_of(name), others=others, open_here=False) == Step(on, "unavailable")
    assert step(kind_of(name), others=others, policy=none) == Step(on, "not_here")


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row != NOTHING])
@pytest.mark.parametrize("remaining_s", [0.0, -0.001])
def test_past_the_deadline_nothing_more_is_asked(name: str, remaining_s: float) -> None:
    """Not even another target."""
    assert step(kind_of(name), remaining_s=remaining_s) == Step("give_up", "deadline")


@pytest.mark.parametrize("others", [True, False], ids=["others", "alone"])
def test_a_wait_that_would_pass_the_deadline_is_not_slept(others: bool) -> None:
    """Neither the provider's nor our own; the next target has the time that is left."""
    on = elsewhere(others)
    asked = RateLimited(retry_after_s=20.0)
    assert step(asked, others=others, remaining_s=20.0) == Step(on, "deadline")
    assert step(asked, others=others, remaining_s=20.001).where == "retry"
    assert step(UpstreamBusy(), others=others, remaining_s=1.0) == Step(on, "deadline")


@pytest.mark.parametrize("kind", [RateLimited, UpstreamBusy, UpstreamError])
def test_what_the_provider_asks_for_is_waited_for(kind: type[EchoBrainError]) -> None:
    """Never sooner, nor sooner than the backoff where less is asked for; the reason tells which it was."""
    long, short, none = step(kind(retry_after_s=9.5)), step(kind(retry_after_s=0.01)), step(kind())
    assert (long.wait_s, long.reason) == (9.5, "retry_after")
    assert short.wait_s >= POLICY.backoff_min_s
    assert (none.reason, none.wait_s >= POLICY.backoff_min_s) == ("backoff", True)


def test_the_wait_shown_to_callers_is_not_the_providers() -> None:
    """A `RateLimited` without a Retry-After tells callers 1 s, but that is no wait a provider asked for."""
    quick = RetryPolicy(3, 0.1, 0.1)
    assert step(RateLimited(), policy=quick) == Step("retry", "backoff", 0.1)


def test_only_a_retry_costs() -> None:
    """Failing over and giving up are free; so is a retry that does not take place."""
    cases = [(e, o, r) for e in map(kind_of, TABLE) for o in (True, False) for r in (0.0, 0.5, 1000.0)]
    for error, others, remaining_s in cases:
        budget = rich()
        where = step(error, others=others, remaining_s=remaining_s, budget=budget).where
        assert left_in(budget) == (2 if where == "retry" else 3)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (step(errors.BadRequest()), "not_retryable"),
        (step(UpstreamBusy(), retries=3), "retries_used"),
        (step(errors.QuotaExceeded()), "not_here"),
        (step(UpstreamBusy(), budget=poor()), "budget"),
        (step(UpstreamBusy(), open_here=False), "unavailable"),
        (step(UpstreamBusy(), remaining_s=0.5), "deadline"),
        (step(UpstreamBusy()), "backoff"),
        (step(UpstreamBusy(retry_after_s=3)), "retry_after"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_every_decision_has_its_reason(case: Step, reason: str) -> None:
    """It is what the operator reads in the log."""
    assert case.reason == reason


BOUNDS = st.tuples(st.floats(0.001, 100.0), st.floats(0.0, 1000.0)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(BOUNDS, st.integers(0, 100), st.integers(0, 2**32))
def test_the_backoff_keeps_its_bounds(bounds: tuple[float, float], retries: int, seed: int) -> None:
    """Never below the minimum, never above the maximum, and under a ceiling that doubles with each retry."""
    low, high = bounds
    wait_s = backoff_s(retries, RetryPolicy(100, low, high), seeded(seed))
    assert low <= wait_s <= high
    assert wait_s <= low * 2 ** (retries + 1)


@pytest.mark.parametrize(("retries", "ceiling_s"), [(0, 2.0), (1, 4.0), (2, 8.0), (4, 32.0), (5, 60.0), (50, 60.0)])
def test_the_backoff_is_spread_over_its_whole_range(retries: int, ceiling_s: float) -> None:
    """Full jitter: callers that failed together do not come back together. Each tenth of the range gets its share.

    Of 10,000 draws a tenth gets 1,000 with a standard deviation of 30; 150 are five of them.
    """
    rng = seeded(7)
    tenths = [0] * 10
    for _ in range(10_000):
        share = (backoff_s(retries, POLICY, rng) - 1.0) / (ceiling_s - 1.0)
        tenths[min(9, int(share * 10))] += 1
    assert all(abs(count - 1000) <= 150 for count in tenths), tenths


@given(st.lists(st.booleans(), max_size=400))
def test_retries_stay_under_a_tenth_of_the_requests_and_three(requests: list[bool]) -> None:
    """Whatever the order of requests and retries; and where the rule allows one, it is granted."""
    budget, came, spent = RetryBudget(), 0, 0
    for request in requests:
        if request:
            budget.earn()
            came += 1
        else:
            granted = budget.spend()
            assert granted == (10 * (spent + 1) <= came + 30)
            spent += granted


def test_calm_hours_save_up_only_so_much() -> None:
    """A day without a failure does not pay for an outage that is multiplied."""
    budget = RetryBudget()
    for _ in range(100_000):
        budget.earn()
    assert left_in(budget) == BUDGET_LIMIT == 100


def test_ten_requests_pay_for_one_retry() -> None:
    """A tenth is not a number of the machine's, and ten of them are one all the same, a thousand times over."""
    budget = poor()
    for _ in range(1000):
        for _ in range(9):
            budget.earn()
        assert not budget.spend()
        budget.earn()
        assert budget.spend()
