"""Responses: headers that every answer has, JSON bodies, and the one place where an error becomes HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from starlette.responses import Response

from shared.api.dialect import Dialect
from shared.errors import EchoBrainError, MethodNotAllowed
from shared.models import Exchange

Headers = Iterable[tuple[str, str]]


class JSONBody(Response):
    """A JSON body that is bytes already."""

    def __init__(self, status: int, body: bytes, headers: Headers) -> None:  # no `super`: it would build them anew
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = raw_headers(
            headers, ("content-type", "application/json"), ("content-length", str(len(body)))
        )


def raw_headers(headers: Headers, *more: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (*headers, *more)]


def exchange_headers(exchange: Exchange) -> Iterator[tuple[str, str]]:
    """What is known of the request's way when the headers go out."""
    yield "X-Trace-Id", exchange.trace_id
    if exchange.provider is not None and exchange.attempts:
        yield "X-Served-By", exchange.provider
        yield "X-Attempts", str(exchange.attempts)
    if exchange.failed_providers:
        yield "X-Failed-Providers", ",".join(exchange.failed_providers)
    if exchange.upstream_request_id is not None:
        yield "X-Request-Id", exchange.upstream_request_id


def error_response(error: EchoBrainError, dialect: Dialect, exchange: Exchange, headers: Headers) -> JSONBody:
    """The failure in the caller's dialect, with the headers that say whether and when to try again."""
    exchange.error_code = error.code
    status, body = dialect.error(error, exchange)
    return JSONBody(status, body, [*headers, *exchange_headers(exchange), *_error_headers(error)])


def _error_headers(error: EchoBrainError) -> Iterator[tuple[str, str]]:
    if error.retry_after_s is not None:
        yield "Retry-After", str(math.ceil(error.retry_after_s))
    if not error.retryable:
        yield "x-should-retry", "false"
    if isinstance(error, MethodNotAllowed):
        yield "Allow", error.allow
