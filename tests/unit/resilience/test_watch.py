"""The watch over a stream: reaching a limit interrupts the wait for the provider, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from shared.errors import UpstreamTimeout
from shared.resilience.deadline import Deadline, Watch
from shared.settings import Limits
from tests.unit.scripted import NEVER, now_s, virtually

T = TypeVar("T")


@contextmanager
def watching(*, total: float = NEVER, first: float = NEVER, idle: float = NEVER) -> Iterator[Watch]:
    """A watch whose limits never come, but for those given."""
    watch = Watch(Limits(first_token_s=first, idle_s=idle), Deadline(now_s() + min(total, 1e5), total))
    try:
        yield watch
    finally:
        watch.close()


async def forever() -> None:
    """Never comes."""
    await asyncio.get_running_loop().create_future()


async def listened(watch: Watch, work: Awaitable[T], *, token: bool = False) -> T:
    """The result of waiting for the provider once, as a stream waits."""
    watch.listen()
    try:
        result = await work
    except BaseException as error:
        meant = watch.translated(error)
        if meant is error:
            raise
        raise meant from None
    watch.heard(token=token)
    return result


async def for_ever(watch: Watch, every_s: float, *, token: bool = False) -> None:
    """A provider that sends something all along."""
    while True:
        await listened(watch, asyncio.sleep(every_s), token=token)


def cancellations() -> int:
    """How many cancellations the current task has open."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@pytest.mark.parametrize(
    ("first", "total", "name"), [(3.0, 9.0, "first_token"), (9.0, 3.0, "total"), (3.0, 3.0, "total")]
)
@virtually
async def test_a_silent_provider_is_given_up(first: float, total: float, name: str) -> None:
    """A wait is interrupted at the limit that comes first, by its name, and the task is not left cancelled."""
    began_s = now_s()
    with watching(first=first, total=total) as watch, pytest.raises(UpstreamTimeout) as caught:
        await listened(watch, forever())
    assert caught.value.limit == name
    assert now_s() - began_s == 3.0
    assert cancellations() == 0


@virtually
async def test_silence_after_a_token_is_given_up() -> None:
    """After a token the idle limit counts and no longer the first token's, which was far away."""
    with watching(first=60.0, idle=2.0) as watch:
        await listened(watch, asyncio.sleep(1.0), token=True)
        heard_s = now_s()
        with pytest.raises(UpstreamTimeout) as caught:
            await listened(watch, forever())
    assert (caught.value.limit, now_s() - heard_s) == ("idle", 2.0)


@virtually
async def test_the_idle_limit_may_be_the_longer_one() -> None:
    """The first token's limit is over with the first token."""
    with watching(first=2.0, idle=60.0) as watch:
        await listened(watch, asyncio.sleep(1.0), token=True)
        await listened(watch, asyncio.sleep(59.0), token=True)
        with pytest.raises(UpstreamTimeout) as caught:
            await listened(watch, forever())
    assert caught.value.limit == "idle"


@virtually
async def test_tokens_are_no_help_against_the_total() -> None:
    """A target that took over late has only what is left of the request's time."""
    began_s = now_s()
    with watching(idle=2.0, total=10.0) as watch, pytest.raises(UpstreamTimeout) as caught:
        await for_ever(watch, 1.0, token=True)
    assert (caught.value.limit, now_s() - began_s) == ("total", 10.0)


@virtually
async def test_bytes_that_are_no_tokens_do_not_help() -> None:
    """Waits that end without a token leave the limit where it was, before the first one and after it."""
    began_s = now_s()
    with watching(first=5.0, idle=3.0) as watch:
        await listened(watch, asyncio.sleep(4.0), token=True)
        with pytest.raises(UpstreamTimeout) as caught:
            await for_ever(watch, 0.9)
    assert (caught.value.limit, now_s() - began_s) == ("idle", 7.0)
    with watching(first=5.0) as watch, pytest.raises(UpstreamTimeout) as caught:
        await for_ever(watch, 0.9)
    assert (caught.value.limit, now_s() - began_s) == ("first_token", 12.0)


@virtually
async def test_an_error_of_the_work_passes_through() -> None:
    """What goes wrong before any limit is raised as it is."""

    async def broken() -> None:
        raise ValueError("of the work")

    with watching() as watch, pytest.raises(ValueError, match="of the work"):
        await listened(watch, broken())


