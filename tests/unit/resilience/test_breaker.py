"""The circuit breaker: each transition, and that no order of calls, results and time leads it astray."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.resilience.breaker import Breaker, Circuit, Outcome, State
from shared.settings import BreakerPolicy

POLICY = BreakerPolicy(threshold=3, cooldown_s=30.0)
OUTCOMES = st.sampled_from(Outcome)


class Watched:
    """A breaker, with every transition it has told of."""

    def __init__(self, policy: BreakerPolicy = POLICY) -> None:
        self.told: list[tuple[State, State]] = []
        self.breaker = Breaker(policy, lambda before, after: self.told.append((before, after)))

    def state(self) -> State:
        """The circuit's state."""
        return self.breaker.state

    def call(self, outcome: Outcome, now_s: float) -> None:
        """A call that begins and ends at the same moment."""
        assert self.breaker.admits(now_s)
        self.breaker.settle(self.breaker.enter(), outcome, now_s)

    def open(self, now_s: float) -> None:
        """Lets it fail until it opens."""
        while self.state() == "closed":
            self.call(Outcome.FAILURE, now_s)


@given(st.integers(1, 12))
def test_it_opens_with_exactly_so_many_failures_in_a_row(threshold: int) -> None:
    """One fewer leaves it closed; the last one opens it, and says so once."""
    watched = Watched(BreakerPolicy(threshold, 30.0))
    for _ in range(threshold - 1):
        watched.call(Outcome.FAILURE, 0.0)
        assert watched.breaker.admits(0.0)
        assert not watched.told
    watched.call(Outcome.FAILURE, 0.0)
    assert (watched.state(), watched.told) == ("open", [("closed", "open")])


def test_a_success_between_them_begins_the_count_anew() -> None:
    """Only consecutive failures count."""
    watched = Watched()
    for outcome in (Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE):
        watched.call(outcome, 0.0)
    assert watched.state() == "closed"
    watched.call(Outcome.FAILURE, 0.0)
    assert watched.state() == "open"


def test_a_cancelled_call_neither_counts_nor_forgives() -> None:
    """Between failures it is as if it had not been."""
    watched = Watched()
    for outcome in (Outcome.FAILURE, Outcome.NOTHING, Outcome.FAILURE, Outcome.NOTHING):
        watched.call(outcome, 0.0)
    assert watched.state() == "closed"
    watched.call(Outcome.FAILURE, 0.0)
    assert watched.state() == "open"


def test_while_open_it_lets_nothing_in_until_the_cooldown_is_over() -> None:
    """To the moment; how long it takes is known all along."""
    watched = Watched()
    watched.open(100.0)
    assert not watched.breaker.admits(129.999)
    assert watched.breaker.opens_in_s(110.0) == 20.0
    assert watched.breaker.admits(130.0)
    assert watched.breaker.opens_in_s(131.0) == 0.0


def test_after_the_cooldown_it_lets_in_one() -> None:
    """The probe; while it is under way there is no second one, however long it takes."""
    watched = Watched()
    watched.open(0.0)
    watched.breaker.enter()
    assert watched.state() == "half_open"
    assert not watched.breaker.admits(30.0)
    assert not watched.breaker.admits(1e9)
    assert watched.breaker.opens_in_s(30.0) == 0.0


def test_a_good_probe_closes_it() -> None:
    """With a clean slate: as many failures as at first open it again."""
    watched = Watched()
    watched.open(0.0)
    watched.call(Outcome.SUCCESS, 30.0)
    assert watched.told == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
    watched.call(Outcome.FAILURE, 30.0)
    watched.call(Outcome.FAILURE, 30.0)
    assert watched.state() == "closed"


def test_a_bad_probe_opens_it_for_another_cooldown() -> None:
    """From when the probe failed, not from when it began."""
    watched = Watched()
    watched.open(0.0)
    turn = watched.breaker.enter()
    watched.breaker.settle(turn, Outcome.FAILURE, 40.0)
    assert watched.state() == "open"
    assert not watched.breaker.admits(69.999)
    assert watched.breaker.admits(70.0)


def test_a_cancelled_probe_makes_room_for_another_at_once() -> None:
    """It told nothing of the target, so the next call is the probe."""
    watched = Watched()
    watched.open(0.0)
    watched.call(Outcome.NOTHING, 30.0)
    assert watched.state() == "open"
    assert watched.breaker.admits(30.0)
    watched.call(Outcome.SUCCESS, 30.0)
    assert watched.state() == "closed"


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("now", ["open", "half_open", "closed"])
def test_a_late_result_moves_nothing(outcome: Outcome, now: State) -> None:
    """A call that began before the circuit opened ends after it: what it brings is old news."""
    watched = Watched()
    late = watched.breaker.enter()
    watched.open(0.0)
    if now != "open":
        probe = watched.breaker.enter()
        if now == "closed":
            watched.breaker.settle(probe, Outcome.SUCCESS, 30.0)
    told = len(watched.told)
    for _ in range(POLICY.threshold):
        watched.breaker.settle(late, outcome, 31.0)
    assert (watched.state(), len(watched.told)) == (now, told)


