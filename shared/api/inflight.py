"""Requests under way: they end early when their caller leaves or the process is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

from starlette.types import Receive

from shared.errors import ClientClosedRequest, EchoBrainError, Overloaded

ANSWER_GRACE_S: Final = 4.0  # how long answers that are not streamed may still take after SIGTERM
EXIT_LIMIT_S: Final = 6.0  # Cloud Run kills at 10 s; a caller that reads nothing must not hold the process until then


class Inflight:
    """One request under way; `with` it, the current task may be interrupted once, with a reason that is then raised."""

    def __init__(self, drain: Drain, *, stream: bool) -> None:
        self._drain = drain
        self._task = asyncio.current_task()
        self._reason: EchoBrainError | None = None
        self.stream = stream

    def interrupt(self, reason: EchoBrainError) -> None:
        """Cancels what the request waits for; `reason` takes the place of the cancellation."""
        if self._reason is None and self._task is not None:
            self._reason = reason
            self._task.cancel()

    def __enter__(self) -> Self:
        self._drain.enter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._drain.leave(self)
        task, self._task = self._task, None  # from here on there is nothing to interrupt
        if self._reason is not None and task is not None and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise self._reason from None


class Drain:
    """The requests under way in this process, and how they end when it is told to stop."""

    def __init__(self) -> None:
        self.stopping = False
        self._under_way: set[Inflight] = set()
        self._installed = False

    def enter(self, inflight: Inflight) -> None:
        """Takes a request in; raises `Overloaded` once the process is stopping."""
        if self.stopping:
            raise Overloaded
        self._under_way.add(inflight)

    def leave(self, inflight: Inflight) -> None:
        """The request is over."""
        self._under_way.discard(inflight)

    def listen(self) -> None:
        """Puts `stop` in front of the server's own signal handlers; the server sets them only when it serves."""
        if self._installed:
            return
        self._installed = True
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not the main thread: an embedded server, stopped by its owner
                signal.signal(number, self._before(signal.getsignal(number), loop))

    def _before(
        self, server_handler: Callable[[int, FrameType | None], Any] | int | None, loop: asyncio.AbstractEventLoop
    ) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.stop)
            if callable(server_handler):
                server_handler(number, frame)

        return handle

    def stop(self) -> None:
        """No new work; streams end now, answers soon, the process in any case."""
        self.stopping = True
        loop = asyncio.get_running_loop()
        self._interrupt(streams_only=True)
        loop.call_later(ANSWER_GRACE_S, self._interrupt)
        loop.call_later(EXIT_LIMIT_S, os._exit, 0)

    def _interrupt(self, *, streams_only: bool = False) -> None:
        for inflight in list(self._under_way):
            if inflight.stream or not streams_only:
                inflight.interrupt(Overloaded())


async def interrupt_when_gone(receive: Receive, inflight: Inflight) -> None:
    """Waits for the caller to leave; the body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    inflight.interrupt(ClientClosedRequest())
