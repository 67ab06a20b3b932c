"""The Provider protocol: one suite over the stub, the mock and, over a real socket, every vendor's row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from shared.models import Chunk
from shared.providers.base import Provider
from shared.providers.mock import Mock
from shared.providers.stub import Stub
from shared.settings import MockPace
from tests.contract.providers import at_vendor, chunks_of, compatible, question
from tests.contract.vendor_server import RULES
from tests.faults.upstream import breaking_upstream

ANSWERS = {
    "stub": "Echo Brain (stub): received 1 message.",
    "mock": "Mock answer from mock, model gpt-test.",
    **dict.fromkeys(RULES, "Hello, world!"),
}
STREAMS = {**ANSWERS, "stub": "Echo Brain (stub): streaming response."}
LONG_S = 3600.0


@dataclass(frozen=True)
class Served:
    """A provider under test; `freed` says whether nothing is open behind it any more."""

    provider: Provider
    freed: Callable[[], bool]


@asynccontextmanager
async def over_upstream(says: str) -> AsyncIterator[Served]:
    """The OpenAI-compatible provider and an upstream that plays this scenario for every request."""
    async with breaking_upstream() as upstream:
        upstream.force(says)
        provider = compatible("openai", upstream.base_url)
        yield Served(provider, lambda: bool(upstream.requests) and all(row.closed_at for row in upstream.requests))
        await provider.aclose()


@pytest.fixture(params=["stub", "mock", *RULES])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    """Each provider in turn, without delays."""
    if request.param in RULES:
        async with at_vendor(request.param) as (provider, server):
            yield Served(provider, lambda: not server.open)
        return
    provider = Stub() if request.param == "stub" else Mock("mock", pace=MockPace((0.0, 0.0), 0.0))
    yield Served(provider, lambda: True)


@pytest.fixture(params=["mock", "openai"])
async def slow(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    """Each provider that can be waited for, and that never answers here."""
    if request.param == "openai":
        async with over_upstream("silent") as found:
            yield found
        return
    yield Served(Mock("mock", pace=MockPace((LONG_S, LONG_S), LONG_S)), lambda: True)


def payloads(chunks: list[Chunk]) -> list[Any]:
    """The JSON of every event that was passed on."""
    text = b"".join(chunk.data for chunk in chunks).decode()
    assert text == "" or text.endswith("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n")[:-1]]


def text_of(events: list[Any], index: int = 0) -> str:
    """What one choice of a stream says."""
    rows = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    return "".join(row["delta"].get("content") or "" for row in rows)


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; fails after 10 s."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another world
            await asyncio.sleep(0.005)


async def test_an_answer_is_whole(served: Served) -> None:
    """The body is an OpenAI completion, and what was read in it is what it says."""
    answer = await served.provider.complete(question())
    body = json.loads(answer.body)
    assert body["object"] == "chat.completion"
    assert {"id", "created", "model", "choices", "usage"} <= set(body)
    (choice,) = body["choices"]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == answer.message.content == ANSWERS[served.provider.name]
    assert (answer.ending.finish_reason, answer.ending.model) == ("stop", "gpt-test")
    assert answer.ending.usage is not None
    assert answer.ending.usage.total_tokens == body["usage"]["total_tokens"]


async def test_only_the_last_chunk_has_an_ending(served: Served) -> None:
    """Its ending says what is known of the whole answer, usage included though nobody asked for the chunk."""
    chunks = await chunks_of(served.provider, question(stream=True))
    assert [chunk.ending is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    ending = chunks[-1].ending
    assert ending is not None
    assert (ending.finish_reason, ending.model) == ("stop", "gpt-test")
    assert ending.usage is not None
    assert ending.usage.total_tokens > 0


async def test_the_chunks_say_the_answer(served: Served) -> None:
    """The bytes are OpenAI chunks, and what they say is what the events beside them say."""
    chunks = await chunks_of(served.provider, question(stream=True))
    events = payloads(chunks)
    assert all(event["object"] == "chat.completion.chunk" for event in events)
    assert text_of(events) == STREAMS[served.provider.name]
    seen = [choice for chunk in chunks for event in chunk.events for choice in event.choices or ()]
    assert "".join((choice.delta and choice.delta.content) or "" for choice in seen) == text_of(events)
    assert len(seen) == sum(len(event["choices"]) for event in events)


async def test_content_is_told_from_the_frame(served: Served) -> None:
    """The role alone is no content, and a token is; [DONE] is never in the bytes."""
    chunks = await chunks_of(served.provider, question(stream=True))
    for chunk in chunks:
        assert chunk.has_content is bool(text_of(payloads([chunk])))
        assert b"[DONE]" not in chunk.data
    assert any(chunk.has_content for chunk in chunks)


@pytest.mark.parametrize("usage", [True, False])
async def test_the_usage_chunk_is_for_those_who_asked(served: Served, usage: bool) -> None:
    """Asked for it is the last event, with no choices; otherwise it is not there."""
    events = payloads(await chunks_of(served.provider, question(stream=True, usage=usage)))
    assert [not event["choices"] for event in events] == [False] * (len(events) - usage) + [True] * usage


@pytest.mark.parametrize("n", [2, 5])
async def test_every_choice_is_answered(served: Served, n: int) -> None:
    """`n` choices, each whole, streamed and not."""
    answer = await served.provider.complete(question(n=n))
    assert [choice["index"] for choice in json.loads(answer.body)["choices"]] == list(range(n))
    events = payloads(await chunks_of(served.provider, question(stream=True, n=n)))
    assert {text_of(events, index) for index in range(n)} == {STREAMS[served.provider.name]}
    finished = [row["index"] for event in events for row in event["choices"] if row["finish_reason"]]
    assert sorted(finished) == list(range(n))


async def test_many_are_answered_at_once(served: Served) -> None:
    """Answers of concurrent questions do not mix."""
    streams = [chunks_of(served.provider, question(stream=True)) for _ in range(20)]
    texts = {text_of(payloads(chunks)) for chunks in await asyncio.gather(*streams)}
    assert texts == {STREAMS[served.provider.name]}


async def test_health_says_that_it_is_well(served: Served) -> None:
    """Healthy, with a time and without an error."""
    health = await served.provider.health()
    assert (health.healthy, health.error) == (True, None)
    assert health.latency_ms >= 0


async def test_a_stream_that_is_not_begun_costs_nothing(served: Served) -> None:
    """Making the generator asks nobody; closing it unused is fine."""
    await served.provider.stream(question(stream=True)).aclose()


async def test_closing_a_stream_early_frees_it(served: Served) -> None:
    """After the first chunk the reader leaves, and what is behind the stream is closed."""
    async with aclosing(served.provider.stream(question(stream=True))) as chunks:
        assert (await anext(chunks)).ending is None
    assert (await served.provider.complete(question())).ending.finish_reason == "stop"


async def test_closing_a_stream_that_never_ends_closes_upstream() -> None:
    """Upstream sees within moments that nobody listens."""
    async with over_upstream("stall") as served:
        async with aclosing(served.provider.stream(question(stream=True))) as chunks:
            await anext(chunks)
        await until(served.freed)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cancelled_call_ends_and_frees_what_it_held(slow: Served, stream: bool) -> None:
    """Cancelling is cancelling, and upstream is closed."""
    request = question(stream=stream)
    call = slow.provider.complete(request) if not stream else anext(slow.provider.stream(request))
    task = asyncio.ensure_future(call)
    done, _ = await asyncio.wait([task], timeout=0.1)
    assert not done
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(slow.freed)


async def test_it_can_be_closed_unused_and_twice(served: Served) -> None:
    """Closing is for the end of a process, whatever came before."""
    await served.provider.aclose()
    await served.provider.aclose()
