"""The values that settings have, wherever they were read: frozen, complete, with the defaults of the house."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from shared.models import Route, Target

VENDORS: Final = (
    "stub",
    "mock",
    "openai",
    "azure",
    "vertex",
    "vllm",
    "ollama",
    "anthropic",
    "openai-compatible",
)
KEYLESS: Final = ("stub", "mock")  # answer by themselves: no network, no key, any model's name


class SettingsError(ValueError):
    """A setting is wrong; the message names it and says what is allowed. It never shows a value that may be a key."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a provider may take, in seconds. A silent stream is given up long before a slow one."""

    request_s: float = 60.0  # a whole answer that is not streamed
    streaming_s: float = 120.0  # a whole stream
    connect_s: float = 10.0
    first_token_s: float = 30.0  # pings and empty chunks are not tokens
    idle_s: float = 15.0  # between two tokens


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after how long, the same target is asked again; waits are seconds."""

    max_retries: int = 3
    backoff_min_s: float = 1.0
    backoff_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """How many consecutive failures open a circuit, and after how many seconds it is tried again."""

    threshold: int = 5
    cooldown_s: float = 30.0


@dataclass(frozen=True, slots=True)
class MockPace:
    """The mock's speed, in seconds: a range for the first token, the time between two tokens."""

    delay_s: tuple[float, float] = (0.1, 0.2)
    pace_s: float = 0.02


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One provider. The key is either here or, by its secret's name, in Secret Manager."""

    name: str = "stub"
    vendor: str = "stub"
    model: str | None = None  # its own; None: any name is passed on
    base_url: str | None = None  # None: the vendor's
    project: str | None = None  # Vertex: the Google Cloud project, and where in it
    location: str | None = None
    api_key: str = field(default="", repr=False)
    api_key_secret: str | None = None
    max_tokens: int = 4096  # completion cap where the caller names none, and the most that may be asked for
    limits: Limits = Limits()
    retries: RetryPolicy = RetryPolicy()
    breaker: BreakerPolicy = BreakerPolicy()
    max_in_flight: int | None = None
    continues_prefill: bool = False  # the model continues a trailing assistant message
    priority: int = 1  # without routes: lower is tried first
    weight: float = 1.0  # without routes: the share among equal priority
    pace: MockPace = MockPace()


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is shown of the running revision."""

    env: str = "unknown"
    git_sha: str = "unknown"
    build_time: str = "unknown"


@dataclass(frozen=True, slots=True)
class Serving:
    """Who answers: the providers, in the order they were named, and the routes to them.

    `routes` maps an alias or a glob to its route, globs in the order they are tried; `default` is for requests that
    name no model.
    """

    providers: tuple[ProviderSettings, ...]
    routes: Mapping[str, Route]
    max_in_flight: int | None = None  # requests at the same time in this process
    set_aside: frozenset[str] = frozenset()  # providers that ECHO_BRAIN_PROVIDER has taken out of service


def own_routes(providers: Sequence[ProviderSettings]) -> dict[str, Route]:
    """Routes that nobody wrote: every provider serves its own model, and the others stand in for it, all by priority
    and weight; one without a model of its own serves any name."""
    targets = [Target(p.name, None, p.priority, p.weight) for p in providers]
    names = [p.model or (p.name if p.vendor in KEYLESS else None) for p in providers]
    routes = {"default": Route(tuple(targets))}
    for name in dict.fromkeys(filter(None, names)):
        routes[name] = _own_route(targets, [name == other for other in names])
    if any_name := [target for p, target in zip(providers, targets, strict=True) if p.model is None]:
        routes["*"] = Route(tuple(any_name))
    return routes


def _own_route(targets: Sequence[Target], own: Sequence[bool]) -> Route:
    """Those whose own model it is, then the others behind the last of them."""
    behind = 1 + max(target.priority for target in targets) - min(target.priority for target in targets)
    weighted = any(target.weight for target, is_own in zip(targets, own, strict=True) if is_own)
    return Route(
        tuple(
            replace(target, weight=target.weight if weighted else 1.0)  # asked for by name, it is no last resort
            if is_own
            else replace(target, priority=target.priority + behind)
            for target, is_own in zip(targets, own, strict=True)
        )
    )


def alone(provider: ProviderSettings | None = None) -> Serving:
    """One provider that serves its own model, or any name where it has none; by default the stub."""
    provider = provider or ProviderSettings()
    return Serving((provider,), own_routes((provider,)))
