"""The Brain dialect: each bad field is refused by its path, and streams are put together as answers are."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.api.brain import BrainDialect
from shared.api.guard import Body
from shared.errors import BadRequest, ContextLengthExceeded, EchoBrainError, RateLimited
from shared.models import Answer, AnswerMessage, ChatRequest, Choice, Chunk, Delta, Ending, Event, Exchange, Usage
from shared.settings import Deployment
from tests.unit.fakes import exchange

DIALECT = BrainDialect(Deployment("test", "abc", "now"), "openai")
USER = {"role": "user", "content": "Hello"}
MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
LAST = Ending("stop", None, None, None)


def decode(payload: dict[str, Any], row: Exchange | None = None, *, stream: bool = False) -> ChatRequest:
    """The request that a payload is."""
    raw = json.dumps(payload).encode()
    return DIALECT.decode(Body(raw, MEMBERS.decode(raw)), row or exchange(), stream=stream)


def question(**fields: Any) -> dict[str, Any]:
    """The smallest question and these fields."""
    return {"messages": [USER], **fields}


def message(**fields: Any) -> dict[str, Any]:
    """A question whose second message is this."""
    return {"messages": [USER, {"role": "user", **fields}]}


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "Hello"}, "messages"),
    ({"messages": ["Hello"]}, "messages[0]"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].role"),
    ({"messages": [USER, {"role": "user"}]}, "messages[1].content"),
    (message(content=None), "messages[1].content"),
    (message(content=7), "messages[1].content"),
    (message(content=[]), "messages[1].content"),
    (message(content=["x"]), "messages[1].content[0]"),
    (message(content=[{"type": "text"}, {"text": "x"}]), "messages[1].content[1].type"),
    (message(content=[{"type": ""}]), "messages[1].content[0].type"),
    (message(content="x", name="Ann"), "messages[1].name"),
    (question(session_id=""), "session_id"),
    (question(session_id="s" * 201), "session_id"),
    (question(session_id=7), "session_id"),
    (question(metadata=[]), "metadata"),
    (question(model=7), "model"),
    (question(model=""), "model"),
    (question(model="two words"), "model"),
    (question(model="m" * 201), "model"),
    (question(temperature=2.1), "temperature"),
    (question(temperature=-0.1), "temperature"),
    (question(temperature="1"), "temperature"),
    (question(temperature=True), "temperature"),
    (question(top_p=1.01), "top_p"),
    (question(max_tokens=0), "max_tokens"),
    (question(max_tokens=1.5), "max_tokens"),
    (question(max_tokens=True), "max_tokens"),
    (question(stop=[]), "stop"),
    (question(stop=["a"] * 5), "stop"),
    (question(stop=[1]), "stop[0]"),
    (question(seed="7"), "seed"),
    (question(response_format="json"), "response_format"),
    (question(tools={}), "tools"),
    (question(tools=["x"]), "tools[0]"),
    (question(tool_choice=1), "tool_choice"),
    (question(n=2), "n"),
    (question(stream=True), "stream"),
    (question(frequency_penalty=1), "frequency_penalty"),
]


@pytest.mark.parametrize(("payload", "path"), BAD, ids=lambda part: part if isinstance(part, str) else "")
def test_a_bad_field_is_refused_by_its_path(payload: dict[str, Any], path: str) -> None:
    """The message leads with the path, the parameter is the path."""
    with pytest.raises(BadRequest) as caught:
        decode(payload)
    assert caught.value.param == path
    assert caught.value.message.startswith(f"{path}: ")


UTF8 = st.characters(codec="utf-8")


@given(st.text(UTF8, max_size=300))
def test_an_unknown_field_of_any_name_is_refused_in_one_short_line(name: str) -> None:
    """Whatever a field is called, the message is short and printable."""
    if name in decode_names():
        return
    raw = json.dumps(question(**{name: 1})).encode()
    with pytest.raises(BadRequest) as caught:
        DIALECT.decode(Body(raw, MEMBERS.decode(raw)), exchange(), stream=False)
    assert len(caught.value.message) < 1000
    assert caught.value.message.isprintable()


def decode_names() -> set[str]:
    """The fields of a Brain request."""
    optional = {"session_id", "metadata", "model", "temperature", "top_p", "max_tokens", "stop", "seed"}
    return {"messages", "response_format", "tools", "tool_choice"} | optional


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, st.text(UTF8, max_size=5))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(UTF8, max_size=5), inner, max_size=3)),
    max_leaves=8,
)


def refusal_of(payload: dict[str, Any]) -> BadRequest | None:
    """What is wrong with the payload, if anything is."""
    try:
        decode(payload)
    except BadRequest as error:
        return error
    return None


@given(VALUES, st.sampled_from(sorted(decode_names())))
def test_a_field_with_any_value_is_taken_or_refused(value: Any, name: str) -> None:
    """No value of any field is anything but a request or a `BadRequest` that names the field."""
    refusal = refusal_of(question(**{name: value}))
    assert refusal is None or str(refusal.param).startswith(name)


def test_what_goes_upstream_is_what_the_caller_wrote() -> None:
    """Our own fields and nulls stay here, numbers and texts keep their form, `max_tokens` is the gateway's."""
    raw = (
        b'{"messages": [{"role":"user","content":"\\u0048i"}], "temperature": 1.0e0, "session_id": "s", '
        b'"metadata": {}, "top_p": null, "max_tokens": 5, "seed": 7}'
    )
    request = DIALECT.decode(Body(raw, MEMBERS.decode(raw)), exchange(), stream=False)
    assert {name: bytes(value) for name, value in request.parameters.items()} == {
        "messages": b'[{"role":"user","content":"\\u0048i"}]',
        "temperature": b"1.0e0",
        "seed": b"7",
    }
    assert (request.stream, request.include_usage, request.choices) == (False, True, 1)


