"""What is done after a failure: the same target again, another one, or nothing; decided by the error's class alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

from shared.errors import EchoBrainError, Retry
from shared.settings import RetryPolicy

BUDGET_START: Final = 3.0
BUDGET_PER_REQUEST: Final = 0.1
BUDGET_LIMIT: Final = 100.0  # what calm hours save up is not spent in one outage


class RetryBudget:
    """The retries of one process: at most 3, and 10 % of its requests, so that an outage is not multiplied.

    Hedges spend from it, too; failing over to another target is free. The idea is Finagle's.
    """

    def __init__(self) -> None:
        self._tokens = BUDGET_START

    def earn(self) -> None:
        """A request has come in."""
        self._tokens = min(self._tokens + BUDGET_PER_REQUEST, BUDGET_LIMIT)

    def spend(self) -> bool:
        """Takes one retry; False when there is none left."""
        if self._tokens < 1.0 - 1e-9:  # ten times 0.1 is one
            return False
        self._tokens -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class Step:
    """Where to go after a failure, after which wait (s), and why there."""

    where: Literal["retry", "failover", "continue", "hedge", "wait", "give_up"]
    reason: str
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a request stands when a target has failed it."""

    retries: int  # of this target, so far
    open_here: bool  # this target could be asked again now: there is room, and its circuit lets a call in
    others: bool  # another target could be asked now
    remaining_s: float  # until the request's deadline


def next_step(
    error: EchoBrainError, at: Situation, policy: RetryPolicy, budget: RetryBudget, rng: random.Random
) -> Step:
    """The step after `error`. A wait that would pass the deadline is not slept."""
    if error.retry is Retry.NOWHERE:
        return Step("give_up", "not_retryable")
    if at.remaining_s <= 0:
        return Step("give_up", "deadline")
    elsewhere: Literal["failover", "give_up"] = "failover" if at.others else "give_up"
    if not at.open_here:
        return Step(elsewhere, "unavailable")
    if at.retries >= _allowed(error.retry, at.others, policy.max_retries):
        return Step(elsewhere, "retries_used" if at.retries else "not_here")
    wait_s = max(backoff_s(at.retries, policy, rng), error.upstream_wait_s or 0.0)
    if wait_s >= at.remaining_s:
        return Step(elsewhere, "deadline")
    if not budget.spend():
        return Step(elsewhere, "budget")
    return Step("retry", "retry_after" if error.upstream_wait_s else "backoff", wait_s)


def backoff_s(retries: int, policy: RetryPolicy, rng: random.Random) -> float:
    """Exponential with full jitter between the policy's bounds, in seconds (AWS, "Exponential Backoff And Jitter")."""
    ceiling_s = min(policy.backoff_max_s, policy.backoff_min_s * 2.0 ** (retries + 1))
    return rng.uniform(policy.backoff_min_s, ceiling_s)


def _allowed(retry: Retry, others: bool, max_retries: int) -> int:
    """How often the target that failed may be asked again."""
    if retry is Retry.LATER:
        return max_retries
    if retry is Retry.ONCE_MORE or (retry is Retry.ELSEWHERE_FIRST and not others):
        return min(1, max_retries)
    return 0
