"""An event loop whose time is virtual: it never waits, but moves its clock to the next timer. It has no sockets."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T")

START_S: Final = 1000.0
MOST_TURNS: Final = 100_000  # of the loop without a step of the clock


class Stuck(RuntimeError):
    """The loop would never come to an end."""


class NumberedTask(asyncio.Task[Any]):
    """A task that hashes by its number: sets of tasks are walked in the same order in every process."""

    _numbers: Iterator[int] = itertools.count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(self._numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.BaseEventLoop):
    """Time passes only where nothing is left to do at the present; `complaints` are what asyncio would have warned of.

    Where there is no timer either, or none ends before `limit_s` seconds have passed, `Stuck` is raised.
    """

    _scheduled: list[asyncio.TimerHandle]  # asyncio's own heap

    def __init__(self, limit_s: float = 1e6) -> None:
        super().__init__()
        self.complaints: list[str] = []
        self._now_s = START_S
        self._end_s = START_S + limit_s
        self._turns = 0  # since the clock moved
        self.turn = 0  # of all
        self._selector = self  # what asyncio asks to wait for sockets, or for the next timer
        self.set_task_factory(lambda loop, coro, **more: NumberedTask(coro, loop=loop, **more))
        self.set_exception_handler(lambda _, context: self.complaints.append(_complaint(context)))

    def time(self) -> float:
        """Seconds on the virtual clock."""
        return self._now_s

    def select(self, timeout: float | None) -> Sequence[Any]:
        """Lets `timeout` seconds pass at once."""
        self.turn += 1
        if timeout is None:
            raise Stuck(f"nothing is ready and no timer is set; waiting: {self._waiting()}")
        self._turns = 0 if timeout else self._turns + 1
        if self._turns > MOST_TURNS:
            raise Stuck(f"{MOST_TURNS} turns without a step of the clock; waiting: {self._waiting()}")
        self._now_s += timeout
        if self._now_s > self._end_s:
            raise Stuck(f"not done at {self._now_s:g} s; waiting: {self._waiting()}")
        return ()

    def timers(self) -> list[str]:
        """The timers that are still set."""
        return [repr(handle) for handle in self._scheduled if not handle.cancelled()]

    def never_closed(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Takes note of an asynchronous generator that was collected while it was still open."""
        self.complaints.append(f"never closed: {getattr(generator, '__qualname__', generator)}")

    def _process_events(self, events: Sequence[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""

    def _waiting(self) -> list[str]:
        return sorted(str(task.get_coro()) for task in asyncio.all_tasks(self))


def run(main: Coroutine[Any, Any, T], loop: VirtualLoop | None = None) -> T:
    """What `main` returns; raises `Stuck` where it never would."""
    loop = loop or VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        _abandon(loop)
        loop.close()


def turn() -> int:
    """The number of the running loop's turn: what happens in the same one happens together. 0 on another loop."""
    return getattr(asyncio.get_running_loop(), "turn", 0)


def _abandon(loop: VirtualLoop) -> None:
    """Nothing of a loop that got stuck is heard of later."""
    for task in asyncio.all_tasks(loop):
        task.cancel()
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it has been told already


def _complaint(context: dict[str, Any]) -> str:
    return f"{context['message']}: {context.get('exception')!r}"
