"""The limits of a stream: which comes next, and that reaching one interrupts the wait and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UpstreamTimeout
from shared.resilience.deadline import StreamDeadline, Watch
from shared.settings import Limits

T = TypeVar("T")

LIMITS = Limits(streaming_s=120.0, first_token_s=30.0, idle_s=15.0)
LONG_S = 60.0
SHORT_S = 0.02


def limits(*, total: float = LONG_S, first: float = LONG_S, idle: float = LONG_S) -> Limits:
    """Limits that never come, but for those given."""
    return Limits(streaming_s=total, first_token_s=first, idle_s=idle)


def next_of(deadline: StreamDeadline) -> tuple[float, str]:
    """When the next limit comes, and which it is."""
    at_s, timeout = deadline.next_limit()
    return at_s, timeout.limit


def test_before_the_first_token_its_own_limit_counts() -> None:
    """The first token has its own limit from the start."""
    assert next_of(StreamDeadline(LIMITS, 1000.0)) == (1030.0, "first_token")


def test_after_a_token_silence_counts() -> None:
    """Each token lets the silence begin anew."""
    deadline = StreamDeadline(LIMITS, 1000.0)
    deadline.last_token_s = 1020.0
    assert next_of(deadline) == (1035.0, "idle")
    deadline.last_token_s = 1034.0
    assert next_of(deadline) == (1049.0, "idle")


def test_the_total_is_never_reset() -> None:
    """However the tokens come, the total counts from the start."""
    deadline = StreamDeadline(LIMITS, 1000.0)
    deadline.last_token_s = 1110.0
    assert next_of(deadline) == (1120.0, "total")


SECONDS = st.floats(min_value=0.001, max_value=1000.0)


@given(SECONDS, SECONDS, SECONDS, st.lists(SECONDS, max_size=12))
def test_the_next_limit_is_never_later_than_the_total(
    total_s: float, first_s: float, idle_s: float, steps: list[float]
) -> None:
    """Whatever happens, a limit comes at the latest at the total, and its name says which it was."""
    started_s = now_s = 5000.0
    deadline = StreamDeadline(limits(total=total_s, first=first_s, idle=idle_s), started_s)
    assert next_of(deadline)[0] <= started_s + total_s
    for length_s in steps:
        now_s += length_s
        deadline.last_token_s = now_s
        at_s, name = next_of(deadline)
        assert at_s <= started_s + total_s
        assert name == "total" or at_s < started_s + total_s
        assert name != "first_token"


async def forever() -> None:
    """Never comes."""
    await asyncio.Event().wait()


async def listened(watch: Watch, work: Awaitable[T], *, token: bool = False) -> T:
    """The result of waiting for the provider once."""
    watch.listen()
    result = await work
    watch.heard(token=token)
    return result


def cancellations() -> int:
    """How many cancellations the current task has open."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@pytest.mark.parametrize(
    ("of", "name"), [(limits(first=SHORT_S), "first_token"), (limits(total=SHORT_S), "total")], ids=["first", "total"]
)
async def test_a_silent_provider_is_given_up(of: Limits, name: str) -> None:
    """A wait past a limit is interrupted with the limit's name, and the task is not left cancelled."""
    with pytest.raises(UpstreamTimeout) as caught, Watch(of) as watch:
        await listened(watch, forever())
    assert caught.value.limit == name
    assert cancellations() == 0
    await asyncio.sleep(0)


async def test_silence_after_a_token_is_given_up() -> None:
    """After a token the idle limit counts and no longer the first token's, which was far away."""

    async def stream() -> None:
        with Watch(limits(first=LONG_S, idle=SHORT_S)) as watch:
            await listened(watch, asyncio.sleep(0), token=True)
            await listened(watch, forever())

    with pytest.raises(UpstreamTimeout) as caught:
        await stream()
    assert caught.value.limit == "idle"


async def test_bytes_that_are_no_tokens_do_not_help() -> None:
    """Waits that end without a token leave the limit where it was."""

    async def stream() -> None:
        with Watch(limits(first=SHORT_S)) as watch:
            while True:
                await listened(watch, asyncio.sleep(0.001))

    with pytest.raises(UpstreamTimeout) as caught:
        await stream()
    assert caught.value.limit == "first_token"


async def test_an_error_of_the_work_passes_through() -> None:
    """What goes wrong before any limit is raised as it is."""

    async def broken() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"), Watch(limits()) as watch:
        await listened(watch, broken())


async def test_the_work_is_cancelled_and_may_tidy_up() -> None:
    """The interrupted work gets its cancellation before the timeout is raised."""
    tidied = False

    async def work() -> None:
        nonlocal tidied
        try:
            await forever()
        finally:
            tidied = True

    with pytest.raises(UpstreamTimeout), Watch(limits(first=SHORT_S)) as watch:
        await listened(watch, work())
    assert tidied


async def test_work_that_fails_while_it_is_interrupted_is_that_failure() -> None:
    """An error of the tidying up is not covered by the timeout, and the task is not left cancelled."""

    async def work() -> None:
        try:
            await forever()
        finally:
            raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"), Watch(limits(first=SHORT_S)) as watch:
        await listened(watch, work())
    assert cancellations() == 0


async def test_a_cancellation_from_outside_is_not_swallowed() -> None:
    """A caller that leaves cancels the task, and that is not a timeout."""
    waiting = asyncio.Event()

    async def stream() -> None:
        with Watch(limits()) as watch:
            waiting.set()
            await listened(watch, forever())

    task = asyncio.create_task(stream())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_cancellation_from_outside_wins_over_a_limit_at_the_same_moment() -> None:
    """When both come while the work is tidying up, the cancellation is what the task ends with."""

    async def stream() -> None:
        with Watch(limits(first=SHORT_S)) as watch:
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


async def test_a_stream_may_change_the_task_that_listens() -> None:
    """The task that listens is interrupted, not the one in which the stream began."""
    with Watch(limits(first=SHORT_S)) as watch:
        task = asyncio.create_task(listened(watch, forever()))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert task.cancelled()
    assert cancellations() == 0


async def test_a_slow_reader_does_not_make_the_provider_silent() -> None:
    """Time between two waits is not the provider's: the next wait has its whole limit."""
    with Watch(limits(idle=0.5)) as watch:
        await listened(watch, asyncio.sleep(0), token=True)
        await asyncio.sleep(0.7)  # a slow caller is being written to
        await listened(watch, asyncio.sleep(0.05), token=True)
    assert cancellations() == 0


async def test_a_limit_that_passes_while_nobody_waits_interrupts_the_next_wait() -> None:
    """The reader is never interrupted in its own work; the total is reached as soon as it waits again."""

    async def stream() -> None:
        with Watch(limits(total=SHORT_S)) as watch:
            await asyncio.sleep(5 * SHORT_S)
            await listened(watch, forever())

    with pytest.raises(UpstreamTimeout) as caught:
        await stream()
    assert caught.value.limit == "total"


async def test_a_watch_that_is_over_interrupts_nobody() -> None:
    """Its timer ends with it."""
    with Watch(limits(first=SHORT_S)) as watch:
        watch.listen()
    await asyncio.sleep(5 * SHORT_S)  # a timer that was left would interrupt this
    assert cancellations() == 0