def test_the_transitions_are_pure() -> None:
    """A circuit is a value: the one before stays what it was."""
    circuit = Circuit()
    opened = circuit.settled(0, Outcome.FAILURE, BreakerPolicy(1, 1.0), 5.0)
    assert (circuit, opened.state, opened.probe_at_s) == (Circuit(), "open", 6.0)
    assert opened.entered().state == "half_open"
    assert opened.state == "open"


class Model:
    """What the breaker shall be, told in other words: a list of what has come in since the circuit last moved."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.period = 0  # a call counts only in the period in which it began
        self.in_a_row = 0
        self.probing = False
        self.open_until_s: float | None = None

    def admits(self, now_s: float) -> bool:
        """Whether a call may begin."""
        return self.open_until_s is None or (not self.probing and now_s >= self.open_until_s)

    def begin(self) -> int:
        """A call begins; the period it belongs to."""
        if self.open_until_s is not None:
            self.probing = True
            self.period += 1
        return self.period

    def end(self, period: int, outcome: Outcome, now_s: float) -> None:
        """A call ends."""
        if period != self.period:
            return
        if self.probing:
            self._probed(outcome, now_s)
        elif outcome is Outcome.SUCCESS:
            self.in_a_row = 0
        elif outcome is Outcome.FAILURE:
            self.in_a_row += 1
            if self.in_a_row == self.policy.threshold:
                self._open(now_s + self.policy.cooldown_s)

    def _probed(self, outcome: Outcome, now_s: float) -> None:
        if outcome is Outcome.SUCCESS:
            self.period, self.in_a_row, self.probing, self.open_until_s = self.period + 1, 0, False, None
        else:
            self._open(now_s + (self.policy.cooldown_s if outcome is Outcome.FAILURE else 0.0))

    def _open(self, until_s: float) -> None:
        self.period, self.in_a_row, self.probing, self.open_until_s = self.period + 1, 0, False, until_s


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 10.0, 40.0])),
        st.tuples(st.just("begin"), st.none()),
        st.tuples(st.just("end"), st.tuples(st.integers(0, 50), OUTCOMES)),
    ),
    max_size=120,
)


@settings(max_examples=400)
@given(STEPS, st.integers(1, 4))
def test_any_schedule_is_followed(steps: list[tuple[str, object]], threshold: int) -> None:
    """Under any order of beginnings, ends and time: what the model says, never two probes, and health closes it."""
    policy = BreakerPolicy(threshold, 10.0)
    watched, model = Watched(policy), Model(policy)
    under_way: list[tuple[int, int, bool]] = []  # the turn, the model's period, whether it is a probe
    now_s = 0.0
    for kind, detail in steps:
        if kind == "wait":
            assert isinstance(detail, float)
            now_s += detail
        elif kind == "begin" and watched.breaker.admits(now_s):
            probe = watched.state() != "closed"
            under_way.append((watched.breaker.enter(), model.begin(), probe))
        elif kind == "end" and under_way:
            assert isinstance(detail, tuple)
            turn, period, _ = under_way.pop(detail[0] % len(under_way))
            watched.breaker.settle(turn, detail[1], now_s)
            model.end(period, detail[1], now_s)
        probes = [probe for turn, _, probe in under_way if probe]
        assert len(probes) == (watched.state() == "half_open")
        assert watched.breaker.admits(now_s) == model.admits(now_s)
        assert (watched.state() == "closed") == (model.open_until_s is None)
    _get_well(watched, [turn for turn, _, _ in under_way], now_s)


def _get_well(watched: Watched, under_way: list[int], now_s: float) -> None:
    """All that is under way is called off; then one cooldown and one good call close the circuit, wherever it was."""
    for turn in under_way:
        watched.breaker.settle(turn, Outcome.NOTHING, now_s)
    wait_s = watched.breaker.opens_in_s(now_s)
    assert wait_s <= 10.0
    watched.call(Outcome.SUCCESS, math.nextafter(now_s + wait_s, math.inf))
    assert watched.state() == "closed"
    assert all(before != after for before, after in watched.told)
    assert all(one[1] == other[0] for one, other in zip(watched.told, watched.told[1:], strict=False))


def test_the_probes_first_content_closes_it_on_probation() -> None:
    """A long answer must not keep all others away; but its own failure, the next one in a row, opens it again."""
    watched = Watched()
    watched.open(0.0)
    turn = watched.breaker.promise(watched.breaker.enter())
    assert watched.state() == "closed"
    watched.breaker.settle(turn, Outcome.NOTHING, 35.0)
    assert watched.state() == "closed"
    watched.call(Outcome.FAILURE, 36.0)
    assert watched.state() == "open"


def test_a_whole_answer_ends_the_probation() -> None:
    """From then on it takes as many failures as at first."""
    watched = Watched()
    watched.open(0.0)
    watched.breaker.settle(watched.breaker.promise(watched.breaker.enter()), Outcome.SUCCESS, 35.0)
    watched.call(Outcome.FAILURE, 36.0)
    assert watched.state() == "closed"


def test_the_first_content_of_other_calls_moves_nothing() -> None:
    """Neither while the circuit is closed, nor when a call of an earlier turn begins to answer."""
    watched = Watched()
    early = watched.breaker.enter()
    assert watched.breaker.promise(early) == early
    watched.open(0.0)
    probe = watched.breaker.enter()
    assert watched.breaker.promise(early) == early
    assert (watched.state(), probe > early) == ("half_open", True)
