"""A test stand: three breaking upstreams, one gateway in front of them, and a caller that asks in one way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import secrets
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.faults.upstream import BreakingUpstream, Received, breaking_upstream
from tests.inprocess import serving_config
from tests.servers import gateway
from tests.ways import BRAIN_EVENTS, OPENAI_EVENTS, Reply, Verdict, Way, events, eventually, judge

NAMES: Final = ("first", "second", "third")
EARLY_HEADERS_S: Final = 0.9  # a Brain stream's headers go out after a second, whatever is known by then
TEXT: Final = "Hello, world!"  # what a good upstream says

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that serves at `url`; `lines` gives what it has logged: of each `request`, `failover` or `circuit`."""

    url: str
    lines: Callable[[str], list[Json]]


Opener = Callable[[Json, str], AbstractAsyncContextManager[Running]]  # the configuration, and what TEST_KEY is


@contextlib.asynccontextmanager
async def in_process(config: Json, key: str) -> AsyncIterator[Running]:
    """A gateway in this event loop."""
    async with serving_config(config, key=key) as served:
        logged = {"request": served.lines, "failover": served.decisions, "circuit": served.circuits}
        yield Running(served.url, lambda kind: logged[kind])


@contextlib.asynccontextmanager
async def as_process(config: Json, key: str) -> AsyncIterator[Running]:
    """A gateway as it is started by hand; this event loop goes on while it starts."""
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder, "echo-brain.json"), Path(folder, "log")
        path.write_text(json.dumps(config))
        environment = {"ECHO_BRAIN_CONFIG": str(path), "TEST_KEY": key}
        process = gateway(log, environment)
        server = await asyncio.to_thread(process.__enter__)
        try:
            yield Running(server.url, lambda kind: _logged(server.output(), kind))
        finally:
            await asyncio.to_thread(process.__exit__, None, None, None)


