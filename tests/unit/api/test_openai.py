"""The OpenAI dialect: looks only at what it must, passes on what was written, says errors as OpenAI does."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from shared.api.guard import Body
from shared.api.openai import MAX_CHOICES, OpenAIDialect
from shared.errors import BadRequest, MethodNotAllowed, UpstreamAuthError, UpstreamError, UpstreamTimeout
from shared.models import Answer, AnswerMessage, ChatRequest, Ending
from tests.unit.fakes import exchange, token
from tests.unit.test_errors import example, family

DIALECT = OpenAIDialect()
MESSAGES = [{"role": "user", "content": "Hello"}]
MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
ENDING = Ending("stop", None, None, None)


def decode(payload: object) -> ChatRequest:
    """The request that a payload, or its raw text, is."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return DIALECT.decode(Body(raw, MEMBERS.decode(raw)), exchange(), stream=None)


def question(**fields: Any) -> dict[str, Any]:
    """The smallest question and these fields."""
    return {"messages": MESSAGES, **fields}


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [MESSAGES[0], "Hello"]}, "messages[1]"),
        ({"messages": [None]}, "messages[0]"),
        (question(model=7), "model"),
        (question(model=""), "model"),
        (question(model="two words"), "model"),
        (question(model="line\n"), "model"),
        (question(stream="yes"), "stream"),
        (question(stream=1), "stream"),
        (question(stream_options=True), "stream_options"),
        (question(stream_options={"include_usage": "yes"}), "stream_options.include_usage"),
        (question(n=0), "n"),
        (question(n=-1), "n"),
        (question(n=1.5), "n"),
        (question(n="2"), "n"),
        (question(n=MAX_CHOICES + 1), "n"),
        (question(n=10**30), "n"),
        (question(max_tokens=0), "max_tokens"),
        (question(max_tokens="9"), "max_tokens"),
        (question(max_completion_tokens=0), "max_completion_tokens"),
    ],
)
def test_a_bad_field_is_refused_by_its_path(payload: dict[str, Any], path: str) -> None:
    """Only what the gateway itself needs is checked; the parameter names it."""
    with pytest.raises(BadRequest) as caught:
        decode(payload)
    assert caught.value.param == path
    assert caught.value.message.startswith(f"{path}: ")


def test_everything_else_is_the_providers_to_judge() -> None:
    """Unknown parameters, other roles and odd values pass, byte for byte."""
    raw = (
        b'{"messages":[{"role":"tool","content":null,"x":[1e-07]}],"temperature": 99, "logit_bias":{"1":-1.0e2} ,'
        b'"future":"\\u00e9","tools":"none","metadata":null}'
    )
    request = decode(raw)
    assert {name: bytes(value) for name, value in request.parameters.items()} == {
        "messages": b'[{"role":"tool","content":null,"x":[1e-07]}]',
        "temperature": b"99",
        "logit_bias": b'{"1":-1.0e2}',
        "future": b'"\\u00e9"',
        "tools": b'"none"',
        "metadata": b"null",
    }


def test_null_is_the_same_as_absent() -> None:
    """As OpenAI has it."""
    names = ("model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens")
    request = decode(question(**dict.fromkeys(names)))
    assert (request.model, request.stream, request.include_usage, request.cap, request.choices) == (
        None,
        False,
        False,
        None,
        1,
    )


def test_what_the_gateway_must_know_is_read() -> None:
    """Stream, usage, choices, model, and the larger of the two caps with its name."""
    options = {"include_usage": True, "other": 1}
    request = decode(question(stream=True, stream_options=options, n=3, model="org/m:1", max_tokens=5))
    assert (request.stream, request.include_usage, request.choices, request.model) == (True, True, 3, "org/m:1")
    both = decode(question(max_tokens=5, max_completion_tokens=9)).cap
    assert both is not None
    assert (both.tokens, both.parameter) == (9, "max_completion_tokens")


def test_an_answer_is_the_upstreams_bytes() -> None:
    """Nothing is rewritten."""
    body = b' {"odd" :  1.0e0}\r\n'
    assert DIALECT.answer(Answer(body, AnswerMessage(), ENDING), exchange()) is body


def test_a_stream_is_copied_and_done() -> None:
    """Nothing before the first chunk, the bytes themselves, then [DONE]."""
    writer = DIALECT.encoder(exchange())
    assert (writer.opening(), writer.chunk(token("x")), writer.closing(ENDING)) == (
        b"",
        b"data: x\n\n",
        b"data: [DONE]\n\n",
    )


def test_a_broken_stream_is_one_chunk_with_an_error() -> None:
    """A top-level error, a finish_reason of error, and no [DONE]."""
    said = DIALECT.encoder(exchange()).failure(UpstreamTimeout("idle", 15))
    body = json.loads(said.removeprefix(b"data: "))
    assert said.endswith(b"}\n\n")
    assert body["error"] == {
        "message": "The provider's stream stood still for 15 s.",
        "type": "server_error",
        "code": "timeout",
        "param": None,
    }
    assert body["choices"] == [{"index": 0, "delta": {}, "finish_reason": "error"}]


@pytest.mark.parametrize("kind", family(), ids=lambda kind: str(kind.__name__))
def test_every_error_has_openais_form(kind: type) -> None:
    """All four members, whatever the error."""
    error = example(kind)
    status, body = DIALECT.error(error, exchange())
    assert status == (500 if kind is UpstreamAuthError else error.status)
    shape = json.loads(body)["error"]
    assert set(shape) == {"message", "type", "code", "param"}
    assert (shape["message"], shape["code"]) == (error.message, error.code)


def test_a_refused_parameter_is_named() -> None:
    """OpenAI's clients show it."""
    _, body = DIALECT.error(BadRequest("n: too many", param="n"), exchange())
    assert json.loads(body)["error"]["param"] == "n"


def test_the_types_are_openais() -> None:
    """The SDKs choose their exceptions by status, people by type."""
    kinds = {UpstreamError: "server_error", BadRequest: "invalid_request_error"}
    for kind, expected in kinds.items():
        assert json.loads(DIALECT.error(kind(), exchange())[1])["error"]["type"] == expected
    assert json.loads(DIALECT.error(MethodNotAllowed("GET"), exchange())[1])["error"]["type"] == "invalid_request_error"
