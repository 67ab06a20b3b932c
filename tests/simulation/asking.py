"""What is promised of each question to a provider, checked the moment it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import msgspec

from shared.errors import EchoBrainError
from tests.simulation.availability import free_target, targets
from tests.simulation.promises import EPSILON_S, TURNS_TO_LEARN, ends_all, ends_asking, retries, settings_of, tied
from tests.simulation.provider import Call

if TYPE_CHECKING:
    from tests.simulation.world import World


def check_asked(world: World, call: Call) -> None:
    """All that can be told when a call begins."""
    if call.started_s >= world.ends_s.get(call.trace, inf):
        world.violated(f"{call.trace} asked {call.target} after its deadline")
    _check_circuit(world, call)
    _check_room(world, call)
    _check_repeated(world, call)
    _check_errors_before(world, call)
    _check_target(world, call)


def _check_circuit(world: World, call: Call) -> None:
    """No target is asked while its circuit is open, and one that is half open by one call alone."""
    state = world.circuits.get(call.target, "closed")
    if state == "open":
        world.violated(f"{call.trace} asked {call.target} while its circuit was open")
    if state == "half_open":
        world.probes[call.target] += 1
        world.probing[call.target, len(world.moved[call.target])] = call
        if world.probes[call.target] > 1:
            world.violated(f"{call.trace} sent probe {world.probes[call.target]} to {call.target}")


def _check_room(world: World, call: Call) -> None:
    """Nobody has more under way than fits."""
    under_way = [other for other in world.calls if other.under_way and not _has_lost(world, other)]
    limit = settings_of(world, call.provider).max_in_flight
    if limit is not None and sum(other.provider == call.provider for other in under_way) > limit:
        world.violated(f"{call.provider} is asked by more than {limit}")
    most = world.schedule.serving.max_in_flight
    if most is not None and len({other.trace for other in under_way}) > most:
        world.violated(f"more than {most} requests are under way")


def _has_lost(world: World, call: Call) -> bool:
    """Whether another target has just answered: in a moment this one is left."""
    return any(other.answered_s == world.loop.time() for other in world.of(call.trace) if other is not call)


def _check_repeated(world: World, call: Call) -> None:
    """The same target is asked again as often and as late as its settings and its answer say, and within the budget."""
    earlier = [other for other in world.of(call.trace) if other.target == call.target and other is not call]
    if not earlier:
        return
    world.repeats += 1
    if world.repeats > 3 + 0.1 * world.admitted + EPSILON_S:
        world.violated(f"{world.repeats} retries and hedges of {world.admitted} requests")
    before = earlier[-1]
    if before.ended_s is None or not isinstance(before.failure, EchoBrainError):
        world.violated(f"{call.trace} asked {call.target} again, which has not refused it")
        return
    most = settings_of(world, call.provider).retries.max_retries
    if len(earlier) > retries(before.failure, most, alone=not _had_another(world, before)):
        world.violated(f"{call.trace} asked {call.target} again, time {len(earlier)}, after {before.failure!r}")
    _check_wait(world, call, call.started_s - before.ended_s, before.failure.upstream_wait_s or 0.0, len(earlier))


def _check_wait(world: World, call: Call, wait_s: float, asked_s: float, times: int) -> None:
    policy = settings_of(world, call.provider).retries
    ceiling_s = max(asked_s, min(policy.backoff_max_s, policy.backoff_min_s * 2.0**times))
    if not max(policy.backoff_min_s, asked_s) - EPSILON_S <= wait_s <= ceiling_s + EPSILON_S:
        world.violated(f"{call.trace} asked {call.target} again after {wait_s:.3f} s; it had asked for {asked_s} s")


def _had_another(world: World, call: Call) -> bool:
    """Whether a target was free all the time when this call failed, and has not been asked."""
    caller = world.visitors[call.trace]
    calls, ended_s = world.of(call.trace), call.ended_s or 0.0
    asked = {other.target for other in calls}
    need = call.request.continues
    alone = not caller.visit.wishes.failover or call.ended_s is None
    alone = alone or any(ends_asking(other) and (other.ended_s or 0.0) <= ended_s for other in calls)
    return not alone and bool(free_target(world, caller, asked, ended_s, continues=need))


def _check_errors_before(world: World, call: Call) -> None:
    """What is the same everywhere is asked nowhere else; a hedge may begin at the very moment of the failure, and who
    was at a bad request already may ask its target again."""
    calls = world.of(call.trace)
    for other in calls:
        hedged = call.task is not other.task and call.started_turn - other.ended_turn <= TURNS_TO_LEARN
        again = not ends_all(other) and call.task is not other.task and _was_at_it(call, other, calls)
        if ends_asking(other) and not (hedged or again or tied(other, calls)):
            world.violated(f"{call.trace} asked {call.target} after {other.failure!r}")


def _was_at_it(call: Call, other: Call, calls: Sequence[Call]) -> bool:
    """Whether the same run had asked the same target before the `other` call failed."""
    return any(c.task is call.task and c.target == call.target and c.asked_at < other.ended_at for c in calls)


def _check_target(world: World, call: Call) -> None:
    """Only targets of the route are asked; to go on with a text, only those that can, and with the text so far."""
    caller = world.visitors[call.trace]
    if call.target not in targets(world, caller.visit):
        world.violated(f"{call.trace} asked {call.target}, which is not on its route")
    messages = msgspec.json.decode(call.request.parameters["messages"])
    asked = [{"role": "user", "content": call.trace}]
    if not caller.shown:
        if messages != asked or call.request.continues:
            world.violated(f"{call.trace} asked {call.target} for {messages}")
        return
    if not caller.is_free_text:
        world.violated(f"{call.trace} let {call.target} go on with what is not a free text")
    if not settings_of(world, call.provider).continues_prefill or not call.request.continues:
        world.violated(f"{call.trace} let {call.target} go on, which cannot")
    if messages != [*asked, {"role": "assistant", "content": caller.shown}]:
        world.violated(f"{call.trace} asked {call.target} to go on with {messages[-1]}")
