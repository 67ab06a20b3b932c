"""The sixteen scenarios of Failover Bench, each with limits of tenths of a second."""

from __future__ import annotations

from functools import partial

import pytest

from tests.ways import Way

from . import refusals, several, streams  # noqa: F401 (each enters its scenarios)
from .cases import CASES, SMALL, Case
from .stand import standing, together


@pytest.mark.parametrize("number", range(1, 17))
async def test_the_scenario_is_held(number: int) -> None:
    """What the caller gets and what the upstreams saw are as the table says, in every way there is to ask."""

    async def play(case: Case, way: Way) -> None:
        async with standing(way, keys=SMALL.keys) as stand:
            await case.play(stand, SMALL)

    cases = [case for case in CASES if number_of(case) == number]
    assert cases, "no scenario can be dropped unseen"
    await together({f"{case.number} {way}": partial(play, case, way) for case in cases for way in case.ways})


def number_of(case: Case) -> int:
    """Its number among the sixteen, without the letter of the variant."""
    return int(case.number.rstrip("abc"))
