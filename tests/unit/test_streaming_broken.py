"""A stream that breaks behind its first content: who goes on with it, who never does, and what the caller is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from shared.errors import (
    BadRequest,
    BrokenAnswer,
    ConnectionReset,
    ContentFilter,
    EchoBrainError,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
)
from shared.models import ChatRequest, Usage
from shared.settings import Limits
from tests.unit.fakes import chat_request
from tests.unit.scripted import (
    NEVER,
    Turn,
    event,
    logged,
    now_s,
    read,
    role,
    spoken,
    sse,
    usage_event,
    virtually,
)
from tests.unit.streams import asked, continuing, provider, requests, text_of

BEHIND_CONTENT: dict[str, tuple[Turn, type[EchoBrainError]]] = {
    "cut": ([BrokenAnswer()], BrokenAnswer),
    "clean end": ([], BrokenAnswer),
    "stalled": ([NEVER], UpstreamTimeout),
    "error": ([UpstreamError(upstream_request_id="req-late")], UpstreamError),
}


@pytest.mark.parametrize(("turn", "error"), BEHIND_CONTENT.values(), ids=BEHIND_CONTENT)
@virtually
async def test_a_failure_behind_content_is_told_where_nobody_goes_on(turn: Turn, error: type[EchoBrainError]) -> None:
    """What has come is passed on, then the failure is raised; nobody else is asked to begin anew."""
    second = provider("b", spoken("Hi"))
    of = asked(provider("a", [*spoken("Hel|lo", whole=False), *turn]), second)
    with logged("failover") as lines:
        got = [await of.stream.begin(), await anext(of.stream)]
        with pytest.raises(error):
            await anext(of.stream)
    await of.stream.aclose()
    assert text_of(got) == "Hello"
    assert (requests(second), of.course.exchange.failed_providers, of.nothing_open()) == ([], ["a"], True)
    code = error.code
    assert lines == [
        {"provider": "a", "model": None, "error": code, "decision": "give_up", "reason": "begun", "wait_ms": 0.0}
    ]


@pytest.mark.parametrize("turn", [turn for turn, _ in BEHIND_CONTENT.values()], ids=BEHIND_CONTENT)
@virtually
async def test_a_failure_behind_content_is_gone_on_with(turn: Turn) -> None:
    """By the next target that can, asked with the text so far; the caller reads one answer."""
    first = provider("a", [*spoken("Hel|lo", whole=False), *turn])
    second, third = provider("b"), continuing("c", spoken(" wor|ld", of="c", usage=(20, 2)))
    of = asked(first, second, third)
    with logged("failover") as lines:
        got = await of.all()
    assert text_of(got) == "Hello world"
    assert [(line["provider"], line["decision"], line["reason"]) for line in lines] == [("a", "continue", "begun")]
    row = of.course.exchange
    assert (row.provider, row.continued_by, row.failed_providers, row.attempts) == ("a", ["c"], ["a"], 2)
    assert (row.usage, row.finish_reason) == (Usage(20, 2, 22), "stop")
    assert requests(second) == []
    (rest,) = requests(third)
    messages = msgspec.json.decode(rest.parameters["messages"])
    assert (messages[-1], rest.continues) == ({"role": "assistant", "content": "Hello"}, True)
    rows = [json.loads(line[6:]) for line in b"".join(c.data for c in got).decode().split("\n\n")[:-1]]
    assert {row["id"] for row in rows} == {"id-a"}
    assert sum("role" in choice["delta"] for row in rows for choice in row["choices"]) == 1


@virtually
async def test_the_answer_keeps_the_first_ones_request_id() -> None:
    """Whoever went on, or refused to: the id is that of the answer the caller began to read."""
    refusing = continuing("b", [RateLimited(upstream_request_id="req-refused")])
    first = provider("a", spoken("Hel|lo", whole=False))
    of = asked(first, refusing, continuing("c", spoken(" world", of="c")))
    await of.all()
    row = of.course.exchange
    assert (row.upstream_request_id, row.continued_by, row.failed_providers) == ("req-a", ["c"], ["a", "b"])


@virtually
async def test_a_stream_may_be_gone_on_with_twice() -> None:
    """The text grows, the usage is that of all, each who went on is named once."""
    first = provider("a", read(sse(role()), sse(event("one", usage=usage_event(10, 1)["usage"]))))
    second = continuing(
        "b", read(sse(role("b")), sse(event(" two", of="b", usage=usage_event(11, 1)["usage"])), of="b")
    )
    third = continuing("c", spoken(" three", of="c", usage=(12, 1)))
    of = asked(first, second, third)
    assert text_of(await of.all()) == "one two three"
    row = of.course.exchange
    assert (row.provider, row.continued_by, row.failed_providers) == ("a", ["b", "c"], ["a", "b"])
    assert row.usage == Usage(33, 3, 36)
    messages = msgspec.json.decode(requests(third)[0].parameters["messages"])
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[-1]["content"] == "one two"


@pytest.mark.parametrize(
    "turn",
    [[BadRequest()], [UpstreamError()], [NEVER], [], [ContentFilter()]],
    ids=["400", "500", "silent", "end", "no"],
)
@virtually
async def test_where_all_refuse_to_go_on_the_first_failure_is_told(turn: Turn) -> None:
    """What another target makes of a trailing assistant message is not the caller's concern."""
    of = asked(provider("a", [*spoken("Hel|lo", whole=False), ConnectionReset()]), continuing("b", turn))
    with pytest.raises(ConnectionReset):
        await of.all()
    row = of.course.exchange
    assert (row.provider, row.continued_by, row.upstream_request_id) == ("a", [], "req-a")


