"""A target as this process knows it: its provider, how it is treated, its circuit, and what is under way to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from shared.models import ChatRequest, Target
from shared.providers.base import Provider
from shared.resilience.breaker import Breaker
from shared.resilience.shedding import Load
from shared.settings import ProviderSettings
from shared.telemetry.logs import log_circuit


@dataclass(frozen=True, slots=True)
class Upstream:
    """One provider asked for one model. The circuit is the model's, the load its provider's."""

    target: Target
    provider: Provider
    settings: ProviderSettings
    load: Load
    breaker: Breaker

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.provider.name

    def available(self, now_s: float) -> bool:
        """Whether it may be asked now: there is room, and its circuit lets a call in."""
        return not self.load.full and self.breaker.admits(now_s)

    def model_for(self, request: ChatRequest) -> str | None:
        """The model to ask for; None where the provider has none of its own and the caller named none."""
        if self.target.model == "*":
            return request.model or self.settings.model
        return self.target.model or self.settings.model or request.model

    def addressed(self, request: ChatRequest) -> ChatRequest:
        """The request as this target gets it."""
        model = self.model_for(request)
        return request if model == request.model else replace(request, model=model)


def upstream(target: Target, provider: Provider, settings: ProviderSettings, load: Load) -> Upstream:
    """A target with a closed circuit, whose transitions are logged."""
    model = target.model or settings.model
    return Upstream(
        target, provider, settings, load, Breaker(settings.breaker, partial(log_circuit, settings.name, model))
    )
