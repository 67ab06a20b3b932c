"""The limits of one streamed answer: first token, silence, total. Absolute; bytes alone do not reset them."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from shared.errors import UpstreamTimeout
from shared.settings import Limits


class StreamDeadline:
    """Which limit of a stream comes next, and when. Pure: every time (s, monotonic) is given."""

    __slots__ = ("_last_token_s", "_limits", "_paused_s", "_started_s")

    def __init__(self, limits: Limits, now_s: float) -> None:
        self._limits = limits
        self._started_s = now_s
        self._last_token_s: float | None = None
        self._paused_s = 0.0

    def token(self, now_s: float) -> None:
        """A token has come."""
        self._last_token_s = now_s
        self._paused_s = 0.0

    @property
    def silent(self) -> bool:
        """No token has come yet."""
        return self._last_token_s is None

    def paused(self, length_s: float) -> None:
        """For so long nobody listened to the provider: it is not the provider's silence."""
        self._paused_s += length_s

    def next_limit(self) -> tuple[float, UpstreamTimeout]:
        """The time (s, monotonic) of the limit that comes first, and what it means to reach it."""
        limits = self._limits
        if self._last_token_s is None:
            silence_s, timeout = self._started_s + limits.first_token_s, ("first_token", limits.first_token_s)
        else:
            silence_s, timeout = self._last_token_s + limits.idle_s, ("idle", limits.idle_s)
        total_s = self._started_s + limits.streaming_s
        if total_s <= silence_s + self._paused_s:
            return total_s, UpstreamTimeout("total", limits.streaming_s)
        return silence_s + self._paused_s, UpstreamTimeout(*timeout)


class Watch:
    """Interrupts the task that listens to a stream past its deadline: `with` it, `UpstreamTimeout` is raised.

    Between `listen` and `heard` the current task waits for the provider; only then is it interrupted, and only that
    time counts as the provider's silence: not the time in which a slow client is being written to. One timer a stream,
    armed anew only when it fires early, so that a token costs no timer.
    """

    def __init__(self, limits: Limits) -> None:
        self._loop = asyncio.get_running_loop()
        self._left_s = self._loop.time()
        self._deadline = StreamDeadline(limits, self._left_s)
        self._listener: asyncio.Task[Any] | None = None
        self._interrupted: asyncio.Task[Any] | None = None
        self._reached: UpstreamTimeout | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._arm()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._disarm()
        if self._reached is None or self._interrupted is None:
            return
        if self._interrupted.uncancel() == 0 and kind is asyncio.CancelledError:
            raise self._reached from None

    def listen(self) -> None:
        """The current task waits for the provider from now on."""
        self._deadline.paused(self._loop.time() - self._left_s)
        self._listener = asyncio.current_task(self._loop)

    def heard(self, *, token: bool) -> None:
        """The provider has sent something; a token makes its silence count anew."""
        self._listener = None
        self._left_s = self._loop.time()
        if token:
            first = self._deadline.silent
            self._deadline.token(self._left_s)
            if first:  # the only time that a limit comes nearer: from now on it is the idle one
                self._disarm()
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
        elif self._listener is not None:
            self._reached, self._interrupted = timeout, self._listener
            self._listener.cancel()
        else:
            self._timer = self._loop.call_later(0.1, self._check)
