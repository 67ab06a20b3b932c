"""The mock: deterministic answers that name provider and model, and faults by the model's name."""

from __future__ import annotations

import json

import pytest

from shared.errors import EchoBrainError, UpstreamError
from shared.models import Chunk
from shared.providers.mock import Mock
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
    return Mock("mock-1", delay_s=(0.0, 0.0), pace_s=0.0)


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


@pytest.mark.parametrize("model", ["error:nonsense", "error:", "cut:x", "cut:-1", "errors"])
async def test_other_names_are_models(model: str) -> None:
    """What is no fault is served."""
    assert model in str((await mock().complete(chat_request(model=model))).message.content)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_stream_can_be_cut(count: int) -> None:
    """`cut:N` gives N tokens and then breaks."""
    tokens: list[Chunk] = []

    async def read() -> None:
        async for chunk in mock().stream(chat_request(model=f"cut:{count}", stream=True)):
            tokens.extend([chunk] * chunk.has_content)

    with pytest.raises(UpstreamError):
        await read()
    assert len(tokens) == count
