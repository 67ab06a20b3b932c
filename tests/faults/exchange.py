"""One request that reached the breaking upstream, and the raw means to answer it well or badly."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any


@dataclass(slots=True)
class Received:
    """A request as it arrived; times are `time.monotonic()` seconds.

    `closed_at` is set when the client closes or resets the connection (never when the upstream does);
    `answered_at` when the scenario has run to its end. `answer` holds the body bytes sent, unframed.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    arrived_at: float
    connection: int
    number: int
    scenario: str = ""
    closed_at: float | None = None
    answered_at: float | None = None
    answer: bytearray = field(default_factory=bytearray)

    @property
    def json(self) -> Any:
        """The body as JSON; raises ValueError when it is not."""
        return json.loads(self.body)

    @property
    def aborted(self) -> bool:
        """Whether the client left before its answer was complete."""
        return self.closed_at is not None and self.answered_at is None


class Exchange:
    """Writes the answer to one request; scenarios are written in these words."""

    def __init__(
        self,
        request: Received,
        payload: dict[str, Any],
        text: str,
        seen: Counter[str],
        writer: asyncio.StreamWriter,
    ) -> None:
        self.request = request
        self.payload = payload
        self.text = text
        self.seen = seen
        self.request_id: str | None = f"req_{request.number}"
        self.closed = False
        self._writer = writer

    @property
    def streamed(self) -> bool:
        """Whether the client asked for a stream."""
        return self.payload.get("stream") is True

    async def start(self, headers: Mapping[str, object], status: int = 200) -> None:
        """Sends the status line and the headers."""
        identity = {} if self.request_id is None else {"x-request-id": self.request_id}
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"
        lines = [f"{name}: {value}" for name, value in {**headers, **identity}.items()]
        head = "\r\n".join([f"HTTP/1.1 {status} {phrase}", *lines, "", ""])
        await self.raw(head.encode("latin-1"))

    async def whole(
        self,
        body: bytes,
        status: int = 200,
        *,
        kind: str = "application/json",
        headers: Mapping[str, object] | None = None,
    ) -> None:
        """A complete answer of known length."""
        await self.start({"Content-Type": kind, "Content-Length": len(body), **(headers or {})}, status)
        await self.body(body)

    async def body(self, data: bytes) -> None:
        """Body bytes as they are, without framing."""
        self.request.answer += data
        await self.raw(data)

    async def open_stream(self, headers: Mapping[str, object] | None = None) -> None:
        """The headers of a stream of events."""
        kind = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        await self.start({**kind, "Transfer-Encoding": "chunked", **(headers or {})})

    async def chunk(self, data: bytes) -> None:
        """One chunk of a chunked body, in one write."""
        self.request.answer += data
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def chunks(self, parts: Iterable[bytes]) -> None:
        """Each part in a chunk of its own."""
        for part in parts:
            await self.chunk(part)

    async def end(self) -> None:
        """The proper end of a chunked body."""
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        """Bytes on the wire, handed to the kernel before this returns."""
        self._writer.write(data)
        await self._writer.drain()

    async def hold(self) -> None:
        """Keeps the connection open in silence until the client leaves."""
        await asyncio.Event().wait()

    def close(self) -> None:
        """Closes the connection in order (FIN)."""
        self.closed = True
        self._writer.close()

    def reset(self) -> None:
        """Resets the connection (RST)."""
        self.closed = True
        raw_socket: socket.socket = self._writer.get_extra_info("socket")
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
