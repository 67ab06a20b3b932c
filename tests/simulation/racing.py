"""What is promised where two targets are asked at the same time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from shared.settings import Limits
from tests.simulation.availability import free_target, route_of
from tests.simulation.caller import Caller
from tests.simulation.promises import EPSILON_S, settings_of, tied_answers
from tests.simulation.provider import Call
from tests.simulation.world import World


def race_problems(world: World, caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """Nobody is asked beside another without need, who lost is left at once, and nothing is open after the end."""
    yield from _open(caller, calls)
    yield from _losers(calls)
    if calls:
        yield from _begun_too_soon(world, caller, calls)
        yield from _not_begun(world, caller, calls)


def raced(call: Call, calls: Sequence[Call]) -> bool:
    """Whether another target was asked at the same time, for at least a moment."""
    return any(
        other is not call and other.started_s <= call.over_s and call.started_s <= other.over_s for other in calls
    )


def was_late(world: World, caller: Caller, call: Call, calls: Sequence[Call]) -> bool:
    """Whether a target was so silent that the next one was asked, which then answered."""
    if caller.visit.request.stream or caller.outcomes != ["whole"] or call is not calls[0] or len(calls) < 2:
        return False
    limit_s = settings_of(world, call.provider).limits.first_token_s
    asked = route_of(world, caller.visit).hedge_after_s is None and calls[1].started_s == call.started_s + limit_s
    beaten = not call.whole and call.closing_s in [other.answered_s for other in calls if other.answered_s is not None]
    return asked and call.over_s > calls[1].started_s and beaten


def _open(caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """When a request is over, its calls have been left; one that nobody waits for any more may be closing yet."""
    assert caller.ended_s is not None
    for call in calls:
        unattended = caller.left_s is not None or raced(call, calls)
        over_s = call.over_s if unattended or call.ended_s is None else call.ended_s
        if over_s > caller.ended_s + EPSILON_S:
            yield f"ended before its call {call.name}"


def _losers(calls: Sequence[Call]) -> Iterable[str]:
    for winner in calls:
        for call in calls:
            if winner.answered_s is None or call is winner or call.asked_at > winner.answered_at:
                continue
            if tied_answers(call, [winner]) and winner.over_s <= winner.answered_s + EPSILON_S:
                continue  # it has answered, too, and is the one that counts
            if call.over_s > winner.answered_s + EPSILON_S:
                yield f"{call.name} was still asked when {winner.name} had answered"


def _hedge_after_s(world: World, caller: Caller, limits: Limits) -> float | None:
    """How long the first target may be silent before another is asked."""
    hedge_s = route_of(world, caller.visit).hedge_after_s if caller.visit.wishes.failover else None
    if caller.visit.request.stream:
        return hedge_s
    return limits.first_token_s if hedge_s is None else min(hedge_s, limits.first_token_s)


def _begun_too_soon(world: World, caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """Until a target has failed or been given up, another is asked only where the last has been silent long enough."""
    for before, call in pairwise(calls):
        if any(other.over_s <= call.started_s for other in calls):
            return
        after_s = _hedge_after_s(world, caller, settings_of(world, before.provider).limits)
        if after_s is None or call.started_s - before.started_s < after_s - EPSILON_S:
            yield f"{call.name} was asked beside {before.name} after {call.started_s - before.started_s:.3f} s"


def _not_begun(world: World, caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """When the first target is silent too long, the next one is asked at that very moment."""
    first = calls[0]
    after_s = _hedge_after_s(world, caller, settings_of(world, first.provider).limits)
    if after_s is None or not caller.visit.wishes.failover or caller.budget < 1:
        return
    at_s = first.started_s + after_s
    ends_s = [first.over_s, first.answered_s, caller.left_s, caller.began_s + caller.limit_s]
    if min(end_s for end_s in ends_s if end_s is not None) <= at_s + EPSILON_S:
        return
    other = free_target(world, caller, {first.target}, at_s)
    if other and not any(abs(call.started_s - at_s) < EPSILON_S for call in calls):
        yield f"{other} was not asked beside {first.name} after {after_s} s"
