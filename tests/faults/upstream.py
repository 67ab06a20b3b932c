"""The breaking upstream: an OpenAI-compatible server over raw sockets that fails in any way on demand.

In a test: `async with breaking_upstream() as upstream:`, then point a client at `upstream.base_url`.
As a process: `python -m tests.faults.upstream --port 9000`. A request whose model or last user message
begins with `fault:NAME[:ARG…]` gets that scenario (see scenarios.py); all others get a good answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs, urlsplit

from . import answers
from .exchange import Exchange, Received
from .scenarios import SCENARIOS, ok

__all__ = ["BreakingUpstream", "Received", "breaking_upstream"]

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
REDIRECTED = "/v1/redirected/chat/completions"
_HEADER_LIMIT = 1 << 20


class WatchedReader(asyncio.StreamReader):
    """A stream reader that tells at once, and not only to a pending read, that the peer is gone."""

    def __init__(self) -> None:
        super().__init__(limit=_HEADER_LIMIT)
        self.on_gone: Callable[[], None] = lambda: None

    def feed_eof(self) -> None:
        """The peer closed its side, or the connection was lost in order."""
        super().feed_eof()
        self.on_gone()

    def set_exception(self, exc: Exception) -> None:
        """The connection was reset."""
        super().set_exception(exc)
        self.on_gone()


class BreakingUpstream:
    """The server; `requests` has what arrived on the OpenAI routes, in order."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.bugs: list[str] = []
        self.forced: str | None = None
        self.port = 0
        self._seen: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._connections = itertools.count(1)
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        """The address for `OPENAI_BASE_URL`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def last_body(self) -> bytes:
        """The exact body bytes of the last answer (of a stream: all its events), without HTTP framing."""
        return bytes(self.requests[-1].answer)

    @property
    def connections(self) -> int:
        """How many connections brought the recorded requests."""
        return len({request.connection for request in self.requests})

    def force(self, name: str | None) -> None:
        """Plays `NAME[:ARG…]` for every request, whatever it says; None ends that."""
        self.forced = name

    def reset(self) -> None:
        """Forgets all requests, counts and the forced scenario; `req_<n>` counts on."""
        self.requests.clear()
        self._seen.clear()
        self.forced = None

    async def until(self, condition: Callable[[BreakingUpstream], object], limit_s: float = 10.0) -> None:
        """Returns when the condition holds; AssertionError after `limit_s`."""
        limit = time.monotonic() + limit_s
        while not condition(self):
            assert time.monotonic() < limit, f"not so within {limit_s} s; received: {self.requests!r}"
            await asyncio.sleep(0.005)

    async def start(self, port: int = 0) -> asyncio.Server:
        """Listens on the loopback address; port 0 picks a free one."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(WatchedReader(), self._serve), "127.0.0.1", port
        )
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def stop(self, server: asyncio.Server) -> None:
        """Stops listening and drops every connection."""
        server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        writer.transport.set_write_buffer_limits(high=0)  # drain() waits until the kernel has everything
        try:
            # Cancelled means: the client left, or the server stops. Either way this is the end of it.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._converse(reader, writer, handler)
        finally:
            assert isinstance(reader, WatchedReader)
            reader.on_gone = lambda: None
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass
            except asyncio.CancelledError:  # the server stops: what nobody reads any more is not waited for
                writer.transport.abort()
            self._handlers.discard(handler)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: asyncio.Task[None]
    ) -> None:
        """Answers the requests of one connection, one after the other, until someone closes it."""
        assert isinstance(reader, WatchedReader)
        connection = next(self._connections)
        asked: list[Received] = []
        exchange: Exchange | None = None

        def gone() -> None:
            if exchange is not None and exchange.closed:
                return  # it was us
            for earlier in asked:
                earlier.closed_at = earlier.closed_at or time.monotonic()
            if asked and asked[-1].answered_at is None:
                handler.cancel()

        reader.on_gone = gone
        while True:
            request = await _read(reader, writer, connection)
            asked.append(request)
            exchange = self._exchange(request, writer)
            await self._answer(exchange)
            request.answered_at = time.monotonic()
            if exchange.closed or request.headers.get("connection", "").lower() == "close":
                exchange.close()
                return

    def _exchange(self, request: Received, writer: asyncio.StreamWriter) -> Exchange:
        try:
            payload = request.json if request.body else {}
        except ValueError:
            payload = {}
        if not isinstance(payload, dict):
            payload = {}
        text = f"fault:{self.forced}" if self.forced else _selector(payload)
        return Exchange(request, payload, text, self._seen, writer)

    async def _answer(self, x: Exchange) -> None:
        path = urlsplit(x.request.path).path
        if path == "/health" or path.startswith("/_"):
            return await self._control(x, path)
        x.request.number = next(self._numbers)
        x.request_id = f"req_{x.request.number}"
        self.requests.append(x.request)
        if path == REDIRECTED:
            return await ok(x)
        if (x.request.method, path) not in {("POST", CHAT), ("GET", MODELS)}:
            return await x.whole(answers.error("Unknown request URL.", code="unknown_url"), 404)
        return await self._play(x)

    async def _play(self, x: Exchange) -> None:
        words = x.text.split(maxsplit=1)
        x.request.scenario = words[0].removeprefix("fault:") if words else "ok"
        name, *arguments = x.request.scenario.split(":")
        try:
            play = SCENARIOS[name]
            inspect.signature(play).bind(x, *arguments)
        except (KeyError, TypeError) as exc:
            self.bugs.append(f"{x.request.scenario}: {exc!r}")
            return await x.whole(answers.error(f"no such scenario: {x.request.scenario}", code="bug"), 501)
        try:
            return await play(x, *arguments)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
            print(f"cannot answer {x.request!r}: {exc!r}", file=sys.stderr)
            return await x.whole(answers.error("malformed request", code="invalid_request_error"), 400)

    async def _control(self, x: Exchange, path: str) -> None:
        match path:
            case "/_reset":
                self.reset()
            case "/_force":
                self.force(parse_qs(urlsplit(x.request.path).query).get("scenario", [None])[0])
            case "/_requests":
                return await x.whole(json.dumps([_as_json(request) for request in self.requests]).encode())
        return await x.whole(b'{"status":"ok"}')


