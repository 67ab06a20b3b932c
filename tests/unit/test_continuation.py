"""A stream that another target goes on with: what it is asked, and that the caller cannot tell where the seam is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from shared.continuation import MAX_TEXT_CHARS, Joint, Shown, added, continuable, continued, merged
from shared.models import ChatRequest, Choice, Chunk, Delta, Ending, Event, TokenCap, Usage
from tests.unit.fakes import chat_request
from tests.unit.scripted import event, read, role, sse, usage_event


def with_parameters(**members: Any) -> ChatRequest:
    """A question with these parameters."""
    request = chat_request(stream=True)
    more = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in members.items()}
    return replace(request, parameters={**request.parameters, **more}, choices=members.get("n", 1))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, True),
        ({"response_format": None}, True),
        ({"response_format": {"type": "text"}}, True),
        ({"tools": [{"type": "function"}]}, True),  # a text beside tools is a text; a tool call is not, see below
        ({"n": 1}, True),
        ({"n": 2}, False),
        ({"response_format": {"type": "json_object"}}, False),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, False),
        ({"response_format": {}}, False),
        ({"response_format": "text"}, False),
        ({"response_format": ["text"]}, False),
    ],
)
def test_only_one_free_text_is_continued(parameters: dict[str, Any], expected: bool) -> None:
    """Never one of several choices, never structured output; what is not understood is structured."""
    assert continuable(with_parameters(**parameters)) is expected


def said(*deltas: Delta, index: int = 0, usage: object = None) -> Chunk:
    """A chunk with an event for each delta."""
    events = [Event(choices=[Choice(index=index, delta=delta)], usage=usage) for delta in deltas]
    return Chunk(sse(event("x")), events, has_content=any(delta.says_something() for delta in deltas))


def shown(*chunks: Chunk) -> Shown:
    """What a caller has been shown."""
    of = Shown()
    for chunk in chunks:
        of.take(chunk)
    return of


def test_the_text_is_all_that_was_shown() -> None:
    """Piece by piece, whatever else the chunks have."""
    of = shown(
        Chunk(b"", [Event()], has_content=False),
        said(Delta(content="")),
        said(Delta(content="Hel"), Delta(content=None), Delta(content="lo")),
        Chunk(b"", [Event(choices=[Choice(delta=None)])], has_content=False),
        said(Delta(content=" wor", reasoning="hm")),
    )
    assert of.text == "Hello wor"


@pytest.mark.parametrize(
    "chunk",
    [
        said(Delta(tool_calls=[{"index": 0}])),
        said(Delta(function_call={"name": "f"})),
        said(Delta(refusal="No")),
        said(Delta(audio={"data": "x"})),
        said(Delta(content="another choice"), index=1),
    ],
    ids=["tool call", "function call", "refusal", "audio", "second choice"],
)
def test_what_is_more_than_text_is_not_continued(chunk: Chunk) -> None:
    """Neither before the text nor behind it."""
    assert shown(chunk, said(Delta(content="Hello"))).text is None
    assert shown(said(Delta(content="Hello")), chunk).text is None


def test_where_no_text_was_shown_there_is_nothing_to_go_on_with() -> None:
    """A model that has only thought so far has said nothing."""
    assert shown().text is None
    assert shown(said(Delta(reasoning_content="Let me see"))).text is None


def test_an_endless_text_is_not_kept() -> None:
    """Up to the limit it is, beyond it nobody goes on, and what is beyond takes no memory."""
    almost = shown(said(Delta(content="x" * MAX_TEXT_CHARS)))
    assert almost.text == "x" * MAX_TEXT_CHARS
    almost.take(said(Delta(content="y")))
    assert almost.text is None


def members(request: ChatRequest) -> dict[str, Any]:
    """The request's parameters, decoded."""
    return {name: json.loads(bytes(raw)) for name, raw in request.parameters.items()}


def test_the_rest_is_asked_for_with_the_text_so_far() -> None:
    """As a trailing assistant message; everything else is as the caller wrote it."""
    request = with_parameters(temperature=0.5, tools=[{"type": "function"}])
    rest = continued(request, shown(said(Delta(content="Hello wor"))))
    before = members(request)
    assert members(rest) == {
        **before,
        "messages": [*before["messages"], {"role": "assistant", "content": "Hello wor"}],
    }
    assert (rest.continues, rest.model, rest.stream, rest.trace_id) == (True, request.model, True, request.trace_id)
    assert not request.continues


@pytest.mark.parametrize("names", [["max_tokens"], ["max_completion_tokens"], ["max_tokens", "max_completion_tokens"]])
@pytest.mark.parametrize(("cap", "tokens", "left"), [(60, 40, 20), (60, 60, 1), (60, 99, 1), (1, 1, 1)])
def test_the_cap_is_less_what_is_there(names: list[str], cap: int, tokens: int, left: int) -> None:
    """The caller's limit holds for the whole answer, wherever it is named; one token is the least to ask for."""
    request = replace(with_parameters(**dict.fromkeys(names, cap)), cap=TokenCap(cap, names[0]))
    rest = continued(request, shown(*[said(Delta(content="t"))] * tokens))
    assert {name: members(rest)[name] for name in names} == dict.fromkeys(names, left)
    assert rest.cap == TokenCap(left, names[0])


def test_several_tokens_in_one_chunk_are_several() -> None:
    """A fast upstream's tokens come together; the cap is less all of them."""
    request = with_parameters(max_tokens=60)
    one_block = read(sse(*(event("t") for _ in range(40))))
    assert members(continued(request, shown(*one_block)))["max_tokens"] == 20


