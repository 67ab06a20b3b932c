"""The count of what is under way: full exactly at its limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.resilience.shedding import Load


@given(st.integers(1, 20), st.lists(st.booleans(), max_size=80))
def test_it_is_full_exactly_at_its_limit(limit: int, comings: list[bool]) -> None:
    """However they come and go, and who leaves makes room at once."""
    load, here = Load(limit), 0
    for comes in comings:
        if comes and not load.full:
            load.enter()
            here += 1
        elif not comes and here:
            load.leave()
            here -= 1
        assert (load.under_way, load.full) == (here, here == limit)


def test_without_a_limit_it_is_never_full() -> None:
    """But it counts all the same."""
    load = Load(None)
    for _ in range(1000):
        load.enter()
    assert (load.full, load.under_way) == (False, 1000)


def test_a_limit_of_none_at_all_is_always_full() -> None:
    """Zero is a limit."""
    assert Load(0).full
