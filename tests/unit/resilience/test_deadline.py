"""The limits of a stream: which comes next, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.resilience.deadline import Deadline, StreamDeadline
from shared.settings import Limits

LIMITS = Limits(first_token_s=30.0, idle_s=15.0)
TOTAL = Deadline(1120.0, 120.0)


def next_of(deadline: StreamDeadline) -> tuple[float, str]:
    """When the next limit comes, and which it is."""
    at_s, timeout = deadline.next_limit()
    return at_s, timeout.limit


def test_before_the_first_token_its_own_limit_counts() -> None:
    """The first token has its own limit from the start of the stream, which may be later than that of the request."""
    assert next_of(StreamDeadline(LIMITS, 1000.0, TOTAL)) == (1030.0, "first_token")
    assert next_of(StreamDeadline(LIMITS, 1050.0, TOTAL)) == (1080.0, "first_token")


def test_after_a_token_silence_counts() -> None:
    """Each token lets the silence begin anew."""
    deadline = StreamDeadline(LIMITS, 1000.0, TOTAL)
    deadline.last_token_s = 1020.0
    assert next_of(deadline) == (1035.0, "idle")
    deadline.last_token_s = 1034.0
    assert next_of(deadline) == (1049.0, "idle")


def test_the_total_is_never_reset() -> None:
    """However the tokens come, and at whichever target they began, the total stays where it was."""
    deadline = StreamDeadline(LIMITS, 1000.0, TOTAL)
    deadline.last_token_s = 1110.0
    assert next_of(deadline) == (1120.0, "total")
    assert next_of(StreamDeadline(LIMITS, 1100.0, TOTAL)) == (1120.0, "total")


@pytest.mark.parametrize(("last_token_s", "after"), [(None, "30 s"), (1001.0, "15 s"), (1119.0, "120 s")])
def test_the_message_tells_after_how_long(last_token_s: float | None, after: str) -> None:
    """The limit's own seconds, not those of another."""
    deadline = StreamDeadline(LIMITS, 1000.0, TOTAL)
    deadline.last_token_s = last_token_s
    assert after in deadline.next_limit()[1].message


SECONDS = st.floats(min_value=0.001, max_value=1000.0)


@given(SECONDS, SECONDS, SECONDS, st.lists(SECONDS, max_size=12))
def test_the_next_limit_is_never_later_than_the_total(
    total_s: float, first_s: float, idle_s: float, steps: list[float]
) -> None:
    """Whatever happens, a limit comes at the latest at the total, and its name says which it was."""
    now_s = 5000.0
    total = Deadline(now_s + total_s, total_s)
    deadline = StreamDeadline(Limits(first_token_s=first_s, idle_s=idle_s), now_s, total)
    assert next_of(deadline)[0] <= total.at_s
    for length_s in steps:
        now_s += length_s
        deadline.last_token_s = now_s
        at_s, name = next_of(deadline)
        assert at_s <= total.at_s
        assert name == "total" or at_s < total.at_s
        assert name != "first_token"
