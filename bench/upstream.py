"""The upstream of the benchmark: an OpenAI-compatible server that costs next to nothing.

It answers at once, in a burst or at a pace, as the question itself says (see `bench.wire`). One process, raw
asyncio protocol on uvloop, answers made beforehand: it must never be what is measured.

    python -m bench.upstream PORT
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import time
from typing import cast

import uvloop

from bench import wire

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODELS = b'{"object":"list","data":[{"id":"%b","object":"model","created":0,"owned_by":"bench"}]}'
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_LENGTH_REQUIRED = b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection; requests on it are answered one after the other."""

    def __init__(self) -> None:
        self._buffer = b""
        self._arrived_ns = 0
        self._transport: asyncio.Transport
        self._pace: Pace | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not its subclasses

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        if self._pace is not None:
            self._pace.stop()

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._arrived_ns = time.monotonic_ns()
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        whole = end + 4 + self._content_length(end)
        if len(self._buffer) >= whole:
            request, self._buffer = self._buffer[:whole], self._buffer[whole:]
            self._answer(request)

    def _content_length(self, end: int) -> int:
        found = _CONTENT_LENGTH.search(self._buffer, 0, end)
        if found is None and self._buffer.startswith(b"POST"):
            self._transport.write(_LENGTH_REQUIRED)
            self._transport.close()
        return int(found[1]) if found else 0

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET /v1/models "):
            self._transport.write(wire.json_response(_MODELS % wire.MODEL.encode()))
            return
        if not request.startswith(b"POST /v1/chat/completions "):
            self._transport.write(_NOT_FOUND)
            return
        directive = wire.DIRECTIVE.search(request)
        usage = wire.USAGE_ASKED.search(request) is not None
        if directive is None:
            self._transport.write(wire.chat_response())
        elif directive[1]:
            self._transport.write(wire.burst_response(int(directive[1]), usage=usage))
        else:
            chunks, interval_ms = int(directive[2]), int(directive[3])
            self._pace = Pace(self._transport, chunks, interval_ms / 1000, usage=usage)
            self._pace.start(self._arrived_ns)


class Pace:
    """A stream of `chunks` content events, one every `interval_s`, the first at once."""

    def __init__(self, transport: asyncio.Transport, chunks: int, interval_s: float, *, usage: bool) -> None:
        self._transport = transport
        self._chunks = chunks
        self._interval_s = interval_s
        self._usage = usage
        self._sent = 1
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._timer: asyncio.TimerHandle

    def start(self, arrived_ns: int) -> None:
        """Sends the head, the role and the first token, with how long this took since the request came."""
        head = wire.stream_head() + wire.framed(wire.role_event(usage=self._usage))
        held = wire.held_event(time.monotonic_ns() - arrived_ns, usage=self._usage)
        self._transport.write(head + wire.framed(held))
        self._later()

    def stop(self) -> None:
        """Sends nothing more."""
        self._timer.cancel()

    def _later(self) -> None:
        # From when it was due, not from now: a late timer must not slow the pace down.
        self._due += self._interval_s
        self._timer = self._loop.call_at(self._due, self._send)

    def _send(self) -> None:
        if self._sent < self._chunks:
            self._transport.write(wire.framed(wire.word_event(self._sent, usage=self._usage)))
            self._sent += 1
            self._later()
        else:
            last = map(wire.framed, wire.last_events(usage=self._usage))
            self._transport.write(b"".join(last) + b"0\r\n\r\n")


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    gc.freeze()
    gc.disable()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
