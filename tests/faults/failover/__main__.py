"""`make faults`: the sixteen scenarios of Failover Bench against the gateway as a process, at their real durations.

Each is played in every way there is to ask (two dialects, streamed or not), each time with a fresh gateway and three
fresh upstreams. `python -m tests.faults.failover 6 7b` plays only those that begin so.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from tests.ways import WAYS, Way

from . import refusals, several, streams  # noqa: F401 (each enters its scenarios)
from .cases import CASES, REAL, Case
from .stand import Json, Running, as_process, standing

AT_ONCE: Final = 24  # gateways under way together; the long ones begin first
STARTING: Final = 2
LIMIT_S: Final = 120.0
LONG: Final = ("15", "6", "9", "7", "2", "4")


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table."""

    case: Case
    way: Way
    held: bool
    seen: str


class Rooms:
    """How many gateways may be under way, and how many may start, so that none is slow because of the others."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(AT_ONCE)
        self._start = asyncio.Semaphore(STARTING)

    async def play(self, case: Case, way: Way) -> Result:
        """Plays one scenario in one way."""
        attempts = ""
        async with self._room:
            try:
                async with standing(way, self._open, limit_s=LIMIT_S) as stand:
                    try:
                        return Result(case, way, True, await case.play(stand, REAL))
                    finally:
                        attempts = f"attempts {stand.counts()}"
            except Exception as error:  # noqa: BLE001 - whatever it was, this play has failed and the others go on
                return Result(case, way, False, f"{type(error).__name__}: {error} · {attempts}")

    @contextlib.asynccontextmanager
    async def _open(self, config: Json, key: str) -> AsyncIterator[Running]:
        async with contextlib.AsyncExitStack() as stack:
            async with self._start:
                running = await stack.enter_async_context(as_process(config, key))
            yield running


async def main(chosen: list[str]) -> int:
    """Plays all, prints the table; the number of those that failed."""
    rooms, begun = Rooms(), time.monotonic()
    cases = [case for case in CASES if not chosen or case.number.startswith(tuple(chosen))]
    longest_first = sorted(cases, key=lambda case: not case.number.startswith(LONG))
    tasks = [asyncio.create_task(rooms.play(case, way)) for case in longest_first for way in case.ways]
    results = [await task for task in tasks]
    for case in sorted(cases, key=_order):
        _print_case(case, [result for result in results if result.case is case])
    failed = sum(not result.held for result in results)
    numbers = {_order(case)[0] for case in cases}
    broken = {_order(result.case)[0] for result in results if not result.held}
    print(
        f"\n{len(numbers - broken)} of {len(numbers)} scenarios held; {len(results)} plays, {failed} failed, ", end=""
    )
    print(f"{time.monotonic() - begun:.0f} s")
    return failed


def _print_case(case: Case, results: list[Result]) -> None:
    print(f"\n{case.number:>3}  {case.title}\n     expected: {case.expected}")
    for result in results:
        print(f"     {'held  ' if result.held else 'FAILED'}  {result.way!s:<13}  {result.seen}")
    if rest := [str(way) for way in WAYS if way not in case.ways]:
        print(f"     n/a     {', '.join(rest)}: {case.why_not}")


def _order(case: Case) -> tuple[int, str]:
    digits = case.number.rstrip("abc")
    return int(digits), case.number[len(digits) :]


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main(sys.argv[1:])) else 0)
