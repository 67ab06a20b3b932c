"""The circuit breaker of one target: N consecutive failures open it, a cooldown later exactly one probe may close it.

The transitions are pure functions over a frozen `Circuit`; every time is given (s, monotonic). The states and their
names are those of Michael Nygard's "Release It!".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from shared.settings import BreakerPolicy

State = Literal["closed", "open", "half_open"]


class Outcome(Enum):
    """What a call says about its target: `NOTHING` where it was cancelled, or failed for another's fault."""

    SUCCESS = "success"
    FAILURE = "failure"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Circuit:
    """`turn` counts the transitions: what a call of an earlier turn brings home counts for nothing."""

    state: State = "closed"
    failures: int = 0  # consecutive ones
    probe_at_s: float = 0.0  # while open: when one may be sent
    turn: int = 0

    def admits(self, now_s: float) -> bool:
        """Whether a call may begin now."""
        return self.state == "closed" or (self.state == "open" and now_s >= self.probe_at_s)

    def entered(self) -> Circuit:
        """The circuit once an admitted call has begun: where it was open, that call is the probe."""
        return self if self.state == "closed" else replace(self, state="half_open", turn=self.turn + 1)

    def settled(self, turn: int, outcome: Outcome, policy: BreakerPolicy, now_s: float) -> Circuit:
        """The circuit once a call that began in `turn` has ended."""
        if turn != self.turn:
            return self
        if outcome is Outcome.SUCCESS:
            return self if self.state == "closed" and not self.failures else self._closed()
        if self.state == "half_open":  # the probe: a cancelled one tells nothing, the next call is another
            return self._open(now_s + policy.cooldown_s if outcome is Outcome.FAILURE else now_s)
        if outcome is Outcome.NOTHING:
            return self
        failures = self.failures + 1
        return (
            replace(self, failures=failures) if failures < policy.threshold else self._open(now_s + policy.cooldown_s)
        )

    def promised(self, turn: int, policy: BreakerPolicy) -> Circuit:
        """The circuit once a call has begun to answer: the probe closes it, on probation, as an answer can be long.

        The next failure, also the probe's own, opens it again; the next whole answer ends the probation.
        """
        if turn != self.turn or self.state != "half_open":
            return self
        return Circuit("closed", policy.threshold - 1, turn=self.turn + 1)

    def _closed(self) -> Circuit:
        return Circuit(turn=self.turn + (self.state != "closed"))

    def _open(self, probe_at_s: float) -> Circuit:
        return Circuit("open", 0, probe_at_s, self.turn + 1)


class Breaker:
    """The circuit of one target in this process; `changed` is told each transition, from and to."""

    __slots__ = ("_changed", "_circuit", "_policy")

    def __init__(self, policy: BreakerPolicy, changed: Callable[[State, State], None]) -> None:
        self._policy = policy
        self._changed = changed
        self._circuit = Circuit()

    @property
    def state(self) -> State:
        """closed, open or half_open."""
        return self._circuit.state

    def admits(self, now_s: float) -> bool:
        """Whether a call may begin now."""
        return self._circuit.admits(now_s)

    def opens_in_s(self, now_s: float) -> float:
        """How long until a probe may be sent, in seconds; 0 where a call may begin now or a probe is under way."""
        return max(0.0, self._circuit.probe_at_s - now_s) if self._circuit.state == "open" else 0.0

    def enter(self) -> int:
        """A call begins that `admits` has let in; the turn that `settle` wants back."""
        self._become(self._circuit.entered())
        return self._circuit.turn

    def promise(self, turn: int) -> int:
        """The call that began in `turn` has begun to answer; the turn in which it goes on."""
        before = self._circuit
        self._become(before.promised(turn, self._policy))
        return turn if self._circuit is before else self._circuit.turn

    def settle(self, turn: int, outcome: Outcome, now_s: float) -> None:
        """The call that began in `turn` has ended."""
        self._become(self._circuit.settled(turn, outcome, self._policy, now_s))

    def _become(self, circuit: Circuit) -> None:
        before, self._circuit = self._circuit, circuit
        if before.state != circuit.state:
            self._changed(before.state, circuit.state)
