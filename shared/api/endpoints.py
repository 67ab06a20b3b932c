"""The walk of a request through the edge: from its route to its response, whatever goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from shared import VERSION
from shared.api.brain import BrainDialect
from shared.api.dialect import Dialect
from shared.api.guard import cors_headers, preflight_headers, read_body, read_wishes
from shared.api.inflight import Drain, Inflight, interrupt_when_gone
from shared.api.openai import OpenAIDialect
from shared.api.responses import Headers, JSONBody, error_response, exchange_headers
from shared.api.routes import Route, Routes, dialect_of
from shared.api.sse import EventStream, leave
from shared.course import Course
from shared.errors import (
    BadRequest,
    ClientClosedRequest,
    EchoBrainError,
    InternalError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
)
from shared.gateway import Gateway
from shared.models import Chunk, Exchange, ProviderHealth
from shared.settings import Settings
from shared.telemetry.logs import log_bug, log_request
from shared.telemetry.trace import current_trace_id, read_trace

__all__ = ["Endpoints", "Request", "Response"]


UNREAD_GRACE_S: Final = 1.0  # how long after its provider's limit a stream is kept for a caller that does not read


@dataclass(frozen=True, slots=True)
class _Call:
    """One request at the edge, with what its handler needs."""

    request: Request
    exchange: Exchange
    dialect: Dialect
    headers: Headers  # CORS, on every answer


class Endpoints:
    """All routes over one gateway; `respond` never raises what a caller or a provider did."""

    def __init__(self, gateway: Gateway, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._gateway = gateway
        self._deployment = settings.deployment
        self._origins = settings.cors_allow_origins
        slowest_s = max(provider.limits.streaming_s for provider in settings.serving.providers)
        self._stream_limit_s = slowest_s + UNREAD_GRACE_S
        self._clock = clock
        self._drain = Drain()
        self._dialects: Mapping[str, Dialect] = {
            "brain": BrainDialect(settings.deployment, gateway.provider_name),
            "openai": OpenAIDialect(),
        }
        self._handlers: Mapping[str, Callable[[_Call], Awaitable[Response]]] = {
            "brain_chat": self._brain_chat,
            "brain_stream": self._brain_stream,
            "brain_health": self._brain_health,
            "completions": self._completions,
            "models": self._models,
            "liveness": self._liveness,
            "version": self._version,
        }

    async def respond(self, request: Request, routes: Routes) -> Response:
        """The response to a request of the function that has `routes`; a stream goes on after this has returned."""
        self._drain.listen()
        path: str = request.scope["path"]
        route = routes.get(path)
        exchange = self._begin(request, path if route else "(unknown)")
        dialect = self._dialects[route.dialect if route else dialect_of(path)]
        call = _Call(request, exchange, dialect, list(cors_headers(request.headers.get("origin"), self._origins)))
        try:
            response = await self._handle(call, route)
        except EchoBrainError as error:
            response = error_response(error, dialect, exchange, call.headers)
        except Exception as error:  # noqa: BLE001 - the framework would answer with plain text and log the contents
            log_bug(error)
            response = error_response(InternalError(), dialect, exchange, call.headers)
        if not isinstance(response, EventStream):
            log_request(exchange, response.status_code, self._clock())
        return response

    async def aclose(self) -> None:
        """Closes the gateway."""
        await self._gateway.aclose()

    def _begin(self, request: Request, path: str) -> Exchange:
        ids = read_trace(request.headers.get)
        current_trace_id.set(ids.cloud_trace_id or ids.trace_id)
        return Exchange(
            trace_id=ids.trace_id,
            started_s=self._clock(),
            method=request.method,
            path=path,
            trace_header=ids.cloud_trace_id,
            span_id=ids.span_id,
        )

    async def _handle(self, call: _Call, route: Route | None) -> Response:
        if route is None:
            raise NotFound
        methods = "GET, HEAD, OPTIONS" if route.method == "GET" else f"{route.method}, OPTIONS"
        if call.request.method == "OPTIONS":
            return self._preflight(call, methods)
        if call.request.method not in methods.split(", "):
            raise MethodNotAllowed(methods)
        return await self._handlers[route.handler](call)

    def _preflight(self, call: _Call, methods: str) -> Response:
        origin = call.request.headers.get("origin")
        asked = call.request.headers.get("access-control-request-headers", "")
        more = preflight_headers(origin, self._origins, methods, asked)
        headers = {
            **dict(call.headers),
            **dict(more),
            **dict(exchange_headers(call.exchange)),
            "Allow": methods,
        }
        return Response(status_code=204, headers=headers)

    async def _brain_chat(self, call: _Call) -> Response:
        return await self._answer(call, await self._read(call, stream=False))

    async def _brain_stream(self, call: _Call) -> Response:
        return await self._stream(call, await self._read(call, stream=True))

    async def _completions(self, call: _Call) -> Response:
        course = await self._read(call, stream=None)
        return await (self._stream(call, course) if course.request.stream else self._answer(call, course))

    async def _read(self, call: _Call, *, stream: bool | None) -> Course:
        wishes = read_wishes(call.request.scope["headers"])
        chat = call.dialect.decode(await read_body(call.request), call.exchange, stream=stream)
        course = self._gateway.admit(chat, call.exchange, wishes)
        if self._drain.stopping:  # now that the body has come, and before a stream begins: still a plain refusal
            raise Overloaded
        return course

    async def _answer(self, call: _Call, course: Course) -> Response:
        with Inflight(self._drain, stream=False) as inflight:
            watcher = asyncio.create_task(interrupt_when_gone(call.request.receive, inflight))
            try:
                answer = await self._gateway.complete(course)
            finally:
                watcher.cancel()
        body = call.dialect.answer(answer, call.exchange)
        return JSONBody(200, body, [*call.headers, *exchange_headers(call.exchange)])

    async def _stream(self, call: _Call, course: Course) -> Response:
        chunks = self._gateway.stream(course)
        begun = asyncio.create_task(chunks.begin())
        try:
            await self._wait_for_content(call, begun)
        except BaseException:
            await leave(begun, chunks)  # nobody will read on: upstream is left now, not when it is collected
            raise
        encoder = call.dialect.encoder(call.exchange)
        return EventStream(
            begun,
            chunks,
            encoder,
            headers=[*call.headers, *exchange_headers(call.exchange)],
            limit_s=self._stream_limit_s,
            drain=self._drain,
            ended=lambda error: self._stream_ended(call.exchange, error),
        )

    async def _wait_for_content(self, call: _Call, begun: asyncio.Task[Chunk]) -> None:
        """Until the first content a failure is still a plain HTTP error, in a dialect that waits that long."""
        with Inflight(self._drain, stream=True) as inflight:
            watcher = asyncio.create_task(interrupt_when_gone(call.request.receive, inflight))
            try:
                await asyncio.wait({begun}, timeout=call.dialect.opening_wait_s)
            finally:
                watcher.cancel()
        if call.dialect.opening_wait_s is None or _is_shed(begun):
            begun.result()

    def _stream_ended(self, exchange: Exchange, error: EchoBrainError | None) -> None:
        exchange.error_code = error.code if error else None
        status = error.status if isinstance(error, ClientClosedRequest) else 200
        log_request(exchange, status, self._clock())

    async def _brain_health(self, call: _Call) -> Response:
        deep = _flag(call.request, "deep")
        asked = asyncio.create_task(self._gateway.health()) if deep else None
        ok, providers = await self._gateway.ready(), {}
        if asked is not None:
            states = await asked
            ok = ok and any(health.healthy for health, _ in states.values())
            providers = {"providers": {name: _shown(*state) for name, state in states.items()}}
        body = {
            "ok": ok,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "version": VERSION,
            "provider": self._gateway.provider_name,
            "env": self._deployment.env,
            **providers,
        }
        return self._json(call, body) if ok else self._json(call, body, 503, ("Retry-After", "1"))

    async def _models(self, call: _Call) -> Response:
        owner = self._gateway.provider_name
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": owner} for name in self._gateway.models()]
        return self._json(call, {"object": "list", "data": rows})

    async def _liveness(self, call: _Call) -> Response:
        return self._json(call, {"status": "ok"})

    async def _version(self, call: _Call) -> Response:
        deployed = self._deployment
        body = {"env": deployed.env, "git_sha": deployed.git_sha, "build_time": deployed.build_time}
        return self._json(call, body)

    def _json(self, call: _Call, body: Mapping[str, object], status: int = 200, *more: tuple[str, str]) -> Response:
        headers = [*call.headers, *exchange_headers(call.exchange), ("Cache-Control", "no-store"), *more]
        return JSONBody(status, msgspec.json.encode(body), headers)


def _is_shed(begun: asyncio.Task[Chunk]) -> bool:
    """Whether there was no room: then nobody has been asked, and the answer is a plain one in every dialect."""
    return begun.done() and not begun.cancelled() and isinstance(begun.exception(), Overloaded)


def _shown(health: ProviderHealth, circuit: str) -> dict[str, object]:
    return {
        "healthy": health.healthy,
        "latency_ms": round(health.latency_ms, 1),
        "error": health.error,
        "circuit": circuit,
    }


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise BadRequest(f"{name}: must be true or false", param=name)
    return value in ("true", "1")
