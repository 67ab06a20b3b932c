"""The OpenAI dialect: parameters pass through as they were written, answers come back as the upstream's own bytes."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from shared.api.guard import AnyObject, Body, field_error
from shared.errors import BadRequest, EchoBrainError
from shared.models import Answer, ChatRequest, Chunk, Ending, Exchange, TokenCap
from shared.settings import MODEL_NAME

MAX_CHOICES: Final = 128  # OpenAI's own limit of `n`
_DONE: Final = b"data: [DONE]\n\n"


_Count = Annotated[int, msgspec.Meta(ge=1)]


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Request(msgspec.Struct):
    """What is looked at; a member that is null counts as absent."""

    messages: Annotated[list[AnyObject], msgspec.Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None


_request = msgspec.json.Decoder(_Request)


class OpenAIDialect:
    """`POST /v1/chat/completions`, as the openai SDKs speak it."""

    opening_wait_s = None  # until then a failure is still a plain HTTP error

    def decode(self, body: Body, exchange: Exchange, *, stream: bool | None) -> ChatRequest:  # noqa: ARG002
        """Looks only at what the gateway must know; everything else is the provider's to judge."""
        try:
            request = _request.decode(body.raw)
        except msgspec.DecodeError as error:
            raise field_error(error) from None
        exchange.stream = bool(request.stream)
        named = (("max_tokens", request.max_tokens), ("max_completion_tokens", request.max_completion_tokens))
        caps = [TokenCap(tokens, parameter) for parameter, tokens in named if tokens is not None]
        return ChatRequest(
            parameters=body.members,
            model=checked_model(request.model),
            stream=bool(request.stream),
            include_usage=request.stream_options is not None and request.stream_options.include_usage is True,
            cap=max(caps, key=lambda cap: cap.tokens, default=None),
            choices=request.n or 1,
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


def checked_model(model: str | None) -> str | None:
    """The model's name as the caller gave it, if it is a name: it goes into headers, logs and other people's URLs."""
    if model is not None and not MODEL_NAME.fullmatch(model):
        raise BadRequest("model: must be the name of a model", param="model")
    return model
