"""What a provider does with one call: a list of steps, drawn at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from shared import errors

STEP_S: Final = 0.125  # all durations are multiples, exact in binary: many things happen at the same time


Usage = Literal["never", "at the end", "all along"]  # when it is told


class Bug(RuntimeError):
    """A provider's own mistake."""


@dataclass(frozen=True, slots=True)
class Step:
    """Wait `after_s`, then do it. Without an `end` a stream just stops."""

    what: Literal["ping", "token", "tool", "raise", "end"]
    after_s: float = 0.0
    error: Callable[[], Exception] = errors.BrokenAnswer


@dataclass(frozen=True, slots=True)
class Script:
    """The steps of one call, and how long its connection takes to close in the middle of them."""

    steps: tuple[Step, ...]
    close_s: float = 0.0
    usage: Usage = "at the end"

    @property
    def whole(self) -> bool:
        """Whether it comes to a good end, if it is let."""
        return any(step.what == "end" and step.after_s < inf for step in self.steps)


def _busy(kind: type[errors.EchoBrainError], wait_s: float | None) -> Callable[[], Exception]:
    return lambda: kind(retry_after_s=wait_s)


REFUSALS: Final[Sequence[Callable[[], Exception]]] = (
    errors.BadRequest,
    errors.ContextLengthExceeded,
    errors.ContentFilter,
    errors.UpstreamAuthError,
    errors.QuotaExceeded,
    errors.NotReady,
    errors.ConnectionFailed,
    errors.ConnectionReset,
    errors.UpstreamError,
    errors.BrokenAnswer,
    lambda: errors.UpstreamTimeout("connect", 1.0),
    *(_busy(errors.UpstreamError, wait_s) for wait_s in (0.0, 1.0)),
    *(_busy(errors.RateLimited, wait_s) for wait_s in (None, None, 0.0, 0.5, 2.0, 30.0)),
    *(_busy(errors.UpstreamBusy, wait_s) for wait_s in (None, None, 1.0, 30.0)),
    Bug,
)
IN_BAND: Final[Sequence[Callable[[], Exception]]] = (
    *(errors.BrokenAnswer,) * 6,
    errors.RateLimited,
    errors.ContentFilter,
    errors.ContextLengthExceeded,
    errors.UpstreamBusy,
    Bug,
)


def healthy() -> Script:
    """A whole answer at once."""
    return Script((Step("token"), Step("end")))


def drawn(rng: random.Random, health: float) -> Script:
    """A script that is a good one with the probability `health`."""
    steps = _answer(rng)
    if rng.random() >= health:
        steps = rng.choice(_FAULTS)(rng, steps)
    return Script(tuple(steps), rng.choice((0.0, 0.0, 0.0, 0.25, 1.5)), _usage(rng.random()))


def _usage(share: float) -> Usage:
    if share >= 0.8:
        return "never"
    return "all along" if share < 0.2 else "at the end"


def _answer(rng: random.Random) -> list[Step]:
    pace_s = rng.choice((0.0, 0.0, 1, 2, 4)) * STEP_S
    what: Literal["token", "tool"] = "tool" if rng.random() < 0.1 else "token"
    pings = [Step("ping", rng.choice((0, 0, 1, 4)) * STEP_S) for _ in range(rng.choice((0, 0, 1, 3)))]
    first = Step("token" if len(pings) == 1 else what, rng.choice((0, 0, 1, 2, 4, 6)) * STEP_S)
    rest: list[Step] = []
    for _ in range(rng.randrange(5)):
        rest += [Step("ping", pace_s)] * (rng.random() < 0.1) + [Step(what, pace_s)]
    return [*pings, first, *rest, Step("end", pace_s)]


def _refused(rng: random.Random, steps: list[Step]) -> list[Step]:
    return [Step("raise", rng.choice((0, 0, 1, 4)) * STEP_S, rng.choice(REFUSALS))]


def _silent(rng: random.Random, steps: list[Step]) -> list[Step]:
    return [Step("end", inf)]


def _late(rng: random.Random, steps: list[Step]) -> list[Step]:
    return [Step("ping", rng.choice((1.0, 2.0, 5.0))), *steps]


def _only_pings(rng: random.Random, steps: list[Step]) -> list[Step]:
    return [Step("ping", 0.25)] * 400


def _endless(rng: random.Random, steps: list[Step]) -> list[Step]:
    return [Step("token", 0.375)] * 400


def _broken(rng: random.Random, steps: list[Step]) -> list[Step]:
    return [*_begun(rng, steps), Step("raise", rng.choice((0, 0, 2)) * STEP_S, rng.choice(IN_BAND))]


def _stalled(rng: random.Random, steps: list[Step]) -> list[Step]:
    return [*_begun(rng, steps), Step("end", rng.choice((2.0, inf)))]


def _begun(rng: random.Random, steps: list[Step]) -> list[Step]:
    return steps[: rng.randrange(len(steps))]


_FAULTS: Final = (
    *(_refused,) * 5,
    *(_broken,) * 4,
    *(_stalled,) * 2,
    _silent,
    _late,
    _only_pings,
    _endless,
    _begun,
)
