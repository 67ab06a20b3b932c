"""The same question to several at once: the first result wins, and the others are cancelled at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

from shared.errors import ContentFilter, EchoBrainError, InternalError, Retry

T = TypeVar("T")


class Patience(Protocol):
    """When to start another run beside those that have brought nothing yet."""

    def wait_s(self) -> float | None:
        """How long from now until the next may start, in seconds; None when none will."""
        ...

    def start_another(self) -> bool:
        """The time has come: whether to start it."""
        ...


async def first_of(
    run: Callable[[], Coroutine[Any, Any, T]], patience: Patience, discard: Callable[[T], Awaitable[None]]
) -> T:
    """The first result of `run()` and of those started beside it; the last failure when all of them fail.

    A refusal of the content ends all. Cancelling cancels all. Nobody waits until the others have
    closed; a result of theirs that came too late is given to `discard`.
    """
    race = _Race(run, discard)
    failures: list[BaseException | None] = []
    running = {race.start()}
    try:
        while True:
            done, _ = await asyncio.wait(running, timeout=patience.wait_s(), return_when=asyncio.FIRST_COMPLETED)
            if race.winner is not None:
                return race.winner.result()
            running -= done
            failures = sorted([*failures, *(task.exception() for task in done)], key=_weight)
            if failures and (not running or _weight(failures[-1]) == _ENDS_ALL):
                raise failures[-1] or InternalError()
            if not done and patience.start_another():
                running.add(race.start())
    except asyncio.CancelledError:
        race.leave(running)  # now, not only when the winner has closed
        running.clear()
        if race.winner is not None:
            await discard(race.winner.result())
        raise
    finally:
        race.leave(running)


_ENDS_ALL: Final = 2


def _weight(failure: BaseException | None) -> int:
    """Which of several failures is told, and which is not waited for: what one target finds wrong with a request may be
    right for another that is already at it, but content that one refuses is not taken to another."""
    if not isinstance(failure, EchoBrainError) or isinstance(failure, ContentFilter):
        return _ENDS_ALL
    return 1 if failure.retry is Retry.NOWHERE else 0


class _Race(Generic[T]):
    """The runs of one question; whichever ends first with a result is the winner."""

    def __init__(self, run: Callable[[], Coroutine[Any, Any, T]], discard: Callable[[T], Awaitable[None]]) -> None:
        self._run = run
        self._discard = discard
        self.winner: asyncio.Task[T] | None = None
        self._over = False

    def start(self) -> asyncio.Task[T]:
        """One more run."""
        return asyncio.create_task(self._take_part())

    def leave(self, running: set[asyncio.Task[T]]) -> None:
        """Cancels all but the winner; they close in their own time."""
        self._over = True
        for task in running - {self.winner}:
            task.cancel()
            _leaving.add(task)
            task.add_done_callback(_left)

    async def _take_part(self) -> T:
        result = await self._run()
        if self.winner is None and not self._over:
            self.winner = asyncio.current_task()
        else:
            await self._discard(result)
        return result


_leaving: Final[set[asyncio.Task[Any]]] = set()  # the loop itself holds tasks only weakly


def _left(task: asyncio.Task[Any]) -> None:
    _leaving.discard(task)
    if not task.cancelled():
        task.exception()  # of no interest: the question has been answered
