"""The limits of one streamed answer: first token, silence, total. Absolute; bytes alone do not reset them."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from shared.errors import UpstreamTimeout
from shared.settings import Limits


class StreamDeadline:
    """Which limit of a stream comes next, and when. Pure: every time (s, monotonic) is given.

    `last_token_s` is when the last token had been dealt with, None before the first.
    """

    __slots__ = ("_limits", "_started_s", "last_token_s")

    def __init__(self, limits: Limits, now_s: float) -> None:
        self._limits = limits
        self._started_s = now_s
        self.last_token_s: float | None = None

    def next_limit(self) -> tuple[float, UpstreamTimeout]:
        """The time (s, monotonic) of the limit that comes first, and what it means to reach it."""
        limits = self._limits
        if self.last_token_s is None:
            silence_s, timeout = self._started_s + limits.first_token_s, ("first_token", limits.first_token_s)
        else:
            silence_s, timeout = self.last_token_s + limits.idle_s, ("idle", limits.idle_s)
        total_s = self._started_s + limits.streaming_s
        if total_s <= silence_s:
            return total_s, UpstreamTimeout("total", limits.streaming_s)
        return silence_s, UpstreamTimeout(*timeout)


class Watch:
    """Interrupts the task that listens to a stream past its deadline: `with` it, `UpstreamTimeout` is raised.

    Between `listen` and `heard` a task waits for the provider; only then is it interrupted. The provider's silence
    counts from the first `listen` after a token: not while a slow client is being written to. One timer a stream, armed
    anew only when it fires early, so that a token costs no timer. A stream may change hands until its first token.
    """

    def __init__(self, limits: Limits) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = StreamDeadline(limits, self._loop.time())
        self._task: asyncio.Task[Any] | None = None
        self._listening = False
        self._token = False  # one has been heard since the last `listen`
        self._settled = False  # the first token has been dealt with: the task stays, the idle limit counts
        self._reached: UpstreamTimeout | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._arm()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._disarm()
        if self._reached is None or self._task is None:
            return
        if self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise self._reached from None

    def listen(self) -> None:
        """The current task waits for the provider from now on."""
        if self._token:
            self._token = False
            self._deadline.last_token_s = self._loop.time()
        if not self._settled:
            self._settle()
        self._listening = True

    def heard(self, *, token: bool) -> None:
        """The provider has sent something; a token makes its silence count anew."""
        self._listening = False
        if token:
            self._token = True

    def _settle(self) -> None:
        self._task = asyncio.current_task()
        if self._deadline.last_token_s is not None:
            self._settled = True
            self._disarm()  # the only time that a limit may come nearer: from now on it is the idle one
            self._arm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        at_s, _ = self._deadline.next_limit()
        self._timer = self._loop.call_at(at_s, self._check)

    def _check(self) -> None:
        at_s, timeout = self._deadline.next_limit()
        if self._loop.time() < at_s:
            self._arm()
        elif self._listening and self._task is not None:
            self._reached = timeout
            self._task.cancel()
        else:
            self._timer = self._loop.call_later(0.1, self._check)
