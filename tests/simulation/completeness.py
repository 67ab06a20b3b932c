"""Whether all was tried before a request failed. Where it cannot be told from outside, nothing is demanded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared.errors import EchoBrainError, Overloaded
from tests.simulation.availability import free, free_target, targets
from tests.simulation.caller import Caller
from tests.simulation.promises import EPSILON_S, ends_asking, retries, settings_of
from tests.simulation.provider import Call
from tests.simulation.racing import raced
from tests.simulation.scripts import Bug
from tests.simulation.timing import limit_s
from tests.simulation.world import World


def unasked(world: World, caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """A request that failed with time left has asked every target that was free, as often as was allowed."""
    assert caller.ended_s is not None
    if caller.outcomes != ["error"] or not (caller.admitted or isinstance(caller.error, Overloaded)):
        return
    if not calls:
        yield from _refused(world, caller)
        return
    ended = any(isinstance(call.failure, Bug) or ends_asking(call) for call in calls)
    over = caller.answered_s is None or caller.answered_s >= _end_s(world, caller, calls) - EPSILON_S
    if ended or over:
        return
    if caller.visit.wishes.failover and (not caller.shown or caller.is_free_text):
        asked = {call.target for call in calls}
        if other := free_target(world, caller, asked, caller.ended_s, continues=bool(caller.shown)):
            yield f"failed with {caller.error!r}, and {other} was never asked"
    yield from _not_asked_again(world, caller, calls)


def _refused(world: World, caller: Caller) -> Iterable[str]:
    unlimited = world.schedule.serving.max_in_flight is None and caller.visit.wishes.failover
    if unlimited and (other := free_target(world, caller, (), caller.began_s)):
        yield f"was refused with {caller.error!r}, and {other} was free"


def _not_asked_again(world: World, caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """A target that says "later" or fails once is asked again while the budget, its settings and the time allow it."""
    if caller.budget < 1:
        return
    for target in {call.target for call in calls}:
        same = [call for call in calls if call.target == target]
        last = same[-1]
        alone = all(other.task is last.task for other in calls if other.asked_at > last.ended_at)
        may = alone and not raced(last, calls) and not (caller.visit.request.stream and last.said)
        end_s = _end_s(world, caller, calls)
        if may and len(same) <= _retries(world, caller, last) and _in_time(world, caller, last, len(same), end_s):
            yield f"failed with {caller.error!r}, and {target} was not asked again after {last.failure!r}"


def _retries(world: World, caller: Caller, call: Call) -> int:
    """How often the target of this failed call must be asked again."""
    alone = len(targets(world, caller.visit)) == 1 or not caller.visit.wishes.failover
    return retries(call.failure, settings_of(world, call.provider).retries.max_retries, alone=alone)


def _end_s(world: World, caller: Caller, calls: Sequence[Call]) -> float:
    """The earliest time at which the request may be over: it has the longest limit of the targets that were free."""
    assert caller.ended_s is not None
    planned = {call.target for call in calls}
    if caller.visit.wishes.failover:
        planned |= {t for t in targets(world, caller.visit) if free(world, t, caller.began_s, caller.ended_s)}
    return caller.began_s + max(limit_s(caller, settings_of(world, target[0]).limits) for target in planned)


def _in_time(world: World, caller: Caller, call: Call, times: int, end_s: float) -> bool:
    """Whether it could have been asked after the longest backoff, and was free all the time."""
    policy = settings_of(world, call.provider).retries
    assert isinstance(call.failure, EchoBrainError)
    assert caller.ended_s is not None
    ceiling_s = min(policy.backoff_max_s, policy.backoff_min_s * 2.0**times)
    wait_s = max(ceiling_s, call.failure.upstream_wait_s or 0.0)
    in_time = call.over_s + wait_s < end_s - EPSILON_S
    return in_time and free(world, call.target, call.over_s, caller.ended_s, but=call)