def test_without_a_cap_there_is_none_to_reduce() -> None:
    """Null is none, and what is no number is the provider's to judge."""
    of = shown(said(Delta(content="t")))
    assert "max_tokens" not in members(continued(with_parameters(), of))
    assert members(continued(with_parameters(max_tokens=None), of))["max_tokens"] is None
    assert continued(with_parameters(), of).cap is None


def data_of(chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
    """The chunk objects that a client reads."""
    data = b"".join(chunk.data for chunk in chunks)
    return [json.loads(line[6:]) for line in data.decode("ascii").split("\n\n")[:-1]]


def through(joint: Joint, of: Shown, chunks: Sequence[Chunk]) -> list[Chunk]:
    """The chunks as the caller gets them, and noted as shown."""
    joined = [joint.join(chunk) for chunk in chunks]
    for chunk in joined:
        of.take(chunk)
    return joined


def test_what_is_joined_has_one_id_and_one_role() -> None:
    """The first one's id and time; the second one's opening is gone, its other members stay."""
    of = shown(*read(sse(role("a")), sse(event("Hel", of="a"))))
    second = read(
        sse(role("b")), sse(event("lo", of="b", service_tier="x")), sse(event(of="b", finish="stop")), done=True
    )
    rows = data_of(through(Joint(of), of, second))
    assert [(row["id"], row["created"]) for row in rows] == [("id-a", 7)] * 2
    assert [row["choices"][0]["delta"] for row in rows] == [{"content": "lo"}, {}]
    assert (rows[0]["service_tier"], rows[1]["choices"][0]["finish_reason"]) == ("x", "stop")


def test_a_role_beside_content_is_taken_away_alone() -> None:
    """Some vendors write the role on every chunk."""
    chatty = sse({**event(of="b"), "choices": [{"index": 0, "delta": {"role": "assistant", "content": "lo"}}]})
    of = shown(*read(sse(event("Hel"))))
    assert data_of(through(Joint(of), of, read(chatty)))[0]["choices"][0]["delta"] == {"content": "lo"}


def test_without_an_id_at_first_the_others_stay() -> None:
    """What the first one did not write is not made up."""
    nameless = {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}
    of = shown(*read(sse(nameless)))
    assert data_of(through(Joint(of), of, read(sse(event("lo", of="b")))))[0]["id"] == "id-b"


def counting(text: str, prompt: int, *, of: str) -> list[Chunk]:
    """A vendor that tells the usage so far on every chunk."""
    rows = []
    for number, word in enumerate(text, 1):
        usage = usage_event(prompt, number)["usage"]
        rows.append(sse(event(word, of=of, usage=usage)))
    return read(*rows, of=of)


def test_the_usage_of_three_is_summed() -> None:
    """What each had told of when it broke off, and what the last one tells in the end; details of it stay."""
    of = shown(*counting("abc", 10, of="a"))
    middle = through(Joint(of), of, counting("de", 20, of="b"))
    assert data_of(middle)[-1]["usage"] == {"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35}
    last = usage_event(30, 4, of="c")
    last["usage"]["prompt_tokens_details"] = {"cached_tokens": 1}
    third = read(sse(event("f", of="c")), sse(event(of="c", finish="stop")), sse(last), done=True, of="c")
    joined = through(Joint(of), of, third)
    summed = {"prompt_tokens": 60, "completion_tokens": 9, "total_tokens": 69}
    assert data_of(joined)[-1]["usage"] == {**summed, "prompt_tokens_details": {"cached_tokens": 1}}
    assert joined[-1].ending == Ending("stop", Usage(60, 9, 69), None, None)


def test_usage_that_nobody_told_is_not_made_up() -> None:
    """An ending without usage stays without, and rubbish in its place is passed on."""
    of = shown(*counting("abc", 10, of="a"))
    strange = {**event("d", of="b"), "usage": "much"}
    joined = through(Joint(of), of, read(sse(strange), sse(event(of="b", finish="stop")), done=True))
    assert data_of(joined)[0]["usage"] == "much"
    assert joined[-1].ending == Ending("stop", None, None, None)


def test_what_goes_out_together_is_one_chunk() -> None:
    """One alone is itself; of several, data and events in their order, the content of any, the ending of the last."""
    one, two = read(sse(role())), read(sse(event("x")), sse(event(finish="stop")), done=True)
    assert merged(one[1:]) is one[1]
    whole = merged([*one, *two])
    assert whole.data == b"".join(chunk.data for chunk in (*one, *two))
    assert len(whole.events) == 3
    assert (whole.has_content, whole.ending) == (True, two[-1].ending)
    assert not merged(one).has_content


def test_added_usage_is_the_sum() -> None:
    """Member by member."""
    assert added(Usage(1, 2, 3), Usage(10, 20, 30)) == Usage(11, 22, 33)


def test_a_trailing_assistant_message_of_the_callers_is_made_longer() -> None:
    """Two assistant messages in a row would be another conversation; one in parts stays as it was written."""
    asked = with_parameters(
        messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": "A", "name": "x"}]
    )
    assert members(continued(asked, shown(said(Delta(content="B")))))["messages"][1:] == [
        {"role": "assistant", "content": "AB", "name": "x"}
    ]
    parts = [{"type": "text", "text": "A"}]
    asked = with_parameters(messages=[{"role": "assistant", "content": parts}])
    assert members(continued(asked, shown(said(Delta(content="B")))))["messages"] == [
        {"role": "assistant", "content": parts},
        {"role": "assistant", "content": "B"},
    ]


def test_the_id_is_that_of_the_first_chunk_that_has_one() -> None:
    """Azure begins with a chunk about filters, whose id is empty."""
    of = Shown()
    of.take(merged(read(sse({**event(), "id": "", "created": 0}), sse(event("Hi", of="a")))))
    (_, chunk) = read(sse(event("!", of="b")), of="b")
    assert b'"id":"id-a"' in Joint(of).join(chunk).data