@virtually
async def test_the_work_is_cancelled_and_may_tidy_up() -> None:
    """The interrupted work gets its cancellation before the timeout is raised."""
    tidied = False

    async def work() -> None:
        nonlocal tidied
        try:
            await forever()
        finally:
            tidied = True

    with watching(first=1.0) as watch, pytest.raises(UpstreamTimeout):
        await listened(watch, work())
    assert tidied


@virtually
async def test_work_that_fails_while_it_is_interrupted_is_that_failure() -> None:
    """An error of the tidying up is not covered by the timeout, and the task is not left cancelled."""

    async def work() -> None:
        try:
            await forever()
        finally:
            raise ValueError("of the work")

    with watching(first=1.0) as watch, pytest.raises(ValueError, match="of the work"):
        await listened(watch, work())
    assert cancellations() == 0


@virtually
async def test_a_cancellation_from_outside_is_not_swallowed() -> None:
    """A caller that leaves cancels the task, and that is not a timeout."""

    async def stream() -> None:
        with watching(first=9.0) as watch:
            await listened(watch, forever())

    task = asyncio.create_task(stream())
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@virtually
async def test_a_cancellation_from_outside_wins_over_a_limit_at_the_same_moment() -> None:
    """When both come while the work is tidying up, the cancellation is what the task ends with."""

    async def stream() -> None:
        with watching(first=1.0) as watch:
            await listened(watch, stubborn())

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            task.cancel()  # the limit has just passed

    task = asyncio.create_task(stream())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@virtually
async def test_a_stream_may_change_the_task_that_listens() -> None:
    """Until the first token one task waits, after it another: whichever listens is interrupted, no other."""
    with watching(first=60.0, idle=2.0) as watch:
        await asyncio.create_task(listened(watch, asyncio.sleep(1.0), token=True))
        task = asyncio.create_task(listened(watch, forever()))
        with pytest.raises(UpstreamTimeout):
            await task
        assert cancellations() == 0
    with watching(first=1.0) as watch:
        task = asyncio.create_task(listened(watch, forever()))
        with pytest.raises(UpstreamTimeout):
            await task
    assert cancellations() == 0


@virtually
async def test_a_slow_reader_does_not_make_the_provider_silent() -> None:
    """Time between two waits is not the provider's: the next wait has its whole limit."""
    with watching(idle=2.0) as watch:
        await listened(watch, asyncio.sleep(0), token=True)
        await asyncio.sleep(50.0)  # a slow caller is being written to
        await listened(watch, asyncio.sleep(1.9), token=True)
    assert cancellations() == 0


@virtually
async def test_a_slow_reader_of_chunks_without_tokens_does_not_either() -> None:
    """Only what the provider was waited for counts: one second before such a chunk, and one behind it."""
    with watching(idle=2.0) as watch:
        await listened(watch, asyncio.sleep(0), token=True)
        await listened(watch, asyncio.sleep(1.0))
        await asyncio.sleep(50.0)
        waited_s = now_s()
        with pytest.raises(UpstreamTimeout) as caught:
            await listened(watch, forever())
    assert (caught.value.limit, now_s() - waited_s) == ("idle", 1.0)


@virtually
async def test_a_limit_that_passes_while_nobody_waits_interrupts_the_next_wait() -> None:
    """The reader is never interrupted in its own work; the total is reached as soon as it waits again."""
    began_s = now_s()
    with watching(total=1.0) as watch:
        await asyncio.sleep(5.0)
        with pytest.raises(UpstreamTimeout) as caught:
            await listened(watch, forever())
    assert caught.value.limit == "total"
    assert now_s() - began_s <= 5.2


@virtually
async def test_a_watch_that_is_over_interrupts_nobody() -> None:
    """Its timer ends with it."""
    with watching(first=1.0) as watch:
        watch.listen()
    await asyncio.sleep(50.0)  # a timer that was left would interrupt this
    assert cancellations() == 0


@virtually
async def test_a_token_costs_no_timer() -> None:
    """A stream of a thousand tokens arms its one timer a few times, not a thousand."""
    loop = asyncio.get_running_loop()
    armed: list[float] = []

    class Counting(Watch):
        def _arm(self) -> None:
            armed.append(loop.time())
            super()._arm()

    watch = Counting(Limits(first_token_s=30.0, idle_s=15.0), Deadline(now_s() + 120.0, 120.0))
    for _ in range(1000):
        await listened(watch, asyncio.sleep(0.01), token=True)
    watch.close()
    assert len(armed) <= 4
