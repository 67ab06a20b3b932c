"""Routing: which route a name has, and that the order of its targets is the one that the weights ask for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.models import Route, Target
from shared.routing import Routes, plan
from tests.unit.fakes import seeded

DRAWS = 10_000
WITHIN = 0.02

WEIGHTS = st.lists(st.one_of(st.floats(0.01, 1.0), st.sampled_from([1.0, 9.0, 100.0])), min_size=2, max_size=6)


def group(weights: list[float], priority: int = 1) -> list[Target]:
    """Targets p0, p1 … of these weights."""
    return [Target(f"p{number}", weight=weight, priority=priority) for number, weight in enumerate(weights)]


def shares_of_first(targets: list[Target], seed: int) -> dict[str, float]:
    """How often each target was the first, of all draws."""
    rng = seeded(seed)
    counted = Counter(plan(targets, rng)[0].provider for _ in range(DRAWS))
    return {name: count / DRAWS for name, count in counted.items()}


def shares_by_weight(targets: list[Target]) -> dict[str, float]:
    """The share that each weight asks for."""
    total = sum(target.weight for target in targets)
    return {target.provider: target.weight / total for target in targets}


def assert_near(seen: dict[str, float], asked: dict[str, float]) -> None:
    """Every share is within 2 % of all requests."""
    assert all(abs(seen.get(name, 0.0) - share) <= WITHIN for name, share in asked.items()), (seen, asked)


@settings(max_examples=40)
@given(WEIGHTS, st.integers(0, 2**32))
def test_shares_follow_the_weights(weights: list[float], seed: int) -> None:
    """Over 10,000 seeded draws each target is first as often as its weight asks, within 2 % of all requests.

    A share p is seen with a standard deviation of sqrt(p (1 - p) / 10,000), which is at most half a percent: 2 % are
    four of them or more, and one target in 16,000 at worst would fall outside by chance. Examples and seeds are
    always the same here, so that this test cannot fail by chance one day.
    """
    targets = group(weights)
    assert_near(shares_of_first(targets, seed), shares_by_weight(targets))


@settings(max_examples=40)
@given(WEIGHTS, st.integers(0, 2**32), st.data())
def test_shares_are_those_of_the_targets_that_are_left(weights: list[float], seed: int, data: st.DataObject) -> None:
    """Where some are out, the weights of the others count as if there had been no more."""
    targets = group(weights)
    out = data.draw(st.sets(st.sampled_from(range(len(targets))), max_size=len(targets) - 1))
    left = [target for number, target in enumerate(targets) if number not in out]
    assert_near(shares_of_first(left, seed), shares_by_weight(left))


def test_the_second_choice_is_drawn_by_weight_among_the_rest() -> None:
    """Without replacement: of those whose first was p0, p1 and p2 are second as 1 to 3; at 10,000 draws of which a
    third counts, 2 % are nearly three standard deviations, and the seed is fixed."""
    rng = seeded(11)
    orders = [plan(group([2.0, 1.0, 3.0]), rng) for _ in range(DRAWS)]
    seconds = Counter(order[1].provider for order in orders if order[0].provider == "p0")
    total = sum(seconds.values())
    assert_near({name: count / total for name, count in seconds.items()}, {"p1": 0.25, "p2": 0.75})


TARGETS = st.lists(
    st.builds(
        Target,
        st.sampled_from("abcdef"),
        priority=st.integers(0, 3),
        weight=st.sampled_from([0.0, 0.001, 0.3, 1.0, 50.0]),
    ),
    max_size=8,
)


@given(TARGETS, st.integers())
def test_everyone_has_exactly_one_place(targets: list[Target], seed: int) -> None:
    """Priorities are never mixed, weight 0 is last of all, and nobody is lost or asked twice."""
    ordered = plan(targets, seeded(seed))
    assert Counter(ordered) == Counter(targets)
    assert [t.weight == 0 for t in ordered] == sorted(t.weight == 0 for t in ordered)
    for last_resort in (False, True):
        priorities = [t.priority for t in ordered if (t.weight == 0) is last_resort]
        assert priorities == sorted(priorities)


def test_a_seed_gives_the_same_order() -> None:
    """A failing seed replays; another seed gives another order sooner or later."""
    targets = group([1.0] * 6)
    assert plan(targets, seeded(3)) == plan(targets, seeded(3))
    assert len({tuple(plan(targets, seeded(seed))) for seed in range(20)}) > 10


def test_last_resorts_keep_their_order() -> None:
    """By priority, then as they were written: their weight says nothing."""
    targets = [Target("a", weight=0, priority=2), Target("b", weight=0), Target("c", weight=0), Target("d", priority=9)]
    assert [target.provider for target in plan(targets, seeded(1))] == ["d", "b", "c", "a"]


A, B, C, D = (Route((Target(name),)) for name in "abcd")
ROUTES = Routes({"gpt-*": A, "fast": B, "gpt-4?": C, "gpt-5": D, "default": Route((Target("e"),)), "o[1]-*": B})


@pytest.mark.parametrize(
    ("model", "route"),
    [
        ("fast", B),
        ("gpt-5", D),  # an exact name goes before a glob, wherever it was written
        ("gpt-41", A),  # of two globs the first that was written
        ("gpt-", A),
        ("GPT-4", None),
        ("fas", None),
        ("faster", None),
        ("xgpt-4", None),
        ("o1-mini", B),
        ("o[1]-mini", None),
        ("", None),
        ("gpt-*", A),
    ],
)
def test_a_name_finds_its_route(model: str, route: Route | None) -> None:
    """Aliases as they are written, then globs in the order of the file, and no other name."""
    assert ROUTES.resolve(model) is route


def test_without_a_name_the_default_serves() -> None:
    """A request that names no model; where there is no default it has no route."""
    default = ROUTES.resolve(None)
    assert default is not None
    assert default.targets == (Target("e"),)
    assert Routes({"*": A}).resolve(None) is None


@given(st.text(min_size=1), st.text(max_size=5), st.text(max_size=5))
def test_a_star_takes_any_text(name: str, before: str, behind: str) -> None:
    """At its place, line breaks included."""
    plain = not set("*?[") & set(before + behind)
    glob = f"{before}*{behind}"
    assert (Routes({glob: A}).resolve(f"{before}{name}{behind}") is A) or not plain


def test_names_are_what_can_be_asked_for() -> None:
    """Aliases but `default`, and the models that a glob leads to the provider that has them; each once, no globs."""
    own = [("a", "gpt-4"), ("a", "other"), ("b", "gpt-9"), ("b", "fast"), ("a", "gpt-5")]
    passing = Routes({"gpt-*": Route((Target("a", "*"), Target("b", "llama"))), "fast": B, "default": C})
    assert passing.names(own) == ["fast", "gpt-4", "gpt-5"]


def test_a_model_behind_another_ones_name_is_not_listed() -> None:
    """A glob that leads to a provider's other model does not serve the one that was asked for."""
    renaming = Routes({"gpt-*": Route((Target("a", "llama"),))})
    assert renaming.names([("a", "gpt-4")]) == []
    exact = Routes({"gpt-*": Route((Target("a", "gpt-4"),))})
    assert exact.names([("a", "gpt-4")]) == ["gpt-4"]


def test_a_plan_changes_nothing_of_its_targets() -> None:
    """What is routed is what was configured."""
    targets = group([1.0, 2.0])
    before = [replace(target) for target in targets]
    plan(iter(targets), seeded(0))
    assert targets == before
