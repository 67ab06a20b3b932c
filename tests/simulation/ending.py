"""What is promised of each request, checked when all of them have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared.errors import ContentFilter, ModelNotFound, Overloaded, UpstreamTimeout
from tests.simulation.caller import Caller
from tests.simulation.circuits import circuit_problems
from tests.simulation.completeness import unasked
from tests.simulation.naming import naming_problems
from tests.simulation.pieces import piece_problems
from tests.simulation.promises import ends_all, ends_asking, tied
from tests.simulation.provider import Call, request_id
from tests.simulation.racing import race_problems
from tests.simulation.schedule import UNKNOWN, drawn
from tests.simulation.scripts import Bug
from tests.simulation.timing import late
from tests.simulation.world import World, play


def played(seed: int) -> World:
    """The world of this seed, played and checked."""
    world = play(drawn(seed))
    check(world)
    return world


def check(world: World) -> None:
    """Every request of a world that has come to its end."""
    for caller in (*world.callers, *world.healed):
        calls = world.of(caller.visit.trace)
        for problem in _problems(world, caller, calls):
            world.violated(f"{caller.visit.trace}: {problem}")
    for problem in circuit_problems(world):
        world.violated(problem)


def _problems(world: World, caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    if len(caller.outcomes) != 1:
        yield f"ended as {caller.outcomes}"
        return
    if caller.exchange.attempts != len(calls):
        yield f"{caller.exchange.attempts} attempts are noted, {len(calls)} were made"
    yield from late(world, caller, calls)
    yield from race_problems(world, caller, calls)
    yield from unasked(world, caller, calls)
    yield from naming_problems(world, caller, calls)
    yield from _ended_by_what_ends_all(caller, calls)
    outcome = caller.outcomes[0]
    if outcome == "whole" and not caller.visit.request.stream:
        yield from _whole(caller, calls)
    elif outcome == "error":
        yield from _failed(caller, calls)
    elif outcome == "bug" and not any(isinstance(call.error, Bug) for call in calls):
        yield "ended with a bug that no provider had"
    if caller.visit.request.stream:
        yield from piece_problems(caller, calls, whole=outcome == "whole")


def _whole(caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """Whole is what a provider has said whole, and the exchange is about that answer."""
    exchange = caller.exchange
    source = next((call for call in calls if call.answer is caller.answer), None)
    if source is None:
        yield "got an answer that nobody gave"
        return
    if source.answered_s != caller.answered_s:
        yield f"got the answer of {source.answered_s} at {caller.answered_s}"
    named = exchange.provider, exchange.model, exchange.upstream_request_id
    if named != (*source.target, request_id(source)):
        yield f"was answered by {source.target}, and {named} are named"
    if (exchange.usage, exchange.finish_reason) != (source.told, "stop"):
        yield f"was told {exchange.usage} and {exchange.finish_reason} instead of {source.told}"


def _failed(caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """A failure is a provider's own, or a limit that was reached, or that nobody could be asked."""
    error = caller.error
    if isinstance(error, ModelNotFound) and caller.visit.request.model == UNKNOWN:
        return
    if isinstance(error, Overloaded):
        if calls:
            yield f"is refused for want of room, after {len(calls)} calls"
    elif isinstance(error, UpstreamTimeout):
        if not any(call.closing_s is not None or isinstance(call.error, UpstreamTimeout) for call in calls):
            yield f"failed with {error!r}, and nobody was given up"
    elif not any(type(call.failure) is type(error) for call in calls):
        yield f"failed with {error!r}, which nobody said"


def _ended_by_what_ends_all(caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """A failure that would be the same everywhere ends the request, and is what the caller is told: at once, but for a
    bad request that others are at already, and may answer."""
    for call in calls:
        error = call.failure
        if not ends_asking(call) or tied(call, calls):
            continue
        if caller.left_s is not None and caller.left_s <= (call.ended_s or 0.0):
            continue
        if any(isinstance(other.error, Bug) and other.ended_s == call.ended_s for other in calls):
            continue
        at_once = ends_all(call) or all(other.task is call.task for other in calls)
        if at_once and (caller.outcomes != ["error"] or (caller.answered_s or 0.0) > (call.ended_s or 0.0)):
            yield f"did not end with {error!r} of {call.name}, but {caller.outcomes}"
        elif caller.outcomes == ["error"] and not caller.shown and type(caller.error) not in _told(call, calls):
            yield f"was told {caller.error!r} instead of {error!r}"


def _told(call: Call, calls: Sequence[Call]) -> Sequence[type[BaseException | None]]:
    """What the caller may be told when this call failed: a refusal of the content counts for more."""
    return [type(call.failure)] + [ContentFilter] * any(ends_all(other) for other in calls)
