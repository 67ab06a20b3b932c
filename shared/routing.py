"""Which targets a request may go to, and in which order; pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

from shared.models import Route, Target

DEFAULT: Final = "default"  # the route of requests that name no model
_GLOB: Final = frozenset("*?")


class Routes:
    """The routes by the names that callers use: exact ones first, then globs in the order they were written."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._exact = {name: route for name, route in routes.items() if not _is_glob(name)}
        self._globs = [(name, route) for name, route in routes.items() if _is_glob(name)]

    def resolve(self, model: str | None) -> Route | None:
        """The route of the model's name, or of a request without one; None where there is none."""
        if model is None:
            return self._exact.get(DEFAULT)
        if (route := self._exact.get(model)) is not None:
            return route
        return next((route for glob, route in self._globs if fnmatchcase(model, glob)), None)

    def names(self, own_models: Iterable[tuple[str, str]]) -> list[str]:
        """The names that can be asked for: every alias, and of the `own_models` (provider, model) those that a glob
        leads to that provider."""
        matched = [model for provider, model in own_models if self._leads_to(provider, model)]
        return list(dict.fromkeys([name for name in self._exact if name != DEFAULT] + matched))

    def _leads_to(self, provider: str, model: str) -> bool:
        route = self.resolve(model)
        return route is not None and any(t.provider == provider and t.model in (model, "*") for t in route.targets)


def plan(targets: Iterable[Target], rng: random.Random) -> list[Target]:
    """The targets in the order to ask them: by priority, in one priority drawn by weight without replacement, those
    of weight 0 last of all.

    The draw sorts by exponential variates with the weights as rates, which is the draw of Efraimidis and Spirakis,
    "Weighted random sampling with a reservoir" (2006).
    """
    drawn = list(targets)
    if len(drawn) > 1:
        drawn.sort(key=lambda t: (t.weight == 0, t.priority, rng.expovariate(t.weight) if t.weight else 0.0))
    return drawn


def _is_glob(name: str) -> bool:
    return not _GLOB.isdisjoint(name)