def _as_json(request: Received) -> dict[str, Any]:
    texts = {"body": request.body.decode(errors="replace"), "answer": request.answer.decode(errors="replace")}
    return {**asdict(request), "aborted": request.aborted, **texts}


def _selector(payload: dict[str, Any]) -> str:
    """The text that picks the scenario: the model's name or the last user message; empty for neither."""
    for text in (payload.get("model"), _last_user_text(payload.get("messages"))):
        if isinstance(text, str) and text.startswith("fault:"):
            return text
    return ""


def _last_user_text(messages: object) -> object:
    rows = messages if isinstance(messages, list) else []
    said = [row.get("content") for row in rows if isinstance(row, dict) and row.get("role") == "user"]
    content = said[-1] if said else None
    if not isinstance(content, list):
        return content
    return next((part.get("text") for part in content if isinstance(part, dict) and "text" in part), None)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> Received:
    """The next request of a connection; IncompleteReadError when there is none."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rows = head.rstrip().split("\r\n")
    method, path, _ = line.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b"".join([part async for part in _chunks(reader)])
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body, time.monotonic(), connection, number=0)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers


@contextlib.asynccontextmanager
async def breaking_upstream(port: int = 0) -> AsyncIterator[BreakingUpstream]:
    """The upstream in this event loop; fails at the end if a scenario asked for is not there."""
    upstream = BreakingUpstream()
    server = await upstream.start(port)
    try:
        yield upstream
    finally:
        await upstream.stop(server)
    assert not upstream.bugs, upstream.bugs


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    upstream = BreakingUpstream()
    server = await upstream.start(parser.parse_args().port)
    print(f"breaking upstream on {upstream.base_url}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
