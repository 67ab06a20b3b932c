"""Who is named as having failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared.errors import BadRequest, EchoBrainError, NotReady, Retry
from tests.simulation.caller import Caller
from tests.simulation.promises import ends_asking, tied, tied_answers
from tests.simulation.provider import Call
from tests.simulation.racing import was_late
from tests.simulation.world import World


def naming_problems(world: World, caller: Caller, calls: Sequence[Call]) -> Iterable[str]:
    """The failed providers are those that were given up on, each once."""
    named = caller.exchange.failed_providers
    if len(set(named)) != len(named):
        yield f"names {named} as failed"
    for name in named:
        if not any(call.provider == name and _may_be_given_up(caller, call, calls) for call in calls):
            yield f"names {name} as failed, which has not"
    if caller.outcomes[0] in ("left", "bug"):
        return
    for call in calls:
        if call.provider not in named and (_is_given_up(caller, call, calls) or was_late(world, caller, call, calls)):
            yield f"does not name {call.provider} as failed, which has with {call.failure!r}"


def _may_be_given_up(caller: Caller, call: Call, calls: Sequence[Call]) -> bool:
    """It failed of its own, or was left while the caller was there, or came too late."""
    if call.closing_s is not None:
        return not call.whole and (caller.left_s is None or call.closing_s <= caller.left_s)
    again = any(other.target == call.target and other.whole for other in calls)
    return (isinstance(call.failure, EchoBrainError) and not again) or tied_answers(call, calls)


def _is_given_up(caller: Caller, call: Call, calls: Sequence[Call]) -> bool:
    """It failed of its own, was not to be asked again, and is not merely the one that refused the request."""
    error = call.failure
    begun = caller.visit.request.stream and bool(call.said)
    if not isinstance(error, EchoBrainError) or tied(call, calls) or (ends_asking(call) and not begun):
        return False
    if error.retry is not Retry.ELSEWHERE and not begun:  # it may be waited for while another answers
        alone = all(other.target == call.target for other in calls)
        if _is_asked_again(call, calls) or not (alone or _one_by_one(calls)):
            return False
    before = {other.target for other in calls if other.asked_at < call.ended_at}
    last = before == {other.target for other in calls}
    return begun or not (last and isinstance(error, BadRequest | NotReady))


def _is_asked_again(call: Call, calls: Sequence[Call]) -> bool:
    return any(other.target == call.target and other.asked_at > call.asked_at for other in calls)


def _one_by_one(calls: Sequence[Call]) -> bool:
    """Whether no two runs of the request were under way at the same time."""
    return len({call.task for call in calls}) == 1
