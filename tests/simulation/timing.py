"""When a request and its calls end: not later than promised, and no call is left earlier than it must be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from shared.errors import BadRequest
from shared.settings import Limits
from tests.simulation.availability import targets
from tests.simulation.caller import Caller
from tests.simulation.promises import EPSILON_S, settings_of
from tests.simulation.provider import Call
from tests.simulation.world import World

LATE_S: Final = 0.1  # how much later than its limit anything may end


def late(world: World, caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """Deadlines hold, but for the time that a provider takes to close, or a caller to read."""
    assert caller.ended_s is not None
    if not caller.admitted:
        return
    closing = [(call.closing_s, call.ended_s or caller.ended_s) for call in calls if call.closing_s is not None]
    excuses = [*closing, *caller.pauses_s]
    over_s = _outside(caller.began_s + caller.limit_s, caller.ended_s, excuses)
    if over_s > LATE_S + EPSILON_S:
        yield f"ended {over_s:.3f} s after its deadline of {caller.limit_s} s"
    if caller.left_s is not None and (lingered_s := _outside(caller.left_s, caller.ended_s, closing)) > EPSILON_S:
        yield f"ended {lingered_s:.3f} s after it had left"
    for call in calls:
        limits = settings_of(world, call.provider).limits
        end_s = min(call.over_s, caller.ended_s)
        over_s = _outside(call.started_s + limit_s(caller, limits), end_s, excuses)
        if over_s > LATE_S + EPSILON_S:
            yield f"call {call.name} went on {over_s:.3f} s after its limit"
        if caller.visit.request.stream:
            yield from _silent(call, limits)
        yield from _left_early(world, caller, call, calls)


def _silent(call: Call, limits: Limits) -> Iterable[str]:
    for number, silence_s in enumerate(call.silences_s):
        if silence_s > (limits.idle_s if number else limits.first_token_s) + LATE_S + EPSILON_S:
            yield f"waited {silence_s:.3f} s for token {number} of {call.name}"


def _left_early(world: World, caller: Caller, call: Call, calls: Sequence[Call]) -> Iterable[str]:
    """A call is left when it or the request has come to a limit, when the caller leaves or is served by another."""
    left_s = call.closing_s
    if left_s is None or call.whole or (caller.left_s is not None and caller.left_s <= left_s):
        return
    answered_s = None if type(caller.error) is BadRequest else caller.answered_s  # nobody is left for that
    answers_s = [answered_s, *(other.answered_s for other in calls if other is not call)]
    lost = any(at_s is not None and abs(left_s - at_s) < EPSILON_S for at_s in answers_s)
    if not lost and not at_limit(world, caller, call):
        yield f"left {call.name} after {left_s - call.started_s:.3f} s for no reason"


def at_limit(world: World, caller: Caller, call: Call) -> bool:
    """Whether the call was left at one of its limits, or at one of the request, apart from the caller's pauses."""
    limits = settings_of(world, call.provider).limits
    left_s = call.over_s
    allowed = [settings_of(world, target[0]).limits for target in targets(world, caller.visit)]
    due = [caller.began_s + limit_s(caller, other) for other in allowed] + [call.started_s + limit_s(caller, limits)]
    if caller.visit.request.stream and call.silences_s:
        silence_s = limits.idle_s if len(call.silences_s) > 1 else limits.first_token_s
        due.append(left_s - call.silences_s[-1] + silence_s)
    return any(
        due_s <= left_s + EPSILON_S and _outside(due_s, left_s, caller.pauses_s) <= LATE_S + EPSILON_S for due_s in due
    )


def curtailed(world: World, caller: Caller, call: Call) -> bool:
    """Whether the call ended with the request's time, and may have had less of it than its target's own limit: then
    the target is not to blame. The request's time is the longest limit among the targets that were free."""
    own_s = limit_s(caller, settings_of(world, call.provider).limits)
    allowed = [settings_of(world, target[0]).limits for target in targets(world, caller.visit)]
    ends_s = [caller.began_s + limit_s(caller, limits) for limits in allowed]
    return any(
        end_s - call.started_s < own_s and _outside(end_s, call.over_s, caller.pauses_s) <= LATE_S + EPSILON_S
        for end_s in ends_s
        if end_s <= call.over_s + EPSILON_S
    )


def limit_s(caller: Caller, limits: Limits) -> float:
    """The limit of one call for this request."""
    return limits.streaming_s if caller.visit.request.stream else limits.request_s


def _outside(start_s: float, end_s: float, excuses: Iterable[tuple[float, float]]) -> float:
    """How much of the time from start to end is in none of the `excuses`."""
    length_s, at_s = 0.0, start_s
    for from_s, to_s in sorted(excuses):
        length_s += max(0.0, min(from_s, end_s) - at_s)
        at_s = max(at_s, to_s)
    return length_s + max(0.0, end_s - at_s)
