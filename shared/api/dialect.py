"""What a dialect is to the endpoints: how requests are read, and how answers, streams and errors are written."""

from __future__ import annotations

from typing import Protocol

from shared.api.guard import Body
from shared.errors import EchoBrainError
from shared.models import Answer, ChatRequest, Chunk, Ending, Exchange


class StreamEncoder(Protocol):
    """Writes one stream as server-sent events."""

    def opening(self) -> bytes:
        """What is sent before anything came from the provider; empty when the dialect waits for the first content."""
        ...

    def chunk(self, chunk: Chunk) -> bytes:
        """A chunk; may be empty."""
        ...

    def closing(self, ending: Ending) -> bytes:
        """The end of a whole answer."""
        ...

    def failure(self, error: EchoBrainError) -> bytes:
        """The end of a broken one."""
        ...


class Dialect(Protocol):
    """One way of speaking with callers."""

    @property
    def opening_wait_s(self) -> float | None:
        """How long a stream waits for its first content before its status goes out, in seconds; None: however long."""
        ...

    def decode(self, body: Body, exchange: Exchange, *, stream: bool | None) -> ChatRequest:
        """The request; `stream` is what the route decides, or None where the body does. Raises `BadRequest`."""
        ...

    def answer(self, answer: Answer, exchange: Exchange) -> bytes:
        """The JSON body of a whole answer."""
        ...

    def error(self, error: EchoBrainError, exchange: Exchange) -> tuple[int, bytes]:
        """The status and JSON body of a failure."""
        ...

    def encoder(self, exchange: Exchange) -> StreamEncoder:
        """The writer of one stream."""
        ...
