"""Gateways over providers that play scripts, and ways to ask them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shared.course import Course
from shared.gateway import Gateway
from shared.models import ChatRequest, Exchange, Route, Target, TokenCap, Wishes
from shared.providers.base import Provider
from shared.providers.registry import Registry
from shared.settings import BreakerPolicy, ProviderSettings, RetryPolicy, Serving, own_routes
from tests.unit.fakes import Clock, FakeSecret, chat_request, exchange, seeded
from tests.unit.scripted import Scripted, Turn, answer

EVEN = RetryPolicy(3, 1.0, 1.0)


def row(name: str, model: str | None = None, **settings: Any) -> ProviderSettings:
    """The settings of a provider whose callers may ask for 100 tokens, and that waits one second before a retry."""
    return ProviderSettings(name=name, vendor="mock", model=model, **{"max_tokens": 100, "retries": EVEN, **settings})


def gateway(
    *rows: ProviderSettings,
    routes: Mapping[str, Route] | None = None,
    turns: Mapping[str, Sequence[Turn]] | None = None,
    max_in_flight: int | None = None,
) -> Gateway:
    """A gateway over providers that play turns."""
    providers = {r.name: Scripted(r.name, list((turns or {}).get(r.name, [])), r.model) for r in rows}
    return over(providers, *rows, routes=routes, max_in_flight=max_in_flight)


def over(
    providers: Mapping[str, Provider],
    *rows: ProviderSettings,
    routes: Mapping[str, Route] | None = None,
    max_in_flight: int | None = None,
    keys: Mapping[str, FakeSecret] | None = None,
    clock: Clock | None = None,
) -> Gateway:
    """A gateway over these providers."""
    serving = Serving(rows, own_routes(rows) if routes is None else routes, max_in_flight)
    keys = keys or {r.name: FakeSecret() for r in rows}
    return Gateway(Registry(providers), serving, keys, seeded(1), clock or Clock())


def admit(of: Gateway, request: ChatRequest | None = None, *, noted: Exchange | None = None, **wishes: Any) -> Course:
    """The request, admitted."""
    return of.admit(request or chat_request(), noted or exchange(), Wishes(**wishes))


async def served_by(of: Gateway, request: ChatRequest | None = None, **wishes: Any) -> str:
    """Who has answered."""
    return (await of.complete(admit(of, request, **wishes))).body.decode()


def answers(name: str, times: int = 1) -> list[Turn]:
    """Answers at once."""
    return [[answer(name)]] * times


def capped(tokens: int, parameter: str = "max_tokens") -> ChatRequest:
    """A question with a cap of its own."""
    return replace(chat_request(), cap=TokenCap(tokens, parameter))


TWO = (row("a", "big", priority=1), row("b", "small", priority=2))
ROUTED = {
    "fast": Route((Target("b", "llama"), Target("a", priority=2))),
    "gpt-*": Route((Target("a", "*"),)),
    "default": Route((Target("a"),)),
}


def opened(*names: str, cooldown_s: float = 30.0) -> list[ProviderSettings]:
    """Providers whose circuits open with the first failure; the second one's stays open twice as long, and so on."""
    return [
        row(name, name, breaker=BreakerPolicy(1, cooldown_s * number), retries=RetryPolicy(0))
        for number, name in enumerate(names, 1)
    ]
