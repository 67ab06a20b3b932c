"""The limits of one streamed answer: first token, silence, total. Absolute; bytes alone do not reset them."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from shared.errors import UpstreamTimeout
from shared.settings import Limits


class Deadline(NamedTuple):
    """When an answer must be whole: `at_s` on the loop's clock, `after_s` seconds after it was asked for."""

    at_s: float
    after_s: float

    def reached(self) -> UpstreamTimeout:
        """What it means to come here."""
        return UpstreamTimeout("total", self.after_s)


class StreamDeadline:
    """Which limit of a stream comes next, and when. Pure: every time (s, monotonic) is given.

    `total` is the limit of the whole answer, which may have begun at another target. `last_token_s` is when the last
    token had been dealt with, None before the first.
    """

    __slots__ = ("_limits", "_started_s", "_total", "last_token_s")

    def __init__(self, limits: Limits, now_s: float, total: Deadline) -> None:
        self._limits = limits
        self._started_s = now_s
        self._total = total
        self.last_token_s: float | None = None

    def next_limit(self) -> tuple[float, UpstreamTimeout]:
        """The time (s, monotonic) of the limit that comes first, and what it means to reach it."""
        limits = self._limits
        if self.last_token_s is None:
            silence_s, timeout = self._started_s + limits.first_token_s, ("first_token", limits.first_token_s)
        else:
            silence_s, timeout = self.last_token_s + limits.idle_s, ("idle", limits.idle_s)
        if self._total.at_s <= silence_s:
            return self._total.at_s, self._total.reached()
        return silence_s, UpstreamTimeout(*timeout)


class Watch:
    """Interrupts the task that listens to a stream past its deadline, with a cancellation that `translated` explains.

    Between `listen` and `heard` a task waits for the provider; only then is it interrupted. The provider's silence
    counts from the first `listen` after a token: not while a slow client is being written to. One timer a stream, armed
    anew only when it fires early, so that a token costs no timer. A stream may change hands until its first token.
    """

    def __init__(self, limits: Limits, total: Deadline) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = StreamDeadline(limits, self._loop.time(), total)
        self._task: asyncio.Task[Any] | None = None
        self._listening = False
        self._token = False  # one has been heard since the last `listen`
        self._empty_s: float | None = None  # when something without a token was heard that is not dealt with yet
        self._settled = False  # the first token has been dealt with: the task stays, the idle limit counts
        self._reached: UpstreamTimeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    def translated(self, error: BaseException) -> BaseException:
        """What `error`, raised while listening, was: `UpstreamTimeout` where it is this watch's own interruption."""
        self._listening = False
        if self._reached is None or self._task is None:
            return error
        alone = self._task.uncancel() == 0  # nobody else has cancelled the task
        return self._reached if alone and isinstance(error, asyncio.CancelledError) else error

    def close(self) -> None:
        """Nothing is interrupted from now on."""
        self._listening = False
        self._disarm()

    def listen(self) -> None:
        """The current task waits for the provider from now on."""
        if self._token:
            self._token = False
            self._deadline.last_token_s = self._loop.time()
        elif self._empty_s is not None and self._deadline.last_token_s is not None:
            self._deadline.last_token_s += self._loop.time() - self._empty_s
        self._empty_s = None
        if not self._settled:
            self._settle()
        self._listening = True

    def heard(self, *, token: bool) -> None:
        """The provider has sent something; a token makes its silence count anew."""
        self._listening = False
        if token:
            self._token = True
        else:
            self._empty_s = self._loop.time()

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
