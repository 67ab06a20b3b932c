"""One schedule, drawn from a seed: who serves, how well, who asks, and when they leave."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from shared.models import ChatRequest, Route, Target, Wishes
from shared.settings import BreakerPolicy, Limits, ProviderSettings, RetryPolicy, Serving
from tests.simulation import scripts
from tests.simulation.scripts import Script

ALIAS: Final = "alias"
UNKNOWN: Final = "unknown"
ONLY: Final = "only-"


@dataclass(frozen=True, slots=True)
class Visit:
    """One caller: when it comes, what it asks, how it reads, and when it leaves (the second time, while all is being
    closed for it)."""

    trace: str
    at_s: float
    request: ChatRequest
    wishes: Wishes
    opening_wait_s: float | None
    reading_s: Sequence[float]  # after each chunk, over and over
    leaves_after_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that is random; `seed` is that of the gateway's own draws, too."""

    seed: int
    serving: Serving
    visits: Sequence[Visit]
    script: Callable[[str, float], Script]  # what a provider does with the call it gets at this time since the start


def drawn(seed: int) -> Schedule:
    """The schedule of this seed."""
    rng = random.Random(seed)
    serving = _serving(rng)
    calm_s = rng.choice((0.5, 2.0, 8.0))
    known = [provider.name for provider in serving.providers]
    visits = [_visit(rng, f"r{number}", calm_s, known) for number in range(rng.choice((1, 2, 3, 5, 10, 20, 40)))]
    moods = {name: [rng.choice((0.0, 0.2, 0.5, 0.8, 0.95)) for _ in range(3)] for name in known}
    flips_s = rng.choice((2.0, 8.0, 30.0))

    rngs = {name: random.Random(f"{seed}:{name}") for name in known}

    def script(name: str, since_s: float) -> Script:
        return scripts.drawn(rngs[name], moods[name][int(since_s // flips_s) % 3])

    return Schedule(seed, serving, sorted(visits, key=lambda visit: visit.at_s), script)


def only(number: int) -> str:
    """The model's name that leads to this target alone."""
    return f"{ONLY}{number}"


def request(model: str | None, trace: str, *, stream: bool, form: str | None = None, tokens: int = 1) -> ChatRequest:
    """A question."""
    members: dict[str, object] = {"messages": [{"role": "user", "content": trace}], "stream": stream}
    members |= {"response_format": {"type": form}} if form else {}
    parameters = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in members.items()}
    return ChatRequest(parameters, model, stream, include_usage=True, cap=None, choices=tokens, trace_id=trace)


def _serving(rng: random.Random) -> Serving:
    providers = tuple(_provider(rng, f"p{number}") for number in range(rng.choice((1, 2, 2, 3, 3, 4))))
    own = [Target(p.name, None, p.priority, p.weight) for p in providers]
    more = [replace(target, model=f"x{target.provider}") for target in own if rng.random() < 0.2]
    targets = [*own, *more]
    hedges_s = (None, None, 0.25, 1.0)
    routes = {
        "default": Route(tuple(own), rng.choice(hedges_s)),
        ALIAS: Route(tuple(rng.sample(targets, rng.randint(1, len(targets)))), rng.choice(hedges_s)),
        **{only(number): Route((target,)) for number, target in enumerate(targets)},
    }
    return Serving(providers, routes, rng.choice((None, None, None, 3, 10)))


def _provider(rng: random.Random, name: str) -> ProviderSettings:
    backoff_min_s = rng.choice((0.0, 0.125, 0.5, 1.0))
    return ProviderSettings(
        name=name,
        vendor="mock",
        model=f"m{name}",
        limits=Limits(
            request_s=rng.choice((1.0, 3.0, 8.0)),
            streaming_s=rng.choice((1.0, 3.0, 8.0, 20.0)),
            first_token_s=rng.choice((0.5, 1.0, 2.0, 4.0)),
            idle_s=rng.choice((0.5, 1.0, 2.0)),
        ),
        retries=RetryPolicy(rng.choice((0, 1, 3)), backoff_min_s, backoff_min_s * rng.choice((1, 4, 60))),
        breaker=BreakerPolicy(rng.choice((1, 2, 5)), rng.choice((0.5, 2.0, 10.0))),
        max_in_flight=rng.choice((None, None, None, 1, 2, 5)),
        continues_prefill=rng.random() < 0.5,
        priority=rng.choice((1, 1, 2)),
        weight=rng.choice((0.0, 0.3, 1.0, 1.0)),
    )


def _visit(rng: random.Random, trace: str, calm_s: float, known: Sequence[str]) -> Visit:
    stream = rng.random() < 0.7
    model = rng.choice((None, None, ALIAS, ALIAS, ALIAS)) if rng.random() < 0.98 else UNKNOWN
    form = rng.choice((None,) * 8 + ("text", "json_object"))
    wishes = Wishes(rng.choice(known) if rng.random() < 0.1 else None, rng.random() < 0.9)
    reading_s = (0.0,) if rng.random() < 0.8 else tuple(rng.choice((0.0, 0.25, 1.0, 3.0)) for _ in range(3))
    leaves = [rng.randrange(80) / 8 * rng.choice((0.1, 1.0))] if rng.random() < 0.35 else []
    if leaves and rng.random() < 0.3:
        leaves.append(leaves[0] + rng.choice((0.0, 0.125, 0.5)))
    return Visit(
        trace,
        rng.randrange(16) / 16 * calm_s * 2,
        request(model, trace, stream=stream, form=form),
        wishes,
        rng.choice((None, 1.0)),
        reading_s,
        leaves,
    )
