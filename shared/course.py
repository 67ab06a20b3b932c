"""The course of one request: target after target until one answers, within one deadline, with every step logged."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from shared.errors import BadRequest, EchoBrainError, NotReady, Overloaded, Retry, UpstreamTimeout
from shared.models import ChatRequest, Exchange
from shared.resilience.breaker import Outcome
from shared.resilience.deadline import Deadline
from shared.resilience.hedging import first_of
from shared.resilience.retry import RetryBudget, Situation, Step, next_step
from shared.telemetry.logs import log_step
from shared.upstream import Upstream

T = TypeVar("T")

FAIR_SHARE: Final = 0.9  # of its own limit: what a target must have been given to be blamed for not being done in time
LOOK_AGAIN_S: Final = 1.0  # how soon a target that is full or left alone is looked at again, to be asked beside another


class Attempt:
    """One question to one target, from `begin` until exactly one of `succeeded`, `failed` and `abandoned`."""

    __slots__ = (
        "_curtailed",
        "_ended",
        "_loop",
        "_turn",
        "late",
        "started_s",
        "total",
        "upstream",
        "upstream_request_id",
    )

    def __init__(self, upstream: Upstream, total: Deadline, limit_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.started_s = self._loop.time()
        self.upstream = upstream
        self.total = min(total, Deadline(self.started_s + limit_s, limit_s))
        self._curtailed = self.total.at_s - self.started_s < FAIR_SHARE * limit_s
        self.upstream_request_id: str | None = None
        self.late: UpstreamTimeout | None = None  # another target was asked beside this one, because it was so silent
        self._ended = False
        self._turn = upstream.breaker.enter()
        upstream.load.enter()

    def answering(self) -> None:
        """The first content has come."""
        self._turn = self.upstream.breaker.promise(self._turn)

    def succeeded(self) -> None:
        """The answer is whole."""
        self._end(Outcome.SUCCESS)

    def failed(self, error: EchoBrainError) -> None:
        """The target failed; some failures say nothing about its health, nor does running out of too short a time."""
        short = self._curtailed and isinstance(error, UpstreamTimeout) and error.limit == "total"
        self._end(Outcome.FAILURE if error.trips_breaker and not short else Outcome.NOTHING)

    def abandoned(self) -> None:
        """The caller left, another target was faster, or a bug of ours: nothing is known of the target."""
        self._end(Outcome.NOTHING)

    def _end(self, outcome: Outcome) -> None:
        if not self._ended:
            self._ended = True
            self.upstream.load.leave()
            self.upstream.breaker.settle(self._turn, outcome, self._loop.time())


class Course:
    """Where one admitted request may go, what has failed it, and until when it may try.

    `upstreams` are in the order to ask them. `hedge_after_s` (infinite: never) is for the first token or the answer.
    """

    def __init__(
        self,
        request: ChatRequest,
        exchange: Exchange,
        upstreams: Sequence[Upstream],
        budget: RetryBudget,
        rng: random.Random,
        hedge_after_s: float = math.inf,
    ) -> None:
        self.request = request
        self.exchange = exchange
        self._left = list(upstreams)
        self._budget = budget
        self._rng = rng
        self._hedge_after_s = hedge_after_s
        self._loop = asyncio.get_running_loop()
        self._began_s = self._asked_s = self._loop.time()
        limit_s = max([self._limit_s(upstream) for upstream in upstreams])
        self._total = Deadline(self._began_s + limit_s, limit_s)
        self._believed_s = upstreams[0].settings.limits.first_token_s
        self._shortest_s = min([upstream.settings.limits.first_token_s for upstream in upstreams])
        self._newest: Attempt | None = None
        self._running: list[Attempt] = []
        self._answered = self._continuing = False
        self._failures: list[EchoBrainError] = []

    async def run(self, ask: Callable[[Attempt], Awaitable[T]], discard: Callable[[T], Awaitable[None]]) -> T:
        """What `ask` brings from the first target that answers; raises the failure that tells the caller most.

        The attempt that brought it is still open. A result that came too late in a race is given to `discard`.
        """
        if len(self._left) > 1 and (self._hedge_after_s < math.inf or not self.request.stream):
            return await first_of(lambda: self._follow(ask), self, discard)
        return await self._follow(ask)

    async def go_on(self, ask: Callable[[Attempt], Awaitable[T]]) -> T:
        """The same for a stream that broke off: only targets that continue a text, one after the other."""
        self._left = [upstream for upstream in self._left if upstream.settings.continues_prefill]
        self._continuing, self._answered = True, False
        return await self._follow(ask)

    def may_go_on(self) -> bool:
        """Whether a target is left that continues a text."""
        return any(upstream.settings.continues_prefill for upstream in self._left)

    def broke_off(self, attempt: Attempt, error: EchoBrainError, *, continuable: bool) -> bool:
        """Notes that an answer broke off which the caller had begun to read; whether another target may go on."""
        attempt.failed(error)
        self.exchange.upstream_request_id = error.upstream_request_id or self.exchange.upstream_request_id
        further = continuable and error.retry is not Retry.NOWHERE and self.may_go_on()
        further = further and self._loop.time() < self._total.at_s
        self._gave_up(attempt.upstream)
        self._log(attempt.upstream, error, Step("continue", "begun") if further else Step("give_up", "begun"))
        return further

    def wait_s(self) -> float | None:
        """How long until a target is asked beside a silent one, in seconds; None when none will be."""
        now_s = self._loop.time()
        wait_s = min(self._hedge_at_s(), self._late_at_s()) - now_s
        if wait_s == math.inf or now_s >= self._total.at_s or not self._left:
            return None
        if not self._others():
            return max(wait_s, LOOK_AGAIN_S)
        # Looked at again in time for a target that is asked meanwhile, and is believed for a shorter while.
        return max(0.0, min(wait_s, self._shortest_s))

    def start_another(self) -> bool:
        """Whether to ask the next target beside the silent one now; a hedge takes a retry from the budget."""
        silent, now_s = self._newest, self._loop.time()
        hedge, late = self._hedge_at_s() <= now_s, self._late_at_s() <= now_s
        if silent is None or not (hedge or late) or now_s >= self._total.at_s or not self._others():
            return False
        if late:
            silent.late = UpstreamTimeout("first_token", silent.upstream.settings.limits.first_token_s)
            step = Step("hedge", "late")
        else:
            self._hedge_after_s = math.inf
            step = Step("hedge", "silent") if self._budget.spend() else Step("wait", "budget")
        self._log(silent.upstream, silent.late, step)
        if step.where == "wait":
            return False
        self._asked_s = now_s
        return True

    def _hedge_at_s(self) -> float:
        return self._asked_s + self._hedge_after_s

    def _late_at_s(self) -> float:
        """Nothing can be told from the silence of an answer that is not streamed: it goes on beside the next one."""
        return math.inf if self.request.stream else self._asked_s + self._believed_s

    async def _follow(self, ask: Callable[[Attempt], Awaitable[T]]) -> T:
        while (upstream := self._next()) is not None:
            retries = 0
            while upstream.available(self._loop.time()):
                try:
                    return await self._attempt(upstream, ask)
                except EchoBrainError as error:
                    step = self._after(upstream, error, retries)
                if step.where == "give_up":
                    if self._failures[-1].retry is Retry.NOWHERE:
                        self._left.clear()  # a race may go on with those under way, but asks nobody else
                    raise self._outcome()
                if step.where == "failover":
                    break
                await asyncio.sleep(step.wait_s)
                retries += 1
            else:
                if retries:  # while it was waited for, its circuit opened or its room was taken
                    self._gave_up(upstream)
                    self._log(upstream, self._failures[-1], Step("failover", "unavailable"))
        raise self._outcome()

    async def _attempt(self, upstream: Upstream, ask: Callable[[Attempt], Awaitable[T]]) -> T:
        attempt = self._begin(upstream)
        self._running.append(attempt)
        try:
            result = await ask(attempt)
        except EchoBrainError as error:
            attempt.failed(error)
            if not (self._answered or self._continuing):
                self.exchange.upstream_request_id = error.upstream_request_id or attempt.upstream_request_id
            raise
        except BaseException:
            attempt.abandoned()
            raise
        finally:
            self._running.remove(attempt)
        if not self._answered:  # else it comes second in a race
            self._won(attempt)
        return result

    def _won(self, attempt: Attempt) -> None:
        self._answered = True
        self._is_served_by(attempt)
        for other in self._running:
            if other.late is not None:  # where another had to answer, its silence was a failure
                other.failed(other.late)
                self._gave_up(other.upstream)

    def _begin(self, upstream: Upstream) -> Attempt:
        self._newest = attempt = Attempt(upstream, self._total, self._limit_s(upstream))
        self._asked_s = attempt.started_s
        self._believed_s = upstream.settings.limits.first_token_s
        self.exchange.attempts += 1
        if not (self._answered or self._continuing):
            self._is_served_by(attempt)
        return attempt

    def _after(self, upstream: Upstream, error: EchoBrainError, retries: int) -> Step:
        self._failures.append(error)
        now_s = self._loop.time()
        at = Situation(retries, upstream.available(now_s), self._others(), self._total.at_s - now_s)
        step = next_step(error, at, upstream.settings.retries, self._budget, self._rng)
        self._log(upstream, error, step)
        if step.where == "failover" or (step.where == "give_up" and not isinstance(error, BadRequest | NotReady)):
            self._gave_up(upstream)
        return step

    def _outcome(self) -> EchoBrainError:
        """The failure that tells the caller most: one that is the same everywhere, else the last that may pass."""
        last = self._failures[-1] if self._failures else Overloaded()
        if last.retry is Retry.NOWHERE:
            return last
        return next((error for error in reversed(self._failures) if error.retryable), last)

    def _is_served_by(self, attempt: Attempt) -> None:
        exchange, name = self.exchange, attempt.upstream.name
        if self._continuing:
            exchange.continued_by.append(name)
            return
        exchange.provider = name
        exchange.model = attempt.upstream.model_for(self.request) or name
        exchange.upstream_request_id = attempt.upstream_request_id

    def _gave_up(self, upstream: Upstream) -> None:
        if upstream.name not in self.exchange.failed_providers:
            self.exchange.failed_providers.append(upstream.name)

    def _log(self, upstream: Upstream, error: EchoBrainError | None, step: Step) -> None:
        code = error.code if error else None
        log_step(upstream.name, upstream.model_for(self.request), code, step.where, step.reason, step.wait_s)

    def _next(self) -> Upstream | None:
        """The next target that may be asked now; it is asked by nobody else."""
        while self._left:
            upstream = self._left.pop(0)
            if upstream.available(self._loop.time()):
                return upstream
        return None

    def _others(self) -> bool:
        now_s = self._loop.time()
        return any(upstream.available(now_s) for upstream in self._left)

    def _limit_s(self, upstream: Upstream) -> float:
        limits = upstream.settings.limits
        return limits.streaming_s if self.request.stream else limits.request_s
