"""A target: which model it is asked for, when it may be asked, and what is told of its circuit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.models import Target
from shared.resilience.breaker import Outcome
from shared.resilience.shedding import Load
from shared.settings import BreakerPolicy, ProviderSettings
from shared.upstream import Upstream, upstream
from tests.unit.fakes import FakeProvider, chat_request
from tests.unit.scripted import logged


def target(of: Target, own: str | None = "own-1", *, limit: int | None = None, threshold: int = 1) -> Upstream:
    """The target of a provider with a model of its own."""
    settings = ProviderSettings(name="p", vendor="mock", model=own, breaker=BreakerPolicy(threshold, 30.0))
    return upstream(of, FakeProvider("p", own), settings, Load(limit))


@pytest.mark.parametrize(
    ("routed", "own", "asked", "model"),
    [
        (None, "own-1", None, "own-1"),
        (None, "own-1", "alias", "own-1"),
        (None, None, "any", "any"),
        (None, None, None, None),
        ("llama", "own-1", "alias", "llama"),
        ("llama", None, None, "llama"),
        ("*", "own-1", "gpt-4", "gpt-4"),
        ("*", "own-1", None, "own-1"),
        ("*", None, None, None),
    ],
)
def test_the_model_to_ask_for(routed: str | None, own: str | None, asked: str | None, model: str | None) -> None:
    """The target's; where it has none its provider's; a star is the name that the caller used."""
    of = target(Target("p", routed), own)
    request = chat_request(model=asked)
    assert of.model_for(request) == model
    assert of.addressed(request) == replace(request, model=model)


def test_a_request_that_is_right_as_it_is_is_not_copied() -> None:
    """The common case."""
    request = chat_request(model="own-1")
    assert target(Target("p")).addressed(request) is request


def test_it_may_be_asked_while_there_is_room_and_its_circuit_is_closed() -> None:
    """Neither alone is enough."""
    of = target(Target("p"), limit=1)
    assert of.available(0.0)
    of.load.enter()
    assert not of.available(0.0)
    of.load.leave()
    of.breaker.settle(of.breaker.enter(), Outcome.FAILURE, 0.0)
    assert not of.available(29.9)
    assert of.available(30.0)
    of.load.enter()
    assert not of.available(30.0)


@pytest.mark.parametrize(
    ("routed", "own", "shown"), [("llama", "own-1", "llama"), (None, "own-1", "own-1"), (None, None, None)]
)
def test_each_transition_is_one_line(routed: str | None, own: str | None, shown: str | None) -> None:
    """With provider, model, and where from and to."""
    of = target(Target("p", routed), own, threshold=2)
    with logged("circuit") as lines:
        for outcome in (Outcome.FAILURE, Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS):
            of.breaker.settle(of.breaker.enter(), outcome, 0.0)
    transitions = [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
    assert lines == [{"provider": "p", "model": shown, "from": a, "to": b} for a, b in transitions]