@virtually
async def test_a_target_that_refuses_to_go_on_is_passed_over() -> None:
    """Another may continue a text where one takes the trailing assistant message for a mistake."""
    refusing, third = continuing("b", [BadRequest()]), continuing("c", spoken(" world"))
    of = asked(provider("a", [*spoken("Hello", whole=False), ConnectionReset()]), refusing, third)
    assert text_of(await of.all()) == "Hello world"
    row = of.course.exchange
    assert (row.provider, row.continued_by, row.failed_providers) == ("a", ["c"], ["a", "b"])


@pytest.mark.parametrize("error", [ContentFilter(), BadRequest()])
@virtually
async def test_what_is_the_same_everywhere_is_not_gone_on_with(error: EchoBrainError) -> None:
    """A refusal of the content is never routed around, in the middle of an answer neither."""
    second = continuing("b", spoken(" world"))
    of = asked(provider("a", [*spoken("Hel|lo", whole=False), error]), second)
    with pytest.raises(type(error)):
        await of.all()
    assert requests(second) == []


def parameter(**members: Any) -> ChatRequest:
    """A question for a stream with these parameters."""
    request = chat_request(stream=True)
    more = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in members.items()}
    return replace(request, parameters={**request.parameters, **more}, choices=members.get("n", 1))


TOOL = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}}]}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (parameter(n=2), spoken("Hel|lo", whole=False)),
        (parameter(response_format={"type": "json_object"}), spoken("{|1", whole=False)),
        (parameter(), read(sse(role()), sse(TOOL))),
        (parameter(), read(sse(event("Let me see")), sse(TOOL))),
    ],
    ids=["n", "structured", "tool call", "text and tool call"],
)
@virtually
async def test_tools_and_structures_are_never_gone_on_with(request_: ChatRequest, said: Turn) -> None:
    """Two models' halves are not what was asked for."""
    second = continuing("b", spoken(" world"))
    of = asked(provider("a", said), second, request=request_)
    with pytest.raises(BrokenAnswer):
        await of.all()
    assert requests(second) == []


@virtually
async def test_past_the_deadline_nobody_goes_on() -> None:
    """The total is that of the request, wherever its answer has come from; it is told as such."""
    quick = Limits(streaming_s=10.0, idle_s=100.0)
    first = provider("a", [*spoken("Hel|lo", whole=False), NEVER], limits=quick)
    second = continuing("b", spoken(" world"), limits=quick)
    of, began_s = asked(first, second), now_s()
    with pytest.raises(UpstreamTimeout) as caught:
        await of.all()
    assert (caught.value.limit, now_s() - began_s, requests(second)) == ("total", 10.0, [])


@virtually
async def test_who_goes_on_has_the_rest_of_the_time() -> None:
    """One deadline a request, never reset."""
    limits = Limits(streaming_s=10.0, idle_s=4.0, first_token_s=8.0)
    first = provider("a", [*spoken("Hel|lo", whole=False), NEVER], limits=limits)
    words = [step for chunk in spoken("|".join("x" * 9), of="b") for step in (chunk, 1.5)]
    of, began_s = asked(first, continuing("b", words, limits=limits)), now_s()
    with pytest.raises(UpstreamTimeout) as caught:
        await of.all()
    assert (caught.value.limit, now_s() - began_s) == ("total", 10.0)
