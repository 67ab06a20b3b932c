"""The gateway's endpoints in the test's own event loop, behind uvicorn's protocol on a real socket.

For tests that need many gateways with limits of fractions of a second. What only a process has (signals, the
framework, standard output) is tested with `tests.servers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from shared.api.endpoints import Endpoints
from shared.api.routes import EVERYTHING
from shared.bootstrap import build
from shared.settings import BreakerPolicy, Limits, ProviderSettings, RetryPolicy, Settings, alone
from shared.settings.file import read_config
from tests.ways import eventually

KEY = "sk-test-0123456789"
SMALL_SEND_BUFFER_BYTES = 16 * 1024

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InProcess:
    """A running gateway; `lines` has the fields and the severity of each request line it logged, `decisions` those of
    each retry and failover, `circuits` those of each transition of a breaker."""

    url: str
    lines: list[Json]
    _state: ServerState
    decisions: list[Json] = field(default_factory=list)
    circuits: list[Json] = field(default_factory=list)

    async def idle(self) -> None:
        """Returns when no request is under way any more."""
        await eventually(lambda: not self._state.tasks)


_asked: ContextVar[Endpoints | None] = ContextVar("asked", default=None)


class _Lines(logging.Handler):
    """The lines of one gateway; others may run beside it."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__()
        self.lines: list[Json] = []
        self._endpoints = endpoints

    def emit(self, record: logging.LogRecord) -> None:
        if _asked.get() is not self._endpoints:
            return
        fields: Json = getattr(record, "fields", {})
        self.lines.append({**fields, "severity": record.levelname})


@contextlib.asynccontextmanager
async def serving(base_url: str, *, small: bool = False, **limits: float) -> AsyncIterator[InProcess]:
    """A gateway to `base_url` that serves the model `m`; a `small` one feels at once who does not read.

    It neither retries nor opens its circuit: what each single failure becomes is to be seen.
    """
    provider = ProviderSettings(
        name="openai",
        vendor="openai",
        model="m",
        base_url=base_url,
        api_key=KEY,
        limits=replace(Limits(), **limits),
        retries=RetryPolicy(max_retries=0),
        breaker=BreakerPolicy(threshold=1_000_000),
    )
    endpoints = build(Settings(serving=alone(provider)))
    with _lines_of("request", endpoints) as lines, _signals_kept():
        try:
            async with _listening(endpoints, lines, small=small) as gateway:
                yield gateway
                await gateway.idle()
        finally:
            await endpoints.aclose()


@contextlib.asynccontextmanager
async def serving_config(config: Json, *, small: bool = False, key: str = KEY) -> AsyncIterator[InProcess]:
    """A gateway with this configuration file, in which `TEST_KEY` names the key."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        endpoints = build(Settings(serving=read_config(file.name, {"TEST_KEY": key}, None)))
    with (
        _lines_of("request", endpoints) as lines,
        _lines_of("failover", endpoints) as decisions,
        _lines_of("circuit", endpoints) as circuits,
        _signals_kept(),
    ):
        try:
            async with _listening(endpoints, lines, small=small) as gateway:
                yield replace(gateway, decisions=decisions, circuits=circuits)
                await gateway.idle()
        finally:
            await endpoints.aclose()


@contextlib.asynccontextmanager
async def scripted(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The base URL of an upstream of which `answer` plays every connection, which is then closed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await answer(reader, writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@contextlib.asynccontextmanager
async def _listening(endpoints: Endpoints, lines: list[Json], *, small: bool) -> AsyncIterator[InProcess]:
    """uvicorn's protocol without its server, which would look only every 0.1 s whether it should stop."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        _asked.set(endpoints)
        response = await endpoints.respond(Request(scope, receive, send), EVERYTHING)
        await response(scope, receive, send)

    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
    config.load()
    state = ServerState()
    protocol = config.http_protocol_class
    assert not isinstance(protocol, str)
    loop = asyncio.get_running_loop()
    listening = socket.create_server(("127.0.0.1", 0))
    if small:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_SEND_BUFFER_BYTES)
    server = await loop.create_server(lambda: protocol(config, state, {}), sock=listening)  # type: ignore[call-arg]
    try:
        yield InProcess(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", lines, state)
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        await asyncio.sleep(0)  # the transports close in the loop's next turn


@contextlib.contextmanager
def _lines_of(name: str, endpoints: Endpoints) -> Iterator[list[Json]]:
    logger, handler = logging.getLogger(f"echo_brain.{name}"), _Lines(endpoints)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        if not logger.handlers:  # another gateway may still listen
            logger.setLevel(logging.NOTSET)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """The gateway puts its own handler of SIGTERM in front of the server's; here the server is pytest."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
