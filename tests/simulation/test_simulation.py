"""A thousand random schedules, each ending as promised; a failing one names the command that replays it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from shared.errors import Overloaded
from tests.simulation.ending import played
from tests.simulation.world import World

BATCH = 50


@pytest.mark.parametrize("first", range(0, 1000, BATCH))
def test_every_schedule_ends_as_promised(first: int) -> None:
    """Each request ends exactly once, as its providers and the promises say, and nothing is left of it."""
    failed = {
        f"python -m tests.simulation {seed}": violations
        for seed in range(first, first + BATCH)
        if (violations := played(seed).violations)
    }
    assert not failed


def test_schedules_have_everything_in_them() -> None:
    """Within a few dozen seeds, requests end in every way there is, and all that may happen on the way happens."""
    seen = sum((_seen(played(seed)) for seed in range(60)), Counter[str]())
    rare = {name: times for name, times in seen.items() if times < 5}
    assert not rare
    assert set(seen) >= {"whole", "error", "left", "bug", "shed", "continued", "raced", "retried", "opened", "probed"}


def _seen(world: World) -> Counter[str]:
    callers = world.callers
    seen = Counter[str](caller.outcomes[0] for caller in callers)
    seen["shed"] = sum(isinstance(caller.error, Overloaded) for caller in callers)
    seen["continued"] = sum(bool(caller.exchange.continued_by) for caller in callers)
    seen["raced"] = sum("decision=hedge" in line for _, line in world.log)
    seen["retried"] = sum("decision=retry" in line for _, line in world.log)
    states = [state for moves in world.moved.values() for _, state in moves]
    seen["opened"], seen["probed"] = states.count("open"), states.count("half_open")
    return seen


def test_a_seed_replays_in_another_process() -> None:
    """The same seed is the same schedule to the last turn, whatever the process hashes by."""
    one, other = (_log(hash_seed) for hash_seed in ("1", "2"))
    assert len(one.splitlines()) > 100
    assert one == other


def _log(hash_seed: str) -> str:
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "tests.simulation", "11"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