def test_a_session_is_echoed_or_made() -> None:
    """An id of the caller's is kept; else it is a UUID."""
    given_id, made = exchange(), exchange()
    decode(question(session_id="s-42"), given_id)
    decode(question(), made)
    assert given_id.session_id == "s-42"
    assert str(uuid.UUID(made.session_id)) == made.session_id


def test_an_answer_is_the_contracts() -> None:
    """Every member of the Brain response."""
    row = exchange(
        session_id="s-1", provider="openai", model="gpt-x", usage=Usage(1, 2, 3), upstream_request_id="req_1"
    )
    answer = Answer(b"", AnswerMessage("Hi"), LAST)
    assert json.loads(DIALECT.answer(answer, row)) == {
        "ok": True,
        "session_id": "s-1",
        "message": {"role": "assistant", "content": "Hi"},
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        "metadata": {"provider": "openai", "model": "gpt-x", "openai_request_id": "req_1"},
        "runtime": {
            "trace_id": "trace-1",
            "provider": "openai",
            "env": "test",
            "git_sha": "abc",
            "build_time": "now",
        },
    }


@pytest.mark.parametrize(
    "error", [RateLimited(upstream_request_id="req_1"), ContextLengthExceeded(), BadRequest("x: y")]
)
def test_an_error_is_the_contracts(error: EchoBrainError) -> None:
    """The envelope, and the provider of this process where none was reached."""
    status, body = DIALECT.error(error, exchange())
    envelope = json.loads(body)
    assert status == error.status
    assert envelope["ok"] is False
    assert envelope["error"] == {
        "code": error.code,
        "message": error.message,
        "upstream_request_id": error.upstream_request_id,
    }
    assert envelope["runtime"]["provider"] == "openai"


def chunk(*deltas: Delta, index: int = 0) -> Chunk:
    """A chunk with one event a delta."""
    return Chunk(b"", [Event(choices=[Choice(index=index, delta=delta)]) for delta in deltas], has_content=True)


