"""The value types that pass between the rooms. The inner language is OpenAI's: bodies and chunks are kept as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class TokenCap:
    """The most tokens a completion may have, and what the caller calls the parameter."""

    tokens: int
    parameter: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question: an OpenAI request body whose members are kept as the caller wrote them, each as raw JSON."""

    parameters: Mapping[str, msgspec.Raw]
    model: str | None  # the name the caller asked for, if any
    stream: bool
    include_usage: bool  # the caller asked for the usage chunk of a stream
    cap: TokenCap | None  # the caller's own
    choices: int  # how many answers the caller asked for (`n`)
    trace_id: str
    continues: bool = False  # the last message is an assistant's that the model shall go on with

    def messages(self) -> list[Any]:
        """The decoded messages; only for providers that answer by themselves."""
        return msgspec.json.decode(self.parameters["messages"], type=list[Any])


@dataclass(frozen=True, slots=True)
class Target:
    """One place a request may go to: a provider, and the model it is asked for."""

    provider: str
    model: str | None = None  # None: the provider's own; "*": the one the caller named
    priority: int = 1  # lower is tried first
    weight: float = 1.0  # the share among equal priority; 0: only when all others are out


@dataclass(frozen=True, slots=True)
class Route:
    """The targets of a model's name; `hedge_after_s` starts the next one beside a silent one, None never."""

    targets: tuple[Target, ...]
    hedge_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller asks of the routing, for comparisons and debugging."""

    provider: str | None = None  # this one and no other
    failover: bool = True  # False: whichever is asked first, and no other


class Usage(msgspec.Struct, frozen=True):
    """Token counts as the provider reports them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known once an answer is whole."""

    finish_reason: str
    usage: Usage | None
    model: str | None  # as the provider names it
    upstream_request_id: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: the provider's own body, and what was read in it."""

    body: bytes
    message: AnswerMessage
    ending: Ending


class AnswerMessage(msgspec.Struct, frozen=True):
    """The assistant's message of the first choice."""

    content: Any = None
    tool_calls: Any = None


class Delta(msgspec.Struct, gc=False):
    """What is looked at in the delta of a streamed choice; the types are loose because vendors differ."""

    content: Any = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    audio: Any = None

    def says_something(self) -> bool:
        """True when the delta carries more than a role or an empty text."""
        return bool(
            self.content
            or self.tool_calls
            or self.reasoning_content
            or self.reasoning
            or self.refusal
            or self.function_call
            or self.audio
        )


class Choice(msgspec.Struct, gc=False):
    """What is looked at in one choice of a streamed chunk."""

    index: int = 0
    delta: Delta | None = None
    finish_reason: Any = None


class Event(msgspec.Struct, gc=False):
    """What is looked at in one streamed `chat.completion.chunk`."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    model: Any = None


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One or more whole server-sent events, as bytes ready to copy and as seen; the last one has the ending."""

    data: bytes
    events: list[Event]
    has_content: bool
    ending: Ending | None = None
    upstream_request_id: str | None = None  # on the first chunk, which may have nothing else


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """The state of a provider as just asked of it."""

    healthy: bool
    latency_ms: float
    error: str | None = None  # an error code of `errors`


@dataclass(slots=True)
class Exchange:
    """What becomes known of one request on its way; it ends as response headers and one line in the log."""

    trace_id: str
    started_s: float  # monotonic
    method: str
    path: str
    trace_header: str | None = None  # the 32 hex digits of the caller's trace, for Cloud Trace
    span_id: str | None = None
    session_id: str = ""
    stream: bool = False
    provider: str | None = None
    model: str | None = None
    attempts: int = 0
    upstream_request_id: str | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    first_token_s: float | None = None  # monotonic
    error_code: str | None = None
    failed_providers: list[str] = field(default_factory=list)  # given up on
    continued_by: list[str] = field(default_factory=list)  # who went on with a stream that broke off

    def settle(self, ending: Ending) -> None:
        """Takes over what the whole answer says of itself."""
        self.finish_reason = ending.finish_reason
        self.usage = ending.usage
        self.model = ending.model or self.model
        self.upstream_request_id = ending.upstream_request_id or self.upstream_request_id