def _logged(output: str, kind: str) -> list[Json]:
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [row for row in rows if row.get("logger") == f"echo_brain.{kind}"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer and what it took: `begun` is when it was asked for and `headers` when its headers had come, both in
    seconds on the clock of the upstreams; `seconds` is how long the whole took."""

    reply: Reply
    text: str
    begun: float
    headers: float
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """The reply, read strictly."""
        return judge(self.reply)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.reply.status

    @property
    def served_by(self) -> str | None:
        """Who answered, as the headers say or, where those of a Brain stream had to go out before, the final event."""
        header = self.header("X-Served-By")
        if self.reply.way is BRAIN_EVENTS and self.reply.streamed and self.verdict.code is None:
            final: str = json.loads(events(self.reply.body)[-1][1])["metadata"]["provider"]
            assert header == final or self.early, f"X-Served-By {header}, but final says {final}"
            return final
        return header

    @property
    def early(self) -> bool:
        """Whether the headers may have gone out before it was known who answers."""
        return self.reply.way is BRAIN_EVENTS and self.headers - self.begun >= EARLY_HEADERS_S

    def header(self, name: str) -> str | None:
        """A header of the reply."""
        return self.reply.headers.get(name)


@dataclass(slots=True)
class Stand:
    """What one scenario is played on; `keys` go to every provider."""

    way: Way
    http: aiohttp.ClientSession
    upstreams: tuple[BreakingUpstream, ...]
    open: Opener
    keys: Mapping[str, object] = field(default_factory=dict)
    limit_s: float = 20.0  # for an answer that should be there long before
    key: str = field(default_factory=lambda: f"sk-test-{secrets.token_hex(8)}")
    gateway: Running = field(init=False)

    @property
    def first(self) -> BreakingUpstream:
        return self.upstreams[0]

    @property
    def second(self) -> BreakingUpstream:
        return self.upstreams[1]

    @property
    def third(self) -> BreakingUpstream:
        return self.upstreams[2]

    @property
    def counted(self) -> Json:
        """What asks for the usage of a stream, where that must be asked for."""
        return {"stream_options": {"include_usage": True}} if self.way is OPENAI_EVENTS else {}

    def config(self, *providers: Mapping[str, object], **top: object) -> Json:
        """A configuration of providers named first, second, … in this order of priority, each with its keys."""
        return {"providers": {NAMES[at]: self.provider(at, **keys) for at, keys in enumerate(providers)}, **top}

    def provider(self, at: int, **keys: object) -> Json:
        """The provider at this upstream."""
        base: Json = {"type": "openai-compatible", "model": "m", "api_key_env": "TEST_KEY", "priority": at + 1}
        return {**base, "base_url": self.upstreams[at].base_url, **self.keys, **keys}

    @contextlib.asynccontextmanager
    async def serving(self, *providers: Mapping[str, object], **top: object) -> AsyncIterator[Running]:
        """The gateway with that configuration."""
        async with self.open(self.config(*providers, **top), self.key) as self.gateway:
            yield self.gateway

    async def ask(self, text: str = "hi", headers: Mapping[str, str] | None = None, **more: object) -> Seen:
        """Asks in the stand's way; AssertionError where the transfer breaks off or takes too long."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        way, begun = self.way, time.monotonic()
        try:
            async with (
                asyncio.timeout(self.limit_s),
                self.http.post(self.gateway.url + way.path, data=way.body(text, **more), headers=sent) as answer,
            ):
                first = time.monotonic()
                reply = Reply(way, answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            after_s = time.monotonic() - begun
            raise AssertionError(f"{way} {text!r}: {error!r} after {after_s:.1f} s") from error
        return Seen(reply, text, begun, first, time.monotonic() - begun)

    def asked(self, upstream: BreakingUpstream, text: str | None = None) -> list[Received]:
        """The chats that this stand's gateway took to the upstream, of those with this text.

        Whatever else runs on this machine may ask a port that was another's a moment ago.
        """
        ours = f"Bearer {self.key}"
        chats = [row for row in upstream.requests if row.method == "POST" and row.headers.get("authorization") == ours]
        return [request for request in chats if text is None or said(request) == text]

    def counts(self, text: str | None = None) -> list[int]:
        """How many chats reached each upstream."""
        return [len(self.asked(upstream, text)) for upstream in self.upstreams]

    async def line(self) -> Json:
        """The log line of the only chat; a stream's is written when its last byte is on the way."""
        await eventually(self._chat_lines, self.limit_s)
        (line,) = self._chat_lines()
        return line

    def _chat_lines(self) -> list[Json]:
        return [line for line in self.gateway.lines("request") if line["method"] == "POST"]

    async def left(self, upstream: BreakingUpstream, limit_s: float = 5.0) -> None:
        """Returns when the gateway has closed every unfinished answer of this upstream; AssertionError in the end."""
        await upstream.until(
            lambda it: all(row.answered_at is not None or row.closed_at is not None for row in it.requests), limit_s
        )

    def report(self, seen: Seen) -> str:
        """What was seen of one answer, in one line."""
        verdict = seen.verdict
        parts = [str(seen.status), verdict.code or "whole", f"{seen.seconds:.1f} s", f"by {seen.served_by}"]
        for name, upstream in zip(NAMES, self.upstreams, strict=True):
            times = ", ".join(f"{row.arrived_at - seen.begun:.1f}" for row in self.asked(upstream, seen.text))
            parts += [f"{name} at {times}"] if times else []
        return " · ".join(parts)


async def in_every_way(ways: Sequence[Way], play: Callable[[Way], Awaitable[object]]) -> None:
    """Plays it in all ways at the same time; a failure names its way."""
    await together({str(way): partial(play, way) for way in ways})


async def together(plays: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
    """Plays all at the same time, for most of it is waiting; a failure has the name of its play as a note."""

    async def one(name: str, play: Callable[[], Awaitable[object]]) -> None:
        try:
            await play()
        except Exception as error:
            error.add_note(f"playing {name}")
            raise

    before = signal.getsignal(signal.SIGTERM)  # each gateway puts its own handler in front of the last one's
    try:
        async with asyncio.TaskGroup() as group:
            for name, play in plays.items():
                group.create_task(one(name, play))
    finally:
        signal.signal(signal.SIGTERM, before)


def said(request: Received) -> str:
    """The last user message of a request."""
    rows = [row["content"] for row in request.json["messages"] if row["role"] == "user"]
    return str(rows[-1])


def gaps(requests: list[Received]) -> list[float]:
    """From the end of each answer to the next request, in seconds."""
    pairs = itertools.pairwise(requests)
    return [after.arrived_at - (before.answered_at or math.inf) for before, after in pairs]


@contextlib.asynccontextmanager
async def standing(
    way: Way, opener: Opener = in_process, *, keys: Mapping[str, object] | None = None, limit_s: float = 20.0
) -> AsyncIterator[Stand]:
    """Three upstreams and a caller, each in this event loop."""
    connector, cookies = aiohttp.TCPConnector(limit=0), aiohttp.DummyCookieJar()
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, cookie_jar=cookies))
        upstreams = tuple([await stack.enter_async_context(breaking_upstream()) for _ in NAMES])
        yield Stand(way, http, upstreams, opener, keys or {}, limit_s)
