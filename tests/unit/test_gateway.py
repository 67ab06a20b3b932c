"""The use case, over fakes: what is noted of a request, what is counted and given back, how the providers are."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import (
    BadRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    RateLimited,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
)
from shared.gateway import HEALTH_CACHE_S, Gateway
from shared.models import Answer, ProviderHealth, Route, Target
from shared.settings import BreakerPolicy, Limits, RetryPolicy
from tests.unit.fakes import Clock, FakeProvider, FakeSecret, chat_request, exchange
from tests.unit.gateways import ROUTED, TWO, admit, answers, capped, gateway, opened, over, row, served_by
from tests.unit.scripted import NEVER, Turn, answer, logged, now_s, spoken, virtually

WELL = ProviderHealth(healthy=True, latency_ms=1.0)
ILL = ProviderHealth(healthy=False, latency_ms=1.0, error="upstream_error")


@virtually
async def test_a_whole_answer_is_passed_on_and_noted() -> None:
    """The exchange learns what the answer says of itself."""
    whole = answer("a")
    of, noted = gateway(row("a"), turns={"a": [[whole]]}), exchange()
    assert await of.complete(admit(of, noted=noted)) is whole
    assert (noted.attempts, noted.finish_reason, noted.usage) == (1, "stop", whole.ending.usage)
    assert (noted.model, noted.upstream_request_id, noted.failed_providers) == ("model-of-a", "req-a", [])


@virtually
async def test_a_failure_is_passed_on_and_noted() -> None:
    """The provider that failed is named, and its request id kept."""
    of = gateway(row("a", retries=RetryPolicy(0)), turns={"a": [[RateLimited(upstream_request_id="req-7")]]})
    noted = exchange()
    with pytest.raises(RateLimited):
        await of.complete(admit(of, noted=noted))
    assert (noted.attempts, noted.failed_providers, noted.upstream_request_id) == (1, ["a"], "req-7")


@virtually
async def test_an_answer_that_takes_too_long_is_given_up() -> None:
    """The total limit, by its name and its seconds."""
    of = gateway(row("a", limits=Limits(request_s=7.0)), turns={"a": [[NEVER]]})
    began_s = now_s()
    with pytest.raises(UpstreamTimeout) as caught:
        await served_by(of)
    assert (caught.value.limit, now_s() - began_s) == ("total", 7.0)
    assert "7 s" in caught.value.message


@pytest.mark.parametrize("turn", [[1.0, answer("a")], [1.0, UpstreamError()], [1.0, ZeroDivisionError()], [NEVER]])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "answer"])
@virtually
async def test_a_request_has_its_place_until_it_is_over(turn: Turn, stream: bool) -> None:
    """Answered, failed, broken by a bug or left: the place is free again, and was not before."""
    settings = row("a", retries=RetryPolicy(0))
    turn = [step if not isinstance(step, Answer) else spoken("Hi")[2] for step in turn] if stream else turn
    of = gateway(settings, turns={"a": [turn, answers("a")[0]]}, max_in_flight=1)
    task = asyncio.create_task(_stream(of) if stream else served_by(of))
    await asyncio.sleep(0.5)
    with pytest.raises(Overloaded) as caught:
        admit(of)
    assert caught.value.retry_after_s == 1.0
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.wait({task})
    assert await served_by(of) == "a"


async def _stream(of: Gateway) -> None:
    stream = of.stream(admit(of, chat_request(stream=True)))
    try:
        await stream.begin()
    finally:
        await stream.aclose()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "answer"])
@virtually
async def test_what_is_admitted_may_still_find_no_room(stream: bool) -> None:
    """Two came in at the same moment, and there is one place: the other is refused at once, not queued."""
    of = gateway(row("a"), turns={"a": [[5.0, answer("a")]]}, max_in_flight=1)
    one, other = admit(of), admit(of, chat_request(stream=stream))
    first = asyncio.create_task(of.complete(one))
    await asyncio.sleep(0)
    began_s = now_s()
    with pytest.raises(Overloaded):
        await (of.stream(other).begin() if stream else of.complete(other))
    assert now_s() == began_s
    assert (await first).body == b"a"


@virtually
async def test_the_budget_is_that_of_the_process() -> None:
    """Three retries at first; then ten requests earn one. Without budget the failure is told at once."""
    settings = row("a", retries=RetryPolicy(1, 1.0, 1.0), breaker=BreakerPolicy(1000))
    of = gateway(settings, turns={"a": [[UpstreamBusy()] for _ in range(100)]})
    attempts = []
    for _ in range(24):
        noted = exchange()
        with pytest.raises(UpstreamBusy):
            await of.complete(admit(of, noted=noted))
        attempts.append(noted.attempts)
    # Each request earns a tenth as it comes in: after three retries, the tenth request has the next one.
    assert attempts == [2, 2, 2] + [1] * 6 + [2] + [1] * 9 + [2] + [1] * 4


@virtually
async def test_a_hedge_is_its_routes() -> None:
    """The route says after which time; another route has none."""
    pair = (Target("a"), Target("b", priority=2))
    routes = {"quick": Route(pair, hedge_after_s=0.5), "slow": Route(pair)}
    turns: dict[str, list[Turn]] = {"a": [[3.0, answer("a")]] * 2, "b": answers("b")}
    of = gateway(*TWO, routes=routes, turns=turns)
    with logged("failover") as lines:
        assert await served_by(of, chat_request(model="slow")) == "a"
        assert lines == []
        assert await served_by(of, chat_request(model="quick")) == "b"
    assert [line["decision"] for line in lines] == ["hedge"]


@virtually
async def test_a_stream_is_passed_on_and_noted() -> None:
    """From the first content to the ending."""
    of, noted = gateway(row("a"), turns={"a": [spoken("Hel|lo", usage=(9, 2))]}), exchange()
    stream = of.stream(admit(of, chat_request(stream=True), noted=noted))
    chunks = [await stream.begin()]
    async for chunk in stream:
        chunks.append(chunk)
        if chunk.ending is not None:
            break
    await stream.aclose()
    assert b"".join(chunk.data for chunk in chunks) == b"".join(c.data for c in spoken("Hel|lo", usage=(9, 2)))
    assert (noted.provider, noted.first_token_s, noted.finish_reason) == ("a", 1000.0, "stop")


async def test_it_is_ready_while_one_key_can_be_read() -> None:
    """One provider can serve; where no key was ever read, none can."""
    providers = {r.name: FakeProvider(r.name) for r in TWO}
    unread = FakeSecret(NotReady())
    assert await over(providers, *TWO, keys={"a": unread, "b": FakeSecret()}).ready()
    assert not await over(providers, *TWO, keys={"a": unread, "b": unread}).ready()


async def test_health_is_asked_at_most_every_so_often() -> None:
    """Within 30 s the last answer serves, however many ask; after them every provider is asked again."""
    providers = {r.name: FakeProvider(r.name, healths=[WELL, ILL], pause_s=0.001) for r in TWO}
    clock = Clock()
    of = over(providers, *TWO, clock=clock)
    assert await asyncio.gather(*(of.health() for _ in range(3))) == [dict.fromkeys("ab", (WELL, "closed"))] * 3
    clock.pass_s(HEALTH_CACHE_S - 0.001)
    assert (await of.health())["a"][0] is WELL
    clock.pass_s(0.001)
    assert {name: health for name, (health, _) in (await of.health()).items()} == {"a": ILL, "b": ILL}
    assert [provider.health_asked for provider in providers.values()] == [2, 2]


@virtually
async def test_a_circuit_is_shown_as_it_is_now() -> None:
    """The worst of a provider's targets, also while the health is remembered."""
    routes = {"one": Route((Target("a", "m-1"),)), "two": Route((Target("a", "m-2"),))}
    of = gateway(*opened("a"), routes=routes, turns={"a": [*answers("a"), [UpstreamError()], [1.0, answer("a")]]})
    shown = []
    for model in ("one", "two"):
        await asyncio.gather(served_by(of, chat_request(model=model)), return_exceptions=True)
        shown.append((await of.health())["a"][1])
    await asyncio.sleep(30.0)
    probe = asyncio.create_task(served_by(of, chat_request(model="two")))
    await asyncio.sleep(0.5)
    shown.append((await of.health())["a"][1])
    await probe
    shown.append((await of.health())["a"][1])
    assert shown == ["closed", "open", "half_open", "closed"]


async def test_closing_closes_every_provider() -> None:
    """What is open is theirs."""
    providers = {r.name: FakeProvider(r.name) for r in TWO}
    await over(providers, *TWO).aclose()
    assert all(provider.closed for provider in providers.values())


@virtually
async def test_a_refusal_takes_no_place() -> None:
    """Who is not admitted is not counted."""
    of = gateway(*TWO, routes=ROUTED, turns={"a": answers("a")}, max_in_flight=1)
    for request, provider in ((chat_request(model="other"), None), (capped(101), None), (None, "nobody")):
        with pytest.raises((ModelNotFound, BadRequest)):
            admit(of, request, provider=provider)
    assert await served_by(of) == "a"
