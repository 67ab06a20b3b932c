"""The OpenAI dialect: parameters pass through as they were written, answers come back as the upstream's own bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from shared.errors import BadRequest, EchoBrainError
from shared.models import Answer, ChatRequest, Chunk, Ending, Exchange

MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+\-]{0,199}")
_DONE: Final = b"data: [DONE]\n\n"


class OpenAIDialect:
    """`POST /v1/chat/completions`, as the openai SDKs speak it."""

    def decode(self, members: Mapping[str, msgspec.Raw], exchange: Exchange, *, stream: bool | None) -> ChatRequest:
        """Looks only at what the gateway must know; everything else is the provider's to judge."""
        messages = members.get("messages")
        if messages is None or not msgspec.json.decode(messages, type=list[msgspec.Raw] | Any):
            raise BadRequest("messages: is required and must not be empty", param="messages")
        read_member(members, "messages", list[dict[str, msgspec.Raw]], "an array of objects")
        streamed = read_member(members, "stream", bool, "true or false") or False if stream is None else stream
        exchange.stream = streamed
        return ChatRequest(
            parameters=members,
            model=read_model(members),
            stream=streamed,
            include_usage=_wants_usage(members),
            max_tokens=_cap(members),
            choices=read_member(members, "n", int, "a whole number of at least 1", least=1) or 1,
            trace_id=exchange.trace_id,
        )

    def answer(self, answer: Answer, exchange: Exchange) -> bytes:  # noqa: ARG002 - other dialects need it
        """The upstream's body, byte for byte."""
        return answer.body

    def error(self, error: EchoBrainError, exchange: Exchange) -> tuple[int, bytes]:  # noqa: ARG002
        """OpenAI's error envelope."""
        return error.openai_status or error.status, msgspec.json.encode({"error": error_object(error)})

    def encoder(self, exchange: Exchange) -> OpenAIStream:  # noqa: ARG002
        """A writer that copies."""
        return _STREAM


class OpenAIStream:
    """Copies the upstream's chunks; `[DONE]` only after a whole answer."""

    def opening(self) -> bytes:
        """Nothing: a failure before the first content byte is still a plain HTTP error."""
        return b""

    def chunk(self, chunk: Chunk) -> bytes:
        """The upstream's events, byte for byte."""
        return chunk.data

    def closing(self, ending: Ending) -> bytes:  # noqa: ARG002
        """`data: [DONE]`."""
        return _DONE

    def failure(self, error: EchoBrainError) -> bytes:
        """One chunk with a top-level error, and no [DONE]."""
        choice = {"index": 0, "delta": {}, "finish_reason": "error"}
        body = {"object": "chat.completion.chunk", "choices": [choice], "error": error_object(error)}
        return b"data: " + msgspec.json.encode(body) + b"\n\n"


_STREAM: Final = OpenAIStream()


def error_object(error: EchoBrainError) -> dict[str, str | None]:
    """OpenAI's form of an error."""
    return {"message": error.message, "type": error.openai_type, "code": error.code, "param": error.param}


def read_model(members: Mapping[str, msgspec.Raw]) -> str | None:
    """The model's name, if one is given; a name is a printable word."""
    model: str | None = read_member(members, "model", str, "the name of a model")
    if model is not None and not MODEL_NAME.fullmatch(model):
        raise BadRequest("model: must be the name of a model", param="model")
    return model


def read_member(members: Mapping[str, msgspec.Raw], name: str, kind: Any, what: str, least: int | None = None) -> Any:
    """The value of an optional member; null is the same as absent. Raises `BadRequest` that names the member."""
    raw = members.get(name)
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw, type=kind | None)
    except msgspec.DecodeError:
        raise BadRequest(f"{name}: must be {what}", param=name) from None
    if least is not None and value is not None and value < least:
        raise BadRequest(f"{name}: must be {what}", param=name)
    return value


def _cap(members: Mapping[str, msgspec.Raw]) -> int | None:
    caps = [
        read_member(members, name, int, "a whole number of at least 1", least=1)
        for name in ("max_tokens", "max_completion_tokens")
    ]
    return max((cap for cap in caps if cap is not None), default=None)


def _wants_usage(members: Mapping[str, msgspec.Raw]) -> bool:
    options = read_member(members, "stream_options", dict[str, Any], "an object")
    return bool(options) and options.get("include_usage") is True
