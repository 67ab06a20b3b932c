"""What a scenario of the sixteen is: its number, what must be seen, and the coroutine that plays it on a stand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.ways import WAYS, Way

from .stand import TEXT, Seen, Stand

SLACK_S: Final = 8.0  # what a busy machine may add; the limits that are told apart are much further from each other


@dataclass(frozen=True, slots=True)
class Times:
    """How long things take, in seconds; `keys` are settings of every provider, None where the default is meant."""

    retry_after: float
    late_token: float  # within the limit of the first token
    stall: float
    flap: float  # the whole of it
    cooldown: float
    keys: Mapping[str, float] = field(default_factory=dict)
    first_token: Mapping[str, float] = field(default_factory=dict)  # the limit that a silent provider meets
    total: Mapping[str, float] = field(default_factory=dict)  # and that of an answer which is not streamed
    short_first_token: float = 5.0
    very_late_token: float = 20.0  # beyond the short limit
    idle: Mapping[str, float] = field(default_factory=dict)  # the limit that a stall meets
    long_idle: float = 45.0
    stall_within_long_idle: float = 30.0

    @property
    def first_token_s(self) -> float:
        """The limit of the first token that holds."""
        return self.first_token.get("first_token_timeout", 30.0)

    @property
    def idle_s(self) -> float:
        """The idle limit that holds."""
        return self.idle.get("idle_timeout", 15.0)

    @property
    def backoff_min_s(self) -> float:
        """The shortest wait before a retry."""
        return self.keys.get("retry_backoff_min", 1.0)


REAL: Final = Times(retry_after=2, late_token=20, stall=30, flap=60, cooldown=30)
SMALL: Final = Times(
    retry_after=0.1,
    late_token=0.2,
    stall=30,
    flap=0.8,
    cooldown=0.2,
    keys={"retry_backoff_min": 0.01, "retry_backoff_max": 0.02},
    first_token={"first_token_timeout": 0.4},
    total={"request_timeout": 0.8},
    short_first_token=0.4,
    very_late_token=30,
    idle={"idle_timeout": 0.4},
    long_idle=30,
    stall_within_long_idle=0.3,
)

Play = Callable[[Stand, Times], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario; it is played once in each of its ways, each time with upstreams and a gateway of its own."""

    number: str
    title: str
    expected: str
    play: Play
    ways: Sequence[Way]

    @property
    def why_not(self) -> str:
        """Why it is not played in the other ways."""
        return "only a stream can do this" if self.ways[0].stream else "a stream is played in the rows above"


CASES: Final[list[Case]] = []


def case(number: str, title: str, expected: str, ways: Sequence[Way] = WAYS) -> Callable[[Play], Play]:
    """Enters a coroutine in the table."""

    def enter(play: Play) -> Play:
        CASES.append(Case(number, title, expected, play, ways))
        return play

    return enter


def whole(seen: Seen, text: str = TEXT, by: str | None = None) -> None:
    """AssertionError unless the answer is whole, has this text, and names who served it."""
    verdict = seen.verdict
    assert (seen.status, verdict.code, verdict.text) == (200, None, text), f"{seen.status} {verdict}"
    assert by is None or seen.served_by == by, f"served by {seen.served_by}"


def failed(seen: Seen, code: str, status: int, shown: str = "") -> None:
    """AssertionError unless the answer is this error, after `shown` had been."""
    verdict = seen.verdict
    begun = seen.reply.streamed
    assert (verdict.code, verdict.text) == (code, shown), f"{seen.status} {verdict}"
    assert seen.status == (200 if begun else status), f"status {seen.status}"
    assert begun is (bool(shown) or str(seen.reply.way) == "brain-stream")


def at_most(seconds: float, seen: Seen) -> None:
    """AssertionError if the answer took longer, a busy machine forgiven."""
    assert seen.seconds < seconds + SLACK_S, f"{seen.seconds:.1f} s"
