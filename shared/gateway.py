"""The use case: admit a request, find who may answer it, let them try, and note what became of it.

No HTTP and no vendor is known here.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from shared.course import Attempt, Course
from shared.errors import BadRequest, EchoBrainError, ModelNotFound, Overloaded
from shared.models import Answer, ChatRequest, Exchange, ProviderHealth, Route, Target, Wishes
from shared.providers.registry import HEALTH_TIMEOUT_S, Registry
from shared.resilience.breaker import State
from shared.resilience.retry import RetryBudget
from shared.resilience.shedding import Load
from shared.routing import Routes, plan
from shared.secrets import SecretSource
from shared.settings import Serving
from shared.streaming import AnswerStream
from shared.upstream import Upstream, upstream

HEALTH_CACHE_S: Final = 30.0
_WORST_FIRST: Final[tuple[State, ...]] = ("open", "half_open", "closed")


class Gateway:
    """All providers behind one contract. `keys` are the providers' by name; `rng` draws routes and backoffs."""

    def __init__(
        self,
        registry: Registry,
        serving: Serving,
        keys: Mapping[str, SecretSource],
        rng: random.Random,
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._serving = serving
        self._keys = keys
        self._rng = rng
        self._clock = clock
        self._routes = Routes(serving.routes)
        self._upstreams = _upstreams(registry, serving)
        self._load = Load(serving.max_in_flight)
        self._budget = RetryBudget()
        self._health: tuple[float, dict[str, ProviderHealth]] | None = None  # and until when it counts
        self._asking = asyncio.Lock()

    @property
    def provider_name(self) -> str:
        """The provider that serves, or of several the first by priority."""
        return min(self._serving.providers, key=lambda provider: provider.priority).name

    def models(self) -> list[str]:
        """The model names that can be asked for."""
        return self._routes.names((p.name, p.model) for p in self._serving.providers if p.model is not None)

    def admit(self, request: ChatRequest, exchange: Exchange, wishes: Wishes) -> Course:
        """Where the request may go; it is refused here if nowhere.

        Raises `ModelNotFound`, `BadRequest` for a wish or a cap that nobody can grant, `Overloaded` where there is no
        room or every circuit is open.
        """
        if self._load.full:
            raise Overloaded
        route = self._routes.resolve(request.model)
        if route is None:
            raise ModelNotFound(param="model")
        targets = self._within_cap(self._pinned(route, wishes.provider), request)
        now_s = asyncio.get_running_loop().time()
        ordered = plan([target for target in targets if self._upstream(target).available(now_s)], self._rng)
        if not ordered:
            raise Overloaded(retry_after_s=max(1.0, min(self._closed_for_s(target, now_s) for target in targets)))
        self._budget.earn()
        upstreams = [self._upstream(target) for target in (ordered if wishes.failover else ordered[:1])]
        exchange.provider = upstreams[0].name
        exchange.model = upstreams[0].model_for(request) or exchange.provider
        hedge_after_s = math.inf if route.hedge_after_s is None else route.hedge_after_s
        return Course(request, exchange, upstreams, self._budget, self._rng, hedge_after_s)

    async def complete(self, course: Course) -> Answer:
        """The whole answer to an admitted request."""
        if self._load.full:
            raise Overloaded
        self._load.enter()
        try:
            answer = await course.run(partial(_answered, course.request), _dropped)
        finally:
            self._load.leave()
        course.exchange.settle(answer.ending)
        return answer

    def stream(self, course: Course) -> AnswerStream:
        """The answer to an admitted request as it comes."""
        return AnswerStream(course, self._load, self._clock)

    async def ready(self) -> bool:
        """Whether the key of any provider can be read, now or within 5 s."""
        reading = [asyncio.create_task(_readable(key)) for key in self._keys.values()]
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                for read in asyncio.as_completed(reading):
                    if await read:
                        return True
        except TimeoutError:
            pass
        finally:
            for task in reading:
                task.cancel()
        return False

    async def health(self) -> dict[str, tuple[ProviderHealth, State]]:
        """Every provider's health as asked within the last 30 s, and its circuit now: the worst of its targets'."""
        async with self._asking:
            if self._health is None or self._clock() >= self._health[0]:
                self._health = (self._clock() + HEALTH_CACHE_S, await self._registry.health_check_all())
        return {name: (health, self._circuit(name)) for name, health in self._health[1].items()}

    async def aclose(self) -> None:
        """Closes the providers."""
        await self._registry.aclose()

    def _pinned(self, route: Route, name: str | None) -> Sequence[Target]:
        if name is None or name in self._serving.set_aside:  # after a rollback its callers go where all others go
            return route.targets
        if name not in self._registry.names():
            raise BadRequest("X-Provider: there is no provider of this name", param="X-Provider")
        return [target for target in route.targets if target.provider == name] or [Target(name)]

    def _within_cap(self, targets: Sequence[Target], request: ChatRequest) -> Sequence[Target]:
        """Those that may write as much as is asked for."""
        if request.cap is None:
            return targets
        able = [t for t in targets if request.cap.tokens <= self._upstream(t).settings.max_tokens]
        if not able:
            most = max(self._upstream(target).settings.max_tokens for target in targets)
            parameter = request.cap.parameter
            raise BadRequest(f"{parameter}: at most {most} may be asked for", param=parameter)
        return able

    def _upstream(self, target: Target) -> Upstream:
        return self._upstreams[target.provider, target.model]

    def _closed_for_s(self, target: Target, now_s: float) -> float:
        return self._upstream(target).breaker.opens_in_s(now_s)

    def _circuit(self, provider: str) -> State:
        states = {upstream.breaker.state for upstream in self._upstreams.values() if upstream.name == provider}
        return next(state for state in _WORST_FIRST if state in states)


def _upstreams(registry: Registry, serving: Serving) -> dict[tuple[str, str | None], Upstream]:
    """Every target there is, by provider and model: each provider's own, and those of the routes."""
    settings = {provider.name: provider for provider in serving.providers}
    loads = {name: Load(provider.max_in_flight) for name, provider in settings.items()}
    own = [Target(name) for name in settings]
    routed = [target for route in serving.routes.values() for target in route.targets]
    return {
        (t.provider, t.model): upstream(t, registry.get(t.provider), settings[t.provider], loads[t.provider])
        for t in {(t.provider, t.model): t for t in (*own, *routed)}.values()
    }


async def _readable(key: SecretSource) -> bool:
    try:
        await key.get()
    except EchoBrainError:
        return False
    return True


async def _answered(request: ChatRequest, attempt: Attempt) -> Answer:
    try:
        async with asyncio.timeout_at(attempt.total.at_s):
            answer = await attempt.upstream.provider.complete(attempt.upstream.addressed(request))
    except TimeoutError:
        raise attempt.total.reached() from None
    attempt.succeeded()
    return answer


async def _dropped(answer: Answer) -> None:
    """A whole answer that came too late holds nothing open."""
