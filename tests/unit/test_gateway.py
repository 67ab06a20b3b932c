"""The use case, over fakes: what is admitted, how long a provider may take, and what is noted of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from shared.errors import (
    BadRequest,
    EchoBrainError,
    ModelNotFound,
    NotReady,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
)
from shared.gateway import HEALTH_CACHE_S, Gateway
from shared.models import ChatRequest, Chunk, ProviderHealth, TokenCap
from shared.settings import Limits
from tests.unit.fakes import WHOLE, Clock, FakeProvider, FakeSecret, chat_request, empty, exchange, last, token

WELL = ProviderHealth(healthy=True, latency_ms=1.0)
ILL = ProviderHealth(healthy=False, latency_ms=1.0, error="upstream_error")


def gateway(
    provider: FakeProvider, limits: Limits | None = None, *, clock: Clock | None = None, key: FakeSecret | None = None
) -> Gateway:
    """A gateway over a fake, whose callers may ask for 100 tokens."""
    return Gateway(provider, key or FakeSecret(), limits or Limits(), 100, clock or Clock())


def capped(tokens: int, parameter: str = "max_tokens") -> ChatRequest:
    """A question with a cap of its own."""
    return replace(chat_request(), cap=TokenCap(tokens, parameter))


async def said(of: Gateway, request: ChatRequest | None = None) -> list[Chunk]:
    """All chunks of an answer."""
    return [chunk async for chunk in of.stream(request or chat_request(stream=True), exchange())]


@pytest.mark.parametrize(
    ("served", "asked", "noted"),
    [("m-1", None, "m-1"), ("m-1", "m-1", "m-1"), (None, "any", "any"), (None, None, "fake")],
)
def test_a_model_that_is_served_is_admitted(served: str | None, asked: str | None, noted: str) -> None:
    """The one model, or none named; a provider without one serves any name. The exchange knows both."""
    row = exchange()
    gateway(FakeProvider(model=served)).admit(chat_request(model=asked), row)
    assert (row.provider, row.model) == ("fake", noted)


def test_another_model_is_not_found() -> None:
    """The caller is told which parameter, and no provider is noted."""
    row = exchange()
    with pytest.raises(ModelNotFound) as caught:
        gateway(FakeProvider(model="m-1")).admit(chat_request(model="m-2"), row)
    assert (caught.value.param, row.provider) == ("model", None)


@pytest.mark.parametrize("parameter", ["max_tokens", "max_completion_tokens"])
def test_a_cap_above_the_allowed_one_is_refused_by_name(parameter: str) -> None:
    """The limit itself is allowed; the message names the caller's own parameter."""
    of = gateway(FakeProvider())
    of.admit(capped(100, parameter), exchange())
    with pytest.raises(BadRequest) as caught:
        of.admit(capped(101, parameter), exchange())
    assert caught.value.param == parameter
    assert caught.value.message.startswith(f"{parameter}: ")


@pytest.mark.parametrize(("model", "expected"), [("m-1", ["m-1"]), (None, ["fake"])])
def test_the_models_are_those_that_can_be_asked_for(model: str | None, expected: list[str]) -> None:
    """One model, or the provider's name where any name is served."""
    assert gateway(FakeProvider(model=model)).models() == expected


async def test_a_whole_answer_is_passed_on_and_noted() -> None:
    """The exchange learns what the answer says of itself."""
    provider, row = FakeProvider(), exchange(provider="fake")
    answer = await gateway(provider).complete(chat_request(), row)
    assert answer is provider.answer
    assert (row.attempts, row.finish_reason, row.usage, row.upstream_request_id) == (1, "stop", WHOLE.usage, "req_9")
    assert row.failed_providers == []


async def test_a_failure_is_passed_on_and_noted() -> None:
    """The provider that failed is named, and its request id kept."""
    row = exchange()
    with pytest.raises(RateLimited):
        await gateway(FakeProvider(answer=RateLimited(upstream_request_id="req_7"))).complete(chat_request(), row)
    assert (row.attempts, row.failed_providers, row.upstream_request_id) == (1, ["fake"], "req_7")


async def test_a_bad_request_is_the_callers_failure() -> None:
    """The provider has not failed."""
    row = exchange()
    with pytest.raises(BadRequest):
        await gateway(FakeProvider(answer=BadRequest())).complete(chat_request(), row)
    assert row.failed_providers == []


async def test_an_answer_that_takes_too_long_is_given_up() -> None:
    """The total limit, by its name."""
    row = exchange()
    with pytest.raises(UpstreamTimeout) as caught:
        await gateway(FakeProvider(pause_s=60.0), Limits(request_s=0.02)).complete(chat_request(), row)
    assert (caught.value.limit, row.failed_providers) == ("total", ["fake"])


