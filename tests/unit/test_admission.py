"""Who is admitted, and to whom: models, wishes, caps, circuits, room and weights."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from shared.errors import (
    BadRequest,
    ConnectionFailed,
    ModelNotFound,
    Overloaded,
    UpstreamBusy,
    UpstreamError,
)
from shared.models import Route, Target
from shared.settings import BreakerPolicy, RetryPolicy
from tests.unit.fakes import chat_request, exchange
from tests.unit.gateways import ROUTED, TWO, admit, answers, capped, gateway, opened, row, served_by
from tests.unit.scripted import NEVER, Turn, answer, virtually


@pytest.mark.parametrize(
    ("routes", "asked", "provider", "model"),
    [
        (None, None, "a", "big"),
        (None, "big", "a", "big"),
        (None, "small", "b", "small"),
        (ROUTED, None, "a", "big"),
        (ROUTED, "fast", "b", "llama"),
        (ROUTED, "gpt-9", "a", "gpt-9"),
    ],
)
@virtually
async def test_a_model_leads_to_its_targets(
    routes: Mapping[str, Route] | None, asked: str | None, provider: str, model: str
) -> None:
    """By its route; the exchange knows who is asked first, and for which model, before anybody is."""
    noted = exchange()
    admit(gateway(*TWO, routes=routes), chat_request(model=asked), noted=noted)
    assert (noted.provider, noted.model, noted.attempts) == (provider, model, 0)


@pytest.mark.parametrize("asked", ["other", "Fast", "gpt", "llama"])
@virtually
async def test_another_model_is_not_found(asked: str) -> None:
    """The caller is told which parameter, and no provider is noted."""
    noted = exchange()
    with pytest.raises(ModelNotFound) as caught:
        admit(gateway(*TWO, routes=ROUTED), chat_request(model=asked), noted=noted)
    assert (caught.value.param, noted.provider) == ("model", None)


@virtually
async def test_a_provider_without_a_model_serves_any_name() -> None:
    """As the stub does; where the caller names none, the exchange has the provider's name."""
    of, noted = gateway(row("any")), exchange()
    admit(of, chat_request(model="whatever"), noted=noted)
    assert noted.model == "whatever"
    admit(of, noted=noted)
    assert noted.model == "any"


@virtually
async def test_the_models_are_those_that_can_be_asked_for() -> None:
    """Aliases, own models, and what a glob leads to."""
    assert gateway(*TWO).models() == ["big", "small"]
    assert gateway(row("any")).models() == ["any"]
    assert gateway(*TWO, routes=ROUTED).models() == ["fast"]
    assert gateway(row("a", "gpt-4"), row("b"), routes=ROUTED).models() == ["fast", "gpt-4"]


@virtually
async def test_the_gateways_provider_is_the_first_by_priority() -> None:
    """It is shown where no request says another."""
    assert gateway(row("a", priority=3), row("b", priority=1), row("c", priority=1)).provider_name == "b"


@virtually
async def test_a_pinned_provider_is_asked_and_no_other() -> None:
    """Also where it is not the first; when it fails, nobody stands in."""
    of = gateway(*TWO, turns={"b": [*answers("b"), [ConnectionFailed()], [ConnectionFailed()]], "a": []})
    assert await served_by(of, chat_request(model="big"), provider="b") == "b"
    with pytest.raises(ConnectionFailed):
        await served_by(of, chat_request(model="big"), provider="b")


@virtually
async def test_a_pinned_provider_is_asked_for_what_the_route_says() -> None:
    """Its target's model; outside the route its own."""
    of, noted = gateway(*TWO, routes=ROUTED), exchange()
    admit(of, chat_request(model="fast"), noted=noted, provider="b")
    assert noted.model == "llama"
    admit(of, chat_request(model="gpt-9"), noted=noted, provider="b")
    assert (noted.provider, noted.model) == ("b", "small")


@virtually
async def test_a_provider_that_is_not_there_cannot_be_pinned() -> None:
    """The message names the header, not what was in it."""
    with pytest.raises(BadRequest) as caught:
        admit(gateway(*TWO), provider="secret-name")
    assert caught.value.param == "X-Provider"
    assert "secret-name" not in caught.value.message


@virtually
async def test_without_failover_the_first_is_asked_and_no_other() -> None:
    """Its own retries it has all the same."""
    of = gateway(*TWO, turns={"a": [[UpstreamBusy()], [answer("a")], [ConnectionFailed()], [ConnectionFailed()]]})
    assert await served_by(of, failover=False) == "a"
    with pytest.raises(ConnectionFailed):
        await served_by(of, failover=False)


@virtually
async def test_without_failover_there_is_no_hedge() -> None:
    """A comparison wants one provider's time."""
    routes = {"default": Route((Target("a"), Target("b", priority=2)), hedge_after_s=1.0)}
    turns: dict[str, list[Turn]] = {"a": [[5.0, answer("a")]] * 2, "b": answers("b")}
    of = gateway(*TWO, routes=routes, turns=turns)
    assert await served_by(of, failover=False) == "a"
    assert await served_by(of) == "b"


