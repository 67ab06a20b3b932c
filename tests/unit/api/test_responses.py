"""Responses: the headers that tell a request's way, and an error as HTTP in either dialect."""

from __future__ import annotations

import json

import pytest

from shared.api.brain import BrainDialect
from shared.api.openai import OpenAIDialect
from shared.api.responses import error_response, exchange_headers
from shared.errors import BadRequest, EchoBrainError, MethodNotAllowed, Overloaded, RateLimited, UpstreamAuthError
from shared.settings import Deployment
from tests.unit.fakes import exchange

OPENAI = OpenAIDialect()
BRAIN = BrainDialect(Deployment(), "openai")


def test_a_request_that_reached_nobody_has_its_trace() -> None:
    """And no provider."""
    assert dict(exchange_headers(exchange())) == {"X-Trace-Id": "trace-1"}


def test_the_way_of_a_request_is_in_its_headers() -> None:
    """Who served it, after how many attempts, and who was given up on, in their order."""
    row = exchange(provider="c", attempts=4, failed_providers=["a", "b"], upstream_request_id="req-1")
    assert dict(exchange_headers(row)) == {
        "X-Trace-Id": "trace-1",
        "X-Served-By": "c",
        "X-Attempts": "4",
        "X-Failed-Providers": "a,b",
        "X-Request-Id": "req-1",
    }


def test_who_was_never_asked_is_not_named() -> None:
    """A request that was shed has been served by nobody."""
    assert dict(exchange_headers(exchange(provider="a"))).keys() == {"X-Trace-Id"}


@pytest.mark.parametrize(
    ("error", "retry_after", "should_retry"),
    [
        (RateLimited(), "1", None),
        (RateLimited(retry_after_s=2.1), "3", None),
        (Overloaded(), "1", None),
        (Overloaded(retry_after_s=29.2), "30", None),
        (BadRequest(), None, "false"),
        (UpstreamAuthError(), None, "false"),
    ],
)
def test_an_error_says_whether_and_when_to_come_again(
    error: EchoBrainError, retry_after: str | None, should_retry: str | None
) -> None:
    """Whole seconds, never sooner; the SDKs obey `x-should-retry`."""
    row = exchange(failed_providers=["a"], provider="a", attempts=2)
    response = error_response(error, OPENAI, row, [("vary", "Origin")])
    headers = response.headers
    assert (headers.get("retry-after"), headers.get("x-should-retry")) == (retry_after, should_retry)
    assert (headers["vary"], headers["x-failed-providers"], headers["x-attempts"]) == ("Origin", "a", "2")
    assert row.error_code == error.code


def test_an_error_is_in_the_dialect_of_its_route() -> None:
    """Status, body and what the route allows."""
    ours = error_response(MethodNotAllowed("GET"), BRAIN, exchange(), [])
    theirs = error_response(UpstreamAuthError(), OPENAI, exchange(), [])
    assert (ours.status_code, ours.headers["allow"]) == (405, "GET")
    assert json.loads(bytes(ours.body))["ok"] is False
    assert (theirs.status_code, json.loads(bytes(theirs.body))["error"]["code"]) == (500, "auth_error")
