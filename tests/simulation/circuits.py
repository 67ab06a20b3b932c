"""Whether circuits opened when they had to, and only then; who may be asked while they are open is checked at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf

from tests.simulation.promises import EPSILON_S, ends_all, is_sick, settings_of, tied, tied_answers
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
        for from_s, to_s, then in _closed(world, target):
            since_s = max(
                [from_s, *(success_s for success_s in _successes_s(world, calls, from_s) if success_s < to_s)]
            )
            if then == "open" and sum(_may_count(world, call, from_s, since_s, to_s) for call in calls) < threshold:
                yield f"the circuit of {target} opened at {to_s} with less than {threshold} failures in a row"
            yield from _stayed_closed(world, calls, threshold, from_s, to_s)


def _successes_s(world: World, calls: Sequence[Call], from_s: float) -> Iterable[float]:
    """When whole answers were taken, to calls that began after `from_s`."""
    for call in calls:
        taken = world.visitors[call.trace].outcomes == ["whole"] and not tied_answers(call, world.of(call.trace))
        if call.whole and taken and call.started_s > from_s:
            yield call.over_s


def _closed(world: World, target: Key) -> Iterable[tuple[float, float, str]]:
    """From when to when the circuit was closed, and what it was then."""
    history = [(-inf, "closed"), *world.moved.get(target, ()), (inf, "")]
    for (from_s, state), (to_s, then) in pairwise(history):
        if state == "closed":
            yield from_s, to_s, then


def _may_count(world: World, call: Call, from_s: float, since_s: float, to_s: float) -> bool:
    """Whether the call began after `from_s`, and may have spoken against its target's health since then."""
    end_s = inf if call.ended_s is None else call.ended_s
    if call.started_s < from_s - EPSILON_S or end_s < since_s - EPSILON_S or call.over_s > to_s + EPSILON_S:
        return False
    if call.closing_s is None:
        calls = world.of(call.trace)
        return is_sick(call.failure) or tied(call, calls) or tied_answers(call, calls)
    caller = world.visitors[call.trace]
    left = caller.left_s is not None and caller.left_s <= call.closing_s
    return not call.whole and (not left or at_limit(world, caller, call))


def _stayed_closed(world: World, calls: Sequence[Call], threshold: int, from_s: float, to_s: float) -> Iterable[str]:
    """While it is closed, `threshold` plain failures never come in a row, without a whole answer between them."""
    there = [failed_s for call in calls if call.started_s > from_s and (failed_s := _failed_s(world, call)) < to_s]
    whole_s = [call.over_s for call in calls if call.whole]
    failures_s = sorted(there)
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
    decisive_s = call.ended_s if ends_all(call) or isinstance(call.failure, Bug) else call.answered_s
    return decisive_s is not None and decisive_s <= by_s