async def test_a_bug_is_not_hidden() -> None:
    """What is no failure of a provider comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        await gateway(FakeProvider(answer=ZeroDivisionError())).complete(chat_request(), exchange())


async def test_a_stream_is_passed_on_to_its_ending() -> None:
    """The chunks in their order, nothing behind the ending, and the provider's stream is closed."""
    provider = FakeProvider(steps=[empty(), token("a"), token("b"), last(), token("never")])
    row, clock = exchange(), Clock(2000.0)
    chunks = [chunk async for chunk in gateway(provider, clock=clock).stream(chat_request(stream=True), row)]
    assert chunks == list(provider.steps)[:4]
    assert (row.attempts, row.first_token_s, row.finish_reason, row.usage) == (1, 2000.0, "stop", WHOLE.usage)
    assert provider.streams_open == 0


@pytest.mark.parametrize("steps", [[], [token("half")], [empty()]])
async def test_a_stream_without_an_ending_is_a_failure(steps: Sequence[Chunk]) -> None:
    """A provider that just stops has not answered."""
    provider = FakeProvider(steps=steps)
    with pytest.raises(UpstreamError):
        await said(gateway(provider))
    assert provider.streams_open == 0


@pytest.mark.parametrize("error", [RateLimited(), UpstreamError()])
async def test_a_stream_that_fails_is_that_failure(error: EchoBrainError) -> None:
    """What came before is passed on, and the provider is named."""
    row = exchange()
    chunks = gateway(FakeProvider(steps=[token("a"), error])).stream(chat_request(stream=True), row)
    assert (await anext(chunks)).data == token("a").data
    with pytest.raises(type(error)):
        await anext(chunks)
    assert row.failed_providers == ["fake"]


@pytest.mark.parametrize(
    ("steps", "limits", "name"),
    [
        ([token()], Limits(first_token_s=0.02), "first_token"),
        ([token()], Limits(streaming_s=0.02), "total"),
    ],
)
async def test_a_stream_that_keeps_still_is_given_up(steps: Sequence[Chunk], limits: Limits, name: str) -> None:
    """The limits of a stream reach through to the provider, whose stream is closed."""
    provider = FakeProvider(steps=steps, pause_s=60.0)
    with pytest.raises(UpstreamTimeout) as caught:
        await said(gateway(provider, limits))
    assert (caught.value.limit, provider.streams_open) == (name, 0)


async def test_chunks_without_content_are_no_first_token() -> None:
    """A provider that sends empty chunks for ever has not begun to answer."""
    provider = FakeProvider(steps=[empty()] * 100_000, pause_s=0.001)
    with pytest.raises(UpstreamTimeout) as caught:
        await said(gateway(provider, Limits(first_token_s=0.05)))
    assert caught.value.limit == "first_token"


async def test_a_reader_that_leaves_closes_the_stream() -> None:
    """Closing early frees the provider, and nobody has failed."""
    provider, row = FakeProvider(steps=[token(), token(), last()]), exchange()
    chunks = gateway(provider).stream(chat_request(stream=True), row)
    await anext(chunks)
    assert provider.streams_open == 1
    await chunks.aclose()
    assert (provider.streams_open, row.failed_providers) == (0, [])


async def test_a_cancelled_call_is_nobodys_failure() -> None:
    """The caller left: the exchange names no provider."""
    row = exchange()
    call = asyncio.create_task(gateway(FakeProvider(pause_s=60.0)).complete(chat_request(), row))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert row.failed_providers == []


async def test_ready_is_whether_the_key_can_be_read() -> None:
    """The key's failure is the gateway's."""
    await gateway(FakeProvider()).ready()
    with pytest.raises(NotReady):
        await gateway(FakeProvider(), key=FakeSecret(NotReady())).ready()


async def test_health_is_asked_at_most_every_so_often() -> None:
    """Within 30 s the last answer serves, after them the provider is asked again."""
    provider, clock = FakeProvider(healths=[WELL, ILL]), Clock()
    of = gateway(provider, clock=clock)
    assert [await of.health() for _ in range(3)] == [WELL] * 3
    clock.pass_s(HEALTH_CACHE_S)
    assert await of.health() == ILL
    assert provider.health_asked == 2


async def test_closing_closes_the_provider() -> None:
    """What is open is the provider's."""
    provider = FakeProvider()
    await gateway(provider).aclose()
    assert provider.closed
