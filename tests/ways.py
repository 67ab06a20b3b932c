"""Asking the gateway in the four ways there are, over a real socket, and judging strictly what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

COMPLETIONS: Final = "/v1/chat/completions"
LIMIT_S: Final = 20.0  # for an answer that should be there long before
SMALL_BUFFER: Final = 16 * 1024

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Way:
    """One of the four ways to ask: a dialect, streamed or not."""

    dialect: str
    stream: bool

    @property
    def path(self) -> str:
        """Where it is asked."""
        if self.dialect == "openai":
            return COMPLETIONS
        return "/v1/brain/chat/stream" if self.stream else "/v1/brain/chat"

    def body(self, text: str, **more: object) -> bytes:
        """A request with one user message."""
        openai: Json = {"model": "m", "stream": self.stream} if self.dialect == "openai" else {}
        return json.dumps({"messages": [{"role": "user", "content": text}], **openai, **more}).encode()

    def __str__(self) -> str:
        return f"{self.dialect}-{'stream' if self.stream else 'json'}"


BRAIN_JSON: Final = Way("brain", False)
BRAIN_EVENTS: Final = Way("brain", True)
OPENAI_JSON: Final = Way("openai", False)
OPENAI_EVENTS: Final = Way("openai", True)
JSON_WAYS: Final = (BRAIN_JSON, OPENAI_JSON)
STREAM_WAYS: Final = (BRAIN_EVENTS, OPENAI_EVENTS)
WAYS: Final = (*JSON_WAYS, *STREAM_WAYS)


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer of the gateway."""

    way: Way
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def streamed(self) -> bool:
        """Whether the body is a stream of events."""
        return self.headers["Content-Type"].startswith("text/event-stream")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply amounts to: a whole answer (no `code`), or a failure after `text` had been shown."""

    text: str
    code: str | None = None
    message: str = ""
    error: Json | None = None


async def ask(http: aiohttp.ClientSession, url: str, way: Way, text: str = "hi", **more: object) -> Reply:
    """Asks with one user message, and `more` members in the body."""
    return await send(http, url, way, way.body(text, **more))


async def send(
    http: aiohttp.ClientSession, url: str, way: Way, body: bytes, headers: Mapping[str, str] | None = None
) -> Reply:
    """Sends this body; AssertionError where the transfer itself breaks off or takes too long."""
    sent = {"Content-Type": "application/json", **(headers or {})}
    try:
        async with asyncio.timeout(LIMIT_S), http.post(url + way.path, data=body, headers=sent) as answer:
            return Reply(way, answer.status, answer.headers, await answer.read())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise AssertionError(f"{way} of {body[:200]!r}: {error!r}") from error


def judge(reply: Reply) -> Verdict:
    """Reads a reply strictly: AssertionError for whatever the wire contract does not allow."""
    if not reply.streamed:
        return _judge_json(reply)
    return judge_stream(reply.way, reply.body)


def judge_stream(way: Way, stream: bytes) -> Verdict:
    """The same for the body of a stream."""
    return _judge_brain_stream(stream) if way.dialect == "brain" else _judge_openai_stream(stream)


def events(stream: bytes) -> list[tuple[str, str]]:
    """Name and data of each server-sent event, by the standard; comments are passed over."""
    found = []
    for block in stream.decode().replace("\r\n", "\n").split("\n\n"):
        fields = [line.partition(":") for line in block.split("\n") if line and not line.startswith(":")]
        data = [value.removeprefix(" ") for name, _, value in fields if name == "data"]
        named = [value.removeprefix(" ") for name, _, value in fields if name == "event"]
        if data:
            found.append((named[-1] if named else "message", "\n".join(data)))
    return found


def payloads(stream: bytes) -> list[str]:
    """The data of each event."""
    return [data for _, data in events(stream)]


def _judge_json(reply: Reply) -> Verdict:
    body = reply.json
    assert reply.headers["Content-Type"] == "application/json"
    if reply.way.dialect == "brain":
        assert body["ok"] is (reply.status == 200)
        assert body["runtime"]["trace_id"] == reply.headers["X-Trace-Id"]
        return Verdict(body["message"]["content"]) if body["ok"] else _brain_failure("", body)
    if reply.status != 200:
        assert body.keys() == {"error"}
        return _openai_failure("", body["error"])
    return Verdict(body["choices"][0]["message"]["content"])


def _judge_brain_stream(stream: bytes) -> Verdict:
    (first, meta), *middle, (last, end) = events(stream)
    assert first == "meta"
    assert {name for name, _ in middle} <= {"token"}
    session_id = json.loads(meta)["session_id"]
    tokens = [json.loads(data) for _, data in middle]
    assert all(token.keys() == {"token", "session_id"} for token in tokens)
    text, body = "".join(token["token"] for token in tokens), json.loads(end)
    assert body["ok"] is (last == "final")
    if last == "error":
        return _brain_failure(text, body)
    assert last == "final"
    assert body["message"]["content"] == text
    assert {body["session_id"], *(token["session_id"] for token in tokens)} == {session_id}
    return Verdict(text)


def _judge_openai_stream(stream: bytes) -> Verdict:
    *before, end = payloads(stream)
    chunks = [json.loads(data) for data in before]
    assert not any("error" in chunk for chunk in chunks)
    assert not any(_finish(chunk) == "error" for chunk in chunks)
    text = "".join(_delta(chunk).get("content") or "" for chunk in chunks)
    if end == "[DONE]":
        assert any(_finish(chunk) for chunk in chunks)
        return Verdict(text)
    failed = json.loads(end)
    assert _finish(failed) == "error"
    return _openai_failure(text, failed["error"])


def _brain_failure(text: str, body: Json) -> Verdict:
    error = body["error"]
    assert error.keys() == {"code", "message", "upstream_request_id"}
    return Verdict(text, error["code"], error["message"], error)


def _openai_failure(text: str, error: Json) -> Verdict:
    assert error.keys() == {"message", "type", "code", "param"}
    return Verdict(text, error["code"], error["message"], error)


def _first(chunk: Json) -> Json:
    return next((choice for choice in chunk["choices"] if choice.get("index", 0) == 0), {})


def _delta(chunk: Json) -> Json:
    return _first(chunk).get("delta") or {}


def _finish(chunk: Json) -> str | None:
    reason: str | None = _first(chunk).get("finish_reason")
    return reason


async def eventually(condition: Callable[[], object], limit_s: float = 5.0) -> None:
    """Returns when the condition holds; AssertionError after `limit_s`."""
    until_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until_s, f"not so within {limit_s} s"
        await asyncio.sleep(0.005)


class RawCaller:
    """A caller on a bare socket, that can leave or stop reading at any moment."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = b""

    async def read_until(self, mark: bytes) -> bytes:
        """All that has come when `mark` has; AssertionError where the connection ends before."""
        async with asyncio.timeout(LIMIT_S):
            while mark not in self.received:
                data = await self._reader.read(65536)
                assert data, f"the connection ended with {self.received[-1000:]!r}"
                self.received += data
        return self.received

    def leave(self) -> float:
        """Closes the connection; gives the time (s, monotonic)."""
        self._writer.close()
        return time.monotonic()


@contextlib.asynccontextmanager
async def calling(url: str, way: Way, text: str, *, lazy: bool = False, **more: object) -> AsyncIterator[RawCaller]:
    """A request just sent on a connection of its own; a `lazy` caller's network takes in next to nothing."""
    parts, raw = urlsplit(url), socket.socket()
    if lazy:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (parts.hostname, parts.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=SMALL_BUFFER)
    body = way.body(text, **more)
    head = f"POST {way.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    try:
        yield RawCaller(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
