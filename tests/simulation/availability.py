"""Which targets could have been asked all the time, as far as can be told from outside."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf
from typing import TYPE_CHECKING

from shared.models import Route, Target
from tests.simulation.caller import Caller
from tests.simulation.promises import settings_of
from tests.simulation.provider import Call
from tests.simulation.schedule import Visit

if TYPE_CHECKING:
    from tests.simulation.world import Key, World


def route_of(world: World, visit: Visit) -> Route:
    """The route of a visit that was admitted."""
    return world.schedule.serving.routes[visit.request.model or "default"]


def key(world: World, target: Target) -> Key:
    """The provider and the model that it is asked for."""
    return target.provider, target.model or settings_of(world, target.provider).model or ""


def targets(world: World, visit: Visit) -> Sequence[Key]:
    """Where a visit that was admitted may be sent to."""
    wished = visit.wishes.provider
    named = [t for t in route_of(world, visit).targets if wished in (None, t.provider)]
    return [key(world, target) for target in named or [Target(wished or "")]]


def free_target(
    world: World, caller: Caller, asked: Collection[Key], until_s: float, *, continues: bool = False
) -> Key | None:
    """A target that was not `asked`, and could have been at any time from the request's beginning `until_s`."""
    for target in targets(world, caller.visit):
        able = settings_of(world, target[0]).continues_prefill or not continues
        if target not in asked and able and free(world, target, caller.began_s, until_s):
            return target
    return None


def free(world: World, target: Key, from_s: float, to_s: float, *, but: Call | None = None) -> bool:
    """Whether there was room all the time, not counting the call `but`, and the circuit let calls in."""
    return _let_in(world, target, from_s, to_s) and _room(world, target[0], from_s, to_s, but)


def _let_in(world: World, target: Key, from_s: float, to_s: float) -> bool:
    history = [(-inf, "closed"), *world.moved.get(target, ())]
    cooldown_s = settings_of(world, target[0]).breaker.cooldown_s
    for number, (since_s, state) in enumerate(history):
        until_s = history[number + 1][0] if number + 1 < len(history) else inf
        if state == "open":
            until_s = min(until_s, since_s + cooldown_s)
        if state != "closed" and since_s <= to_s and until_s >= from_s:
            return False
    return True


def _room(world: World, provider: str, from_s: float, to_s: float, but: Call | None) -> bool:
    limit = settings_of(world, provider).max_in_flight
    if limit is None:
        return True
    calls = [call for call in world.calls if call.provider == provider and call is not but]
    times_s = [from_s, *(call.started_s for call in calls if from_s <= call.started_s <= to_s)]
    return all(sum(call.started_s <= at_s <= (call.ended_s or inf) for call in calls) < limit for at_s in times_s)
