"""`python -m tests.simulation SEED` prints one schedule's log; `--seeds FROM:TO` plays many and prints the failing."""

from __future__ import annotations

import argparse
import gc
import sys
import time

from tests.simulation.ending import played
from tests.simulation.world import World


def main() -> int:
    """The number of seeds that failed, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--seeds", metavar="FROM:TO", default="0:1000")
    given = parser.parse_args()
    if given.seed is not None:
        return _show(played(given.seed))
    gc.freeze()  # every schedule ends with a collection, which need not look at the modules
    first, last = (int(part) for part in given.seeds.split(":"))
    started_s, failed = time.monotonic(), 0
    for seed in range(first, last):
        if violations := played(seed).violations:
            failed += 1
            print(f"seed {seed}: {violations[0]} ({len(violations)} in all)", flush=True)
    print(f"{last - first} schedules in {time.monotonic() - started_s:.0f} s, {failed} failed")
    return bool(failed)


def _show(world: World) -> int:
    for provider in world.schedule.serving.providers:
        print(provider)
    for name, route in world.schedule.serving.routes.items():
        print(name, route)
    for at_s, line in world.log:
        print(f"{at_s:10.4f}  {line}")
    for violation in world.violations:
        print(f"VIOLATED: {violation}")
    return bool(world.violations)


if __name__ == "__main__":
    sys.exit(main())