@pytest.mark.parametrize("parameter", ["max_tokens", "max_completion_tokens"])
@virtually
async def test_a_cap_above_the_allowed_one_is_refused_by_name(parameter: str) -> None:
    """The limit itself is allowed; the message names the caller's own parameter and the limit."""
    of = gateway(row("a"), row("b", max_tokens=50))
    admit(of, capped(100, parameter))
    with pytest.raises(BadRequest) as caught:
        admit(of, capped(101, parameter))
    assert caught.value.param == parameter
    assert caught.value.message == f"{parameter}: at most 100 may be asked for"


@virtually
async def test_a_target_that_may_not_write_so_much_is_not_asked() -> None:
    """Neither first nor as a stand-in."""
    of = gateway(row("a", priority=1), row("b", max_tokens=1000, priority=2), turns={"b": [[ConnectionFailed()]] * 2})
    with pytest.raises(ConnectionFailed):
        await served_by(of, capped(500))


@virtually
async def test_an_open_circuit_is_routed_around() -> None:
    """The next request goes to the others at once; after the cooldown one goes there and closes it."""
    of = gateway(*opened("a", "b"), turns={"a": [[UpstreamError()], *answers("a", 9)], "b": answers("b", 9)})
    assert await served_by(of, chat_request(model="a")) == "b"
    assert [await served_by(of, chat_request(model="a")) for _ in range(3)] == ["b"] * 3
    await asyncio.sleep(30.0)
    assert [await served_by(of, chat_request(model="a")) for _ in range(3)] == ["a"] * 3


@virtually
async def test_where_every_circuit_is_open_the_caller_is_told_when_to_come() -> None:
    """When the first may be tried again, and at least a second; once that is over, it is tried."""
    of = gateway(*opened("a", "b"), turns={"a": [[UpstreamError()], *answers("a")], "b": [[UpstreamError()]]})
    with pytest.raises(UpstreamError):
        await served_by(of, chat_request(model="a"))
    for passed_s, told_s in ((0.0, 30.0), (20.0, 10.0), (9.5, 1.0)):
        await asyncio.sleep(passed_s)
        with pytest.raises(Overloaded) as caught:
            admit(of, chat_request(model="a"))
        assert caught.value.retry_after_s == told_s
    await asyncio.sleep(0.5)
    assert await served_by(of, chat_request(model="a")) == "a"


@virtually
async def test_a_full_provider_is_skipped() -> None:
    """Its place is free again as soon as its answer is there; where all are full, the caller may come in a second."""
    of = gateway(
        row("a", max_in_flight=1, priority=1),
        row("b", max_in_flight=1, priority=2),
        turns={"a": [[2.0, answer("a")], *answers("a")], "b": [[2.0, answer("b")]]},
    )
    first = asyncio.create_task(served_by(of))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(served_by(of))
    await asyncio.sleep(0.1)
    with pytest.raises(Overloaded) as caught:
        admit(of)
    assert caught.value.retry_after_s == 1.0
    assert [await first, await second] == ["a", "b"]
    assert await served_by(of) == "a"


@virtually
async def test_a_providers_places_are_those_of_all_its_models() -> None:
    """The limit is the provider's, the circuit is the model's."""
    routes = {"one": Route((Target("a", "m-1"),)), "two": Route((Target("a", "m-2"),))}
    settings = row("a", max_in_flight=1, breaker=BreakerPolicy(1, 30.0), retries=RetryPolicy(0))
    of = gateway(settings, routes=routes, turns={"a": [[1.0, answer("a")], [UpstreamError()], *answers("a")]})
    first = asyncio.create_task(served_by(of, chat_request(model="one")))
    await asyncio.sleep(0.1)
    with pytest.raises(Overloaded):
        admit(of, chat_request(model="two"))
    await first
    with pytest.raises(UpstreamError):
        await served_by(of, chat_request(model="one"))
    with pytest.raises(Overloaded):
        admit(of, chat_request(model="one"))
    assert await served_by(of, chat_request(model="two")) == "a"


@virtually
async def test_one_target_in_two_routes_is_one_circuit() -> None:
    """What a request by one name has found out, those by another know."""
    routes = {"one": Route((Target("a", "m", weight=0.3),)), "two": Route((Target("a", "m", priority=2),))}
    of = gateway(*opened("a"), routes=routes, turns={"a": [[UpstreamError()]]})
    with pytest.raises(UpstreamError):
        await served_by(of, chat_request(model="one"))
    with pytest.raises(Overloaded):
        admit(of, chat_request(model="two"))


@virtually
async def test_the_weights_count_among_those_that_are_left() -> None:
    """Three of ten go to b while all are well; while a is out, b and c share as 3 to 1. 10,000 draws each: 2 % are four
    standard deviations, and the seed is fixed."""
    rows = (row("a", weight=6.0, max_in_flight=1), row("b", weight=3.0), row("c", weight=1.0))
    of = gateway(*rows, turns={"a": [[NEVER]]})

    def shares() -> dict[str, float]:
        counted: Counter[str | None] = Counter()
        for _ in range(10_000):
            noted = exchange()
            admit(of, noted=noted)
            counted[noted.provider] += 1
        return {str(name): count / 10_000 for name, count in counted.items()}

    assert shares() == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1}, abs=0.02)
    holding = asyncio.create_task(of.complete(admit(of, provider="a")))
    await asyncio.sleep(0)
    assert shares() == pytest.approx({"b": 0.75, "c": 0.25}, abs=0.02)
    holding.cancel()
    await asyncio.wait({holding})
