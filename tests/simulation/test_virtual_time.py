"""The loop that the simulation runs on: its clock jumps, and what would hang or leak elsewhere is told."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import time
from collections.abc import AsyncGenerator

import pytest

from tests.simulation.virtual_time import START_S, NumberedTask, Stuck, VirtualLoop, run, turn


def test_sleeping_takes_virtual_time_only() -> None:
    """A day passes on the loop's clock, exactly, and none on the wall's."""
    started_s = time.monotonic()
    assert run(_slept(86_400.0)) == START_S + 86_400.0
    assert time.monotonic() - started_s < 3600.0


async def _slept(length_s: float) -> float:
    await asyncio.sleep(length_s)
    return asyncio.get_running_loop().time()


def test_time_stands_still_while_there_is_something_to_do() -> None:
    """A hundred turns of the loop are one moment."""

    async def busy() -> tuple[float, int]:
        loop, before = asyncio.get_running_loop(), turn()
        asyncio.get_running_loop().call_later(1.0, lambda: None)
        for _ in range(100):
            await asyncio.sleep(0)
        return loop.time(), turn() - before

    assert run(busy()) == (START_S, 100)


def test_timers_fire_in_their_order() -> None:
    """What is set for an earlier time comes first, wherever it was set."""
    order: list[float] = []

    async def sleeper(length_s: float) -> None:
        await asyncio.sleep(length_s)
        order.append(length_s)

    async def main() -> None:
        await asyncio.gather(*(sleeper(length_s) for length_s in (3.0, 0.5, 2.0, 1.0)))

    run(main())
    assert order == [0.5, 1.0, 2.0, 3.0]


def test_a_loop_without_timers_is_stuck() -> None:
    """A future that nobody ever sets would hang a real loop; here the waiting tasks are named."""

    async def forgotten() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck, match=r"nothing is ready.*forgotten"):
        run(forgotten())


def test_a_loop_past_its_limit_is_stuck() -> None:
    """Work that goes on and on by timers comes to an end, too."""

    async def ticking() -> None:
        for _ in itertools.count():
            await asyncio.sleep(1.0)

    with pytest.raises(Stuck, match="not done at"):
        run(ticking(), VirtualLoop(limit_s=100.0))


def test_a_loop_that_spins_is_stuck() -> None:
    """Work that goes on and on without a timer is found out by its turns."""

    async def spinning() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="without a step of the clock"):
        run(spinning())


def test_timers_that_are_left_are_listed() -> None:
    """Those that were cancelled are not."""
    loop = VirtualLoop()

    async def main() -> list[str]:
        loop.call_later(5.0, lambda: None).cancel()
        loop.call_later(6.0, print)
        return loop.timers()

    (left,) = run(main(), loop)
    assert "print" in left


def test_what_nobody_hears_of_is_complained_of() -> None:
    """An exception that nobody fetches ends among the complaints."""
    loop = VirtualLoop()

    async def failing() -> None:
        raise ValueError("lost")

    async def main() -> None:
        task = asyncio.create_task(failing())
        await asyncio.sleep(1.0)
        del task
        gc.collect()

    run(main(), loop)
    assert ["lost" in complaint for complaint in loop.complaints] == [True]


def test_a_generator_that_nobody_closes_is_complained_of() -> None:
    """A stream that is dropped half-way would leave its connection to the garbage collector."""
    loop = VirtualLoop()

    async def numbers() -> AsyncGenerator[int]:
        yield 1
        yield 2

    async def main() -> None:
        sys.set_asyncgen_hooks(finalizer=loop.never_closed)
        await anext(numbers())
        gc.collect()

    run(main(), loop)
    assert ["numbers" in complaint for complaint in loop.complaints] == [True]


def test_tasks_hash_by_their_number() -> None:
    """Sets of tasks are walked in the same order in every process."""

    async def main() -> list[int]:
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(20)]
        await asyncio.gather(*tasks)
        assert all(isinstance(task, NumberedTask) for task in tasks)
        return [hash(task) for task in tasks]

    hashes = run(main())
    assert hashes == list(range(hashes[0], hashes[0] + 20))
