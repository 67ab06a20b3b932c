"""Whether circuits opened when they had to, and only then; who may be asked while they are open is checked at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from tests.simulation.promises import EPSILON_S, ends_asking, is_sick, settings_of, tied, tied_answers
from tests.simulation.provider import Call
from tests.simulation.racing import raced, was_late
from tests.simulation.scripts import Bug
from tests.simulation.timing import at_limit, curtailed
from tests.simulation.world import Key, World


def circuit_problems(world: World) -> Iterable[str]:
    """All circuits of a world."""
    for target in sorted({call.target for call in world.calls}):
        calls = [call for call in world.calls if call.target == target]
        threshold = settings_of(world, target[0]).breaker.threshold
        for period in _periods(world, target):
            if period.state == "half_open":
                yield from _closed_late(world, period)
            elif period.state == "closed":
                yield from _opened_soon(world, calls, threshold, period)
                yield from _stayed_closed(world, calls, threshold, period)


@dataclass(frozen=True, slots=True)
class Period:
    """In which a circuit was in one state, and what it was then; the `probe` is that of the half open circuit, or the
    one that has closed it."""

    state: str
    from_s: float
    to_s: float
    then: str
    probe: Call | None

    @property
    def on_probation(self) -> bool:
        """Whether it was closed by the beginning of an answer, so that the next failure opens it."""
        return self.state == "closed" and self.probe is not None and bool(self.probe.request.stream)

    def has(self, call: Call, *, slack_s: float = 0.0) -> bool:
        """Whether what becomes of the call counts; of two that are at the same moment, that cannot be told."""
        return call is self.probe or call.started_s > self.from_s - slack_s


def _periods(world: World, target: Key) -> Iterable[Period]:
    history = [(-inf, "closed"), *world.moved.get(target, ()), (inf, "")]
    for number, ((from_s, state), (to_s, then)) in enumerate(pairwise(history)):
        probe = world.probing.get((target, number - (state == "closed")))
        yield Period(state, from_s, to_s, then, probe)


def _closed_late(world: World, period: Period) -> Iterable[str]:
    """The first content of the probe's stream closes the circuit."""
    call = period.probe
    if call is None or call.answered_s is None or not call.request.stream:
        return
    caller, beside = world.visitors[call.trace], raced(call, world.of(call.trace))
    left = caller.left_s is not None and caller.left_s <= call.answered_s
    if not left and (period.to_s > call.answered_s or (period.then != "closed" and not beside)):
        then = f"{period.then} at {period.to_s}"
        yield f"the circuit of {call.target} was {then}, and its probe had answered at {call.answered_s}"


def _opened_soon(world: World, calls: Sequence[Call], threshold: int, period: Period) -> Iterable[str]:
    """It opens after `threshold` failures in a row, or after one until the whole answer that ends a probation."""
    if period.then != "open":
        return
    successes_s = [success_s for success_s in _successes_s(world, calls, period) if success_s < period.to_s]
    least = 1 if period.on_probation and not successes_s else threshold
    since_s = max([period.from_s, *successes_s])
    if sum(_may_count(world, call, period, since_s) for call in calls) < least:
        yield f"the circuit of {calls[0].target} opened at {period.to_s} with less than {least} failures in a row"


def _successes_s(world: World, calls: Sequence[Call], period: Period) -> Iterable[float]:
    """When whole answers were taken that count."""
    for call in calls:
        taken = world.visitors[call.trace].outcomes == ["whole"] and not tied_answers(call, world.of(call.trace))
        if call.whole and taken and period.has(call):
            yield call.over_s


def _may_count(world: World, call: Call, period: Period, since_s: float) -> bool:
    """Whether the call may have spoken against its target's health since then."""
    end_s = inf if call.ended_s is None else call.ended_s
    counts = period.has(call, slack_s=2 * EPSILON_S)
    if not counts or end_s < since_s - EPSILON_S or call.over_s > period.to_s + EPSILON_S:
        return False
    if call.closing_s is None:
        calls = world.of(call.trace)
        return is_sick(call.failure) or tied(call, calls) or tied_answers(call, calls)
    caller = world.visitors[call.trace]
    left = caller.left_s is not None and caller.left_s <= call.closing_s
    return not call.whole and (not left or at_limit(world, caller, call))


def _stayed_closed(world: World, calls: Sequence[Call], threshold: int, period: Period) -> Iterable[str]:
    """While it is closed, `threshold` plain failures never come in a row, without a whole answer between them; nor one
    after a probe's beginning, without a whole answer since."""
    failures_s = sorted(_failed_s(world, call) for call in calls if period.has(call))
    failures_s = [failed_s for failed_s in failures_s if failed_s < period.to_s]
    whole_s = [call.over_s for call in calls if call.whole]
    if period.on_probation and failures_s and not any(period.from_s <= end_s <= failures_s[0] for end_s in whole_s):
        yield f"the circuit of {calls[0].target} was closed after a failure on probation at {failures_s[0]}"
        return
    for first_s, last_s in zip(failures_s, failures_s[threshold - 1 :], strict=False):
        if not any(first_s <= other_s <= last_s for other_s in whole_s):
            yield f"the circuit of {calls[0].target} was closed after {threshold} failures from {first_s} to {last_s}"
            return


def _failed_s(world: World, call: Call) -> float:
    """When the call surely spoke against its target's health; infinite when it may not have."""
    caller, calls = world.visitors[call.trace], world.of(call.trace)
    if call.ended_s is None or call.whole or tied(call, calls):
        return inf
    if call.closing_s is None:
        return call.ended_s if is_sick(call.failure) else inf
    if was_late(world, caller, call, calls):
        return call.closing_s
    if curtailed(world, caller, call):
        return inf
    ended_s = call.ended_s
    left = caller.left_s is not None and caller.left_s <= ended_s
    beaten = any(_is_over(other, ended_s) for other in calls if other is not call)
    return call.ended_s if not left and not beaten and not raced(call, calls) and at_limit(world, caller, call) else inf


def _is_over(call: Call, by_s: float) -> bool:
    """Whether this call had decided the request."""
    decisive_s = call.ended_s if ends_asking(call) or isinstance(call.failure, Bug) else call.answered_s
    return decisive_s is not None and decisive_s <= by_s
