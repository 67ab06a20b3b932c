"""The stub: the fixed words of the wire contract, whatever is asked."""

from __future__ import annotations

import json

import pytest

from shared.models import Usage
from shared.providers.stub import STREAM_TOKENS, Stub, canned_answer
from tests.unit.fakes import chat_request


@pytest.mark.parametrize(("count", "text"), [(1, "1 message."), (2, "2 messages."), (0, "0 messages.")])
async def test_the_answer_counts_the_messages(count: int, text: str) -> None:
    """The text is the contract's, with an s where it belongs."""
    request = chat_request()
    messages = json.dumps([{"role": "user", "content": "x"}] * count).encode()
    request.parameters["messages"] = type(request.parameters["messages"])(messages)  # type: ignore[index]
    answer = await Stub().complete(request)
    assert answer.message.content == f"Echo Brain (stub): received {text}"
    assert answer.ending.usage == Usage(10, 15, 25)


async def test_the_stream_is_the_contracts() -> None:
    """Seven tokens in their order."""
    said = []
    async for chunk in Stub().stream(chat_request(stream=True)):
        said += [choice.delta.content for event in chunk.events for choice in event.choices or () if choice.delta]
    assert [text for text in said if text] == ["Echo", " Brain", " (stub)", ":", " streaming", " response", "."]
    assert tuple(text for text in said if text) == STREAM_TOKENS


def test_a_canned_answer_has_as_many_choices_as_asked() -> None:
    """`n` counts for the stub too."""
    body = json.loads(canned_answer("x", "m", 3, Usage()).body)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