def events(data: bytes) -> list[tuple[str, Any]]:
    """Name and data of each event."""
    rows = []
    for block in data.decode().split("\n\n")[:-1]:
        name, _, text = block.partition("\n")
        rows.append((name.removeprefix("event: "), json.loads(text.removeprefix("data: "))))
    return rows


def test_a_stream_is_meta_tokens_and_final() -> None:
    """Each text is a token with the session, and the final event is the whole answer."""
    writer = DIALECT.encoder(exchange(session_id="s-1", provider="openai", model="gpt-x"))
    said = writer.opening()
    said += writer.chunk(chunk(Delta(content="Hel"), Delta(content=""), Delta(content=None), Delta(content="lo\n")))
    said += writer.chunk(chunk(Delta(content="another choice"), index=1))
    said += writer.closing(LAST)
    rows = events(said)
    assert rows[:3] == [
        ("meta", {"trace_id": "trace-1", "session_id": "s-1", "provider": "openai", "model": "gpt-x"}),
        ("token", {"token": "Hel", "session_id": "s-1"}),
        ("token", {"token": "lo\n", "session_id": "s-1"}),
    ]
    assert (rows[3][0], rows[3][1]["message"]) == ("final", {"role": "assistant", "content": "Hello\n"})


def test_a_stream_that_others_went_on_with_names_them() -> None:
    """Beside the first one, which is the provider; where nobody did, there is no such member (see above)."""
    row = exchange(provider="first", continued_by=["second", "third"])
    metadata = events(DIALECT.encoder(row).closing(LAST))[0][1]["metadata"]
    assert (metadata["provider"], metadata["continued_by"]) == ("first", ["second", "third"])


def test_tool_calls_are_put_together() -> None:
    """Fragments by index; a message of tool calls alone has no content."""
    writer = DIALECT.encoder(exchange())
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}
    second = {"index": 1, "id": "call_2", "type": "function", "function": {"name": "go", "arguments": "{}"}}
    writer.chunk(chunk(Delta(tool_calls=[second]), Delta(tool_calls=[first])))
    writer.chunk(chunk(Delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}])))
    writer.chunk(chunk(Delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}])))
    ((_, final),) = events(writer.closing(LAST))
    assert final["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
            {"id": "call_2", "type": "function", "function": {"name": "go", "arguments": "{}"}},
        ],
    }


def test_an_empty_answer_is_an_empty_text() -> None:
    """No token at all is a message all the same."""
    ((_, final),) = events(DIALECT.encoder(exchange()).closing(LAST))
    assert final["message"] == {"role": "assistant", "content": ""}


def test_a_failure_is_the_error_envelope() -> None:
    """As it would have been without a stream."""
    ((name, data),) = events(DIALECT.encoder(exchange()).failure(RateLimited()))
    assert (name, data["ok"], data["error"]["code"]) == ("error", False, "rate_limit")


@pytest.mark.parametrize(
    "calls",
    [
        7,
        "x",
        {"a": 1},
        [7],
        [{"index": "one"}],
        [{"index": [1]}],
        [{"function": "f"}],
        [{"function": {"name": 7}}],
        [{"index": -1}],
    ],
)
def test_tool_calls_of_another_shape_do_not_break_the_stream(calls: object) -> None:
    """Vendors differ; what cannot be put together is not our bug."""
    writer = DIALECT.encoder(exchange())
    writer.chunk(chunk(Delta(content="Hi", tool_calls=calls)))
    assert events(writer.closing(LAST))[0][0] == "final"


def test_half_a_surrogate_pair_does_not_break_an_answer() -> None:
    """Vendors cut emoji in two between tokens; the caller gets a stream and an answer all the same."""
    writer = DIALECT.encoder(exchange())
    said = writer.chunk(chunk(Delta(content="\ud83d"), Delta(content="\ude00"))) + writer.closing(LAST)
    assert [name for name, _ in events(said)] == ["token", "token", "final"]
    assert json.loads(DIALECT.answer(Answer(b"", AnswerMessage("a\ud83d"), LAST), exchange()))["ok"] is True
