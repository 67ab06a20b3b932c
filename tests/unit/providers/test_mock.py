"""The mock: deterministic answers that name provider and model, and faults by the model's name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import replace

import msgspec
import pytest

from shared.errors import BrokenAnswer, EchoBrainError
from shared.models import ChatRequest, Chunk
from shared.providers.mock import Mock
from shared.settings import MockPace
from tests.unit.fakes import chat_request
from tests.unit.test_errors import CONTRACT

FAULTS = (
    "bad_request",
    "context_length_exceeded",
    "content_filter",
    "auth_error",
    "quota_exceeded",
    "rate_limit",
    "connection_error",
    "upstream_error",
    "timeout",
)


def mock() -> Mock:
    """A mock that does not wait."""
    return Mock("mock-1", pace=MockPace((0.0, 0.0), 0.0))


async def test_an_answer_names_provider_and_model() -> None:
    """So that one sees who answered when routing is tried."""
    answer = await mock().complete(chat_request("one two", model="m-7"))
    assert answer.message.content == "Mock answer from mock-1, model m-7."
    assert json.loads(answer.body)["model"] == "m-7"
    assert answer.ending.usage is not None
    assert answer.ending.usage.prompt_tokens == 2


async def test_two_mocks_answer_alike() -> None:
    """The same question has the same answer, byte for byte."""
    assert (await mock().complete(chat_request())).body == (await mock().complete(chat_request())).body


@pytest.mark.parametrize("code", FAULTS)
async def test_a_model_named_after_an_error_fails_with_it(code: str) -> None:
    """`error:CODE` fails before the first token, streamed or not."""
    with pytest.raises(EchoBrainError) as caught:
        await mock().complete(chat_request(model=f"error:{code}"))
    assert (caught.value.code, caught.value.status) == (code, CONTRACT[code][0])
    with pytest.raises(EchoBrainError):
        await anext(mock().stream(chat_request(model=f"error:{code}", stream=True)))


@pytest.mark.parametrize("model", ["error:nonsense", "error:", "cut:x", "cut:-1", "errors", "stall:", "silently"])
async def test_other_names_are_models(model: str) -> None:
    """What is no fault is served."""
    assert model in str((await mock().complete(chat_request(model=model))).message.content)


async def tokens_of(request: ChatRequest, tokens: list[Chunk]) -> None:
    """Reads a stream; its tokens are in the list also when it breaks."""
    async for chunk in mock().stream(request):
        tokens.extend([chunk] * chunk.has_content)


async def stands_still(call: Awaitable[object]) -> bool:
    """Whether nothing comes of a call, however often the loop turns; cancelled afterwards."""
    task = asyncio.ensure_future(call)
    for _ in range(100):
        await asyncio.sleep(0)
    still = not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return still


def said(text: object, model: str | None = None, *, stream: bool = False) -> ChatRequest:
    """A question to which an assistant's message has begun the answer."""
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": text}]
    request = chat_request(model=model, stream=stream)
    parameters = {**request.parameters, "messages": msgspec.Raw(msgspec.json.encode(messages))}
    return replace(request, parameters=parameters)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_stream_can_be_cut(count: int) -> None:
    """`cut:N` gives N tokens and then breaks."""
    tokens: list[Chunk] = []
    with pytest.raises(BrokenAnswer):
        await tokens_of(chat_request(model=f"cut:{count}", stream=True), tokens)
    assert len(tokens) == count


async def test_an_answer_that_is_cut_is_none() -> None:
    """Not streamed, half an answer is a broken one."""
    with pytest.raises(BrokenAnswer):
        await mock().complete(chat_request(model="cut:2"))


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_stream_can_stand_still(count: int) -> None:
    """`stall:N` gives N tokens and then nothing."""
    tokens: list[Chunk] = []
    assert await stands_still(tokens_of(chat_request(model=f"stall:{count}", stream=True), tokens))
    assert len(tokens) == count


@pytest.mark.parametrize("model", ["silent", "stall:2"])
async def test_an_answer_can_fail_to_come(model: str) -> None:
    """Not streamed, a stall is silence, too."""
    assert await stands_still(mock().complete(chat_request(model=model)))


async def test_a_silent_stream_says_nothing() -> None:
    """Not even a role."""
    assert await stands_still(anext(mock().stream(chat_request(model="silent", stream=True))))


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("", "Mock answer from mock-1, model m."),
        ("Mock", " answer from mock-1, model m."),
        ("What another one said", " model m."),
        ("Mock answer from mock-1, model m.", ""),
        ("It has said more than there is to say in all", ""),
    ],
)
async def test_an_answer_goes_on_where_a_trailing_message_ends(text: str, rest: str) -> None:
    """As many words are left out as have been said, so that a broken stream can be continued without a key."""
    answer = await mock().complete(said(text, "m"))
    assert answer.message.content == rest
    chunks = [chunk async for chunk in mock().stream(said(text, "m", stream=True))]
    contents = [choice.delta for chunk in chunks for event in chunk.events for choice in event.choices or ()]
    assert "".join(delta.content or "" for delta in contents if delta) == rest
    for ending in (answer.ending, chunks[-1].ending):
        assert ending is not None
        assert ending.usage is not None
        assert (ending.usage.prompt_tokens, ending.usage.completion_tokens) == (
            1 + len(text.split()),
            len(rest.split()),
        )


async def test_a_text_in_parts_is_continued_too() -> None:
    """Content may be OpenAI's list of parts."""
    answer = await mock().complete(said([{"type": "text", "text": "Mock answer"}], "m"))
    assert answer.message.content == " from mock-1, model m."


async def test_a_mock_may_have_a_model_of_its_own() -> None:
    """It serves a request that names none; another name is served as well."""
    own = Mock("mock-1", "own", MockPace((0.0, 0.0), 0.0))
    assert own.model == "own"
    assert "model own." in str((await own.complete(chat_request())).message.content)
    assert "model m." in str((await own.complete(chat_request(model="m"))).message.content)


async def test_it_waits_as_long_as_it_is_told() -> None:
    """The time to the first token, and that between two."""
    begun = asyncio.get_running_loop().time()
    paced = Mock("mock-1", pace=MockPace((0.02, 0.02), 0.01))
    chunks = [chunk async for chunk in paced.stream(chat_request(stream=True))]
    assert asyncio.get_running_loop().time() - begun >= 0.02 + 0.01 * len(chunks) - 0.001 * (len(chunks) + 1)
