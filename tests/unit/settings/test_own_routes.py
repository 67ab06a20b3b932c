"""Routes that nobody wrote: every provider serves its own model, and the others stand in for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.models import Route, Target
from shared.settings import ProviderSettings, alone, own_routes


def provider(name: str, model: str | None = None, priority: int = 1, weight: float = 1.0) -> ProviderSettings:
    """A provider of which only this matters."""
    return ProviderSettings(name=name, vendor="mock", model=model, priority=priority, weight=weight)


def test_the_stub_alone_serves_any_name() -> None:
    """The case without a file."""
    to_stub = Route((Target("stub"),))
    assert alone().routes == {"default": to_stub, "stub": to_stub, "*": to_stub}


def test_one_provider_with_a_model_serves_that_name_only() -> None:
    """Another name is a 404: nobody pays for a model that they did not ask for."""
    to_it = Route((Target("openai"),))
    assert alone(provider("openai", "gpt-4.1-mini")).routes == {"default": to_it, "gpt-4.1-mini": to_it}


def test_the_others_stand_in_behind_the_owners() -> None:
    """A model's own providers are asked first, also where another has the better priority."""
    routes = own_routes([provider("first", "big", 1), provider("second", "small", 2), provider("third", "small", 3)])
    assert routes["small"].targets == (Target("first", None, 4), Target("second", None, 2), Target("third", None, 3))
    assert routes["default"].targets == (Target("first", None, 1), Target("second", None, 2), Target("third", None, 3))


def test_one_asked_for_by_name_is_no_last_resort() -> None:
    """Weight 0 holds for requests that leave the choice open, and where another has the same model."""
    routes = own_routes([provider("a", "big"), provider("b", "small", weight=0)])
    assert {target.provider: target.weight for target in routes["small"].targets} == {"a": 1.0, "b": 1.0}
    assert {target.provider: target.weight for target in routes["default"].targets} == {"a": 1.0, "b": 0.0}
    routes = own_routes([provider("a", "small", weight=2), provider("b", "small", weight=0)])
    assert {target.provider: target.weight for target in routes["small"].targets} == {"a": 2.0, "b": 0.0}


PROVIDERS = st.lists(
    st.builds(
        provider,
        name=st.sampled_from("abcdef"),
        model=st.sampled_from([None, "x", "y", "z"]),
        priority=st.integers(0, 5),
        weight=st.sampled_from([0.0, 0.3, 1.0, 7.0]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda p: p.name,
)


@given(PROVIDERS)
def test_every_model_has_all_providers_its_own_first(providers: list[ProviderSettings]) -> None:
    """For any providers: each own model is routed, to everybody once, and the owners go before all others."""
    routes = own_routes(providers)
    assert [target.provider for target in routes["default"].targets] == [p.name for p in providers]
    assert ("*" in routes) == any(p.model is None for p in providers)
    for model in {p.model for p in providers if p.model}:
        targets = {target.provider: target for target in routes[model].targets}
        assert set(targets) == {p.name for p in providers}
        owners = [targets[p.name].priority for p in providers if p.model == model]
        others = [targets[p.name].priority for p in providers if p.model != model]
        assert not others or max(owners) < min(others)
        assert any(targets[p.name].weight for p in providers if p.model == model)


@given(PROVIDERS)
def test_targets_leave_the_model_to_the_provider(providers: list[ProviderSettings]) -> None:
    """A stand-in is asked for its own model, not for the name that it does not know."""
    assert {target.model for route in own_routes(providers).values() for target in route.targets} == {None}
