"""The Brain dialect: a small, strict request, one envelope for answers and errors, and named events in a stream."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any, Final, Literal

import msgspec

from shared.api.guard import AnyObject, Body, field_error
from shared.api.openai import checked_model
from shared.errors import EchoBrainError, UpstreamError
from shared.models import Answer, ChatRequest, Chunk, Delta, Ending, Exchange, TokenCap
from shared.settings import Deployment

MAX_SESSION_ID: Final = 200
MAX_ANSWER_CHARS: Final = 64 * 1024 * 1024  # of a stream, which is gathered for its final event
_NOT_FORWARDED: Final = frozenset({"session_id", "metadata", "max_tokens"})

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Part(msgspec.Struct):
    """An OpenAI content part; what is in it is the provider's to judge."""

    type: _Text


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[_Part], msgspec.Meta(min_length=1)]


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    session_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SESSION_ID)] | None = None
    metadata: AnyObject | None = None
    model: str | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=4)] | None = None
    seed: int | None = None
    response_format: AnyObject | None = None
    tools: list[AnyObject] | None = None
    tool_choice: str | AnyObject | None = None


_request = msgspec.json.Decoder(_Request)


class BrainDialect:
    """`POST /v1/brain/chat` and `/v1/brain/chat/stream`, as docs/brain_api.md describes them."""

    opening_wait_s = 1.0  # most first tokens come sooner: then `meta` and the headers name who has answered

    def __init__(self, deployment: Deployment, provider: str) -> None:
        self._deployment = deployment
        self._provider = provider  # shown where a request was refused before it came to one

    def decode(self, body: Body, exchange: Exchange, *, stream: bool | None) -> ChatRequest:
        """The whole request is checked here; unknown fields are refused by name."""
        try:
            request = _request.decode(body.raw)
        except msgspec.DecodeError as error:
            raise field_error(error) from None
        exchange.session_id = request.session_id or str(uuid.uuid4())
        exchange.stream = bool(stream)
        members = body.members.items()
        return ChatRequest(
            parameters={name: raw for name, raw in members if name not in _NOT_FORWARDED and bytes(raw) != b"null"},
            model=checked_model(request.model),
            stream=bool(stream),
            include_usage=True,
            cap=None if request.max_tokens is None else TokenCap(request.max_tokens, "max_tokens"),
            choices=1,
            trace_id=exchange.trace_id,
        )

    def answer(self, answer: Answer, exchange: Exchange) -> bytes:
        """The Brain response."""
        message = {"role": "assistant", "content": answer.message.content}
        if answer.message.tool_calls:
            message["tool_calls"] = answer.message.tool_calls
        return _json(self.response(message, exchange))

    def error(self, error: EchoBrainError, exchange: Exchange) -> tuple[int, bytes]:
        """The Brain error envelope."""
        body = {
            "ok": False,
            "error": {
                "code": error.code,
                "message": error.message,
                "upstream_request_id": error.upstream_request_id or exchange.upstream_request_id,
            },
            "runtime": self.runtime(exchange),
        }
        return error.status, msgspec.json.encode(body)

    def encoder(self, exchange: Exchange) -> BrainStream:
        """A writer that also gathers the answer, for the final event."""
        return BrainStream(self, exchange)

    def response(self, message: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        """The Brain response around an assistant's message."""
        others = {"continued_by": exchange.continued_by} if exchange.continued_by else {}
        return {
            "ok": True,
            "session_id": exchange.session_id,
            "message": message,
            "usage": exchange.usage,
            "metadata": {
                "provider": exchange.provider,
                "model": exchange.model,
                "openai_request_id": exchange.upstream_request_id,
                **others,
            },
            "runtime": self.runtime(exchange),
        }

    def runtime(self, exchange: Exchange) -> dict[str, str | None]:
        """Which revision answered, and the id to find the request by."""
        return {
            "trace_id": exchange.trace_id,
            "provider": exchange.provider or self._provider,
            "env": self._deployment.env,
            "git_sha": self._deployment.git_sha,
            "build_time": self._deployment.build_time,
        }


class BrainStream:
    """`meta`, then `token` …, then exactly one of `final` and `error`."""

    def __init__(self, dialect: BrainDialect, exchange: Exchange) -> None:
        self._dialect = dialect
        self._exchange = exchange
        self._tokens: list[str] = []
        self._size = 0
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._token_end = b',"session_id":' + msgspec.json.encode(exchange.session_id) + b"}\n\n"

    def opening(self) -> bytes:
        """The `meta` event."""
        exchange = self._exchange
        meta = {
            "trace_id": exchange.trace_id,
            "session_id": exchange.session_id,
            "provider": exchange.provider,
            "model": exchange.model,
        }
        return _event("meta", msgspec.json.encode(meta))

    def chunk(self, chunk: Chunk) -> bytes:
        """A `token` event for each piece of text."""
        frames: list[bytes] = []
        for event in chunk.events:
            for choice in event.choices or ():
                if choice.index == 0 and choice.delta is not None:
                    self._take(choice.delta, frames)
        return b"".join(frames)

    def closing(self, ending: Ending) -> bytes:  # noqa: ARG002 - the exchange has taken it over
        """The `final` event: the Brain response as it would have been without a stream."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._tokens) or None}
        if self._tool_calls:
            message["tool_calls"] = [call for _, call in sorted(self._tool_calls.items())]
        elif message["content"] is None:
            message["content"] = ""
        return _event("final", _json(self._dialect.response(message, self._exchange)))

    def failure(self, error: EchoBrainError) -> bytes:
        """The `error` event."""
        return _event("error", self._dialect.error(error, self._exchange)[1])

    def _take(self, delta: Delta, frames: list[bytes]) -> None:
        if isinstance(delta.content, str) and delta.content:
            self._size += len(delta.content)
            if self._size > MAX_ANSWER_CHARS:
                raise UpstreamError(upstream_request_id=self._exchange.upstream_request_id)
            self._tokens.append(delta.content)
            frames.append(b'event: token\ndata: {"token":' + _json(delta.content) + self._token_end)
        for part in delta.tool_calls if isinstance(delta.tool_calls, list) else ():
            if isinstance(part, dict) and isinstance(index := part.get("index") or 0, int):
                _add_fragment(self._tool_calls.setdefault(index, {}), part)


def _add_fragment(call: dict[str, Any], fragment: dict[str, Any]) -> None:
    """Puts a streamed tool call together: the first fragment has id and name, the arguments come in pieces."""
    for name in ("id", "type"):
        if fragment.get(name):
            call[name] = fragment[name]
    function = call.setdefault("function", {"name": "", "arguments": ""})
    given = fragment.get("function")
    for name in ("name", "arguments"):
        piece = given.get(name) if isinstance(given, dict) else None
        if isinstance(piece, str):
            function[name] += piece


def _json(value: Any) -> bytes:
    """The value as JSON; half a surrogate pair, which some vendors send, stays an escape."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value)).encode()


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
