"""What design and documents promise of each failure, told here once more: the product's own table may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shared import errors
from shared.settings import ProviderSettings
from tests.simulation.provider import Call

if TYPE_CHECKING:
    from tests.simulation.world import World

EPSILON_S: Final = 1e-6
TURNS_TO_LEARN: Final = 2  # of the loop, until the request knows what its target said

LATER: Final = (errors.RateLimited, errors.UpstreamBusy)
ONCE_MORE: Final = (errors.UpstreamError, errors.ConnectionReset)
ONCE_MORE_IF_ALONE: Final = (errors.ConnectionFailed, errors.BrokenAnswer)
SICK: Final = (*ONCE_MORE, *ONCE_MORE_IF_ALONE, errors.UpstreamBusy, errors.UpstreamTimeout)


def ends_all(call: Call) -> bool:
    """Whether the request is taken to no other target, and those that are at it are left."""
    return isinstance(call.failure, errors.ContentFilter)


def ends_asking(call: Call) -> bool:
    """Whether no further target is asked; those that are at a bad request already may yet find it good. A text to go
    on with may be refused by this one alone."""
    return ends_all(call) or (type(call.failure) is errors.BadRequest and not call.request.continues)


def is_sick(error: BaseException | None) -> bool:
    """Whether the failure speaks against its target's health."""
    return type(error) in SICK


def retries(error: BaseException | None, most: int, *, alone: bool) -> int:
    """How often a target that fails like this may be asked again."""
    if type(error) in LATER:
        return most
    return min(1, most) if type(error) in ONCE_MORE or (alone and type(error) in ONCE_MORE_IF_ALONE) else 0


def tied(call: Call, calls: Sequence[Call]) -> bool:
    """Whether another target answered at the very moment at which this one failed: then the answer counts."""
    others = [other for other in calls if other is not call and None is not other.answered_s == call.ended_s]
    return any(abs(other.answered_turn - call.ended_turn) <= TURNS_TO_LEARN for other in others)


def tied_answers(call: Call, calls: Sequence[Call]) -> bool:
    """Whether another target answered at the very moment at which this one did."""
    others = [other for other in calls if other is not call and None is not other.answered_s == call.answered_s]
    return any(abs(other.answered_turn - call.answered_turn) <= TURNS_TO_LEARN for other in others)


def settings_of(world: World, provider: str) -> ProviderSettings:
    """The settings of the provider."""
    return next(p for p in world.schedule.serving.providers if p.name == provider)
