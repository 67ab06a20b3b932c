"""The error tree is what its docstring draws, and what the wire contract says of it."""

from __future__ import annotations

import re

import pytest

from shared import errors
from shared.errors import BadRequest, EchoBrainError, MethodNotAllowed, RateLimited, UpstreamTimeout

DRAWN = re.compile(r"^    ([│ ]*)[├└]── (\w+) +(\w+) +(\d{3})(.*)$", re.MULTILINE)
CONTRACT = {
    "bad_request": (400, 400),
    "context_length_exceeded": (400, 400),
    "content_filter": (400, 400),
    "auth_error": (401, 500),
    "quota_exceeded": (429, 429),
    "rate_limit": (429, 429),
    "timeout": (504, 504),
    "connection_error": (502, 502),
    "upstream_error": (502, 502),
    "overloaded": (503, 503),
    "not_ready": (503, 503),
    "model_not_found": (404, 404),
    "not_found": (404, 404),
    "method_not_allowed": (405, 405),
    "payload_too_large": (413, 413),
    "unsupported_media_type": (415, 415),
    "internal_error": (500, 500),
    "client_closed_request": (499, 499),
}
RETRY_AFTER = {"rate_limit", "overloaded", "not_ready"}
MENDED_BY_WAITING = {"rate_limit", "timeout", "connection_error", "upstream_error", "overloaded", "not_ready"}


def family(parent: type[EchoBrainError] = EchoBrainError) -> list[type[EchoBrainError]]:
    """All classes below `parent`."""
    return [kind for child in parent.__subclasses__() for kind in (child, *family(child))]


def example(kind: type[EchoBrainError]) -> EchoBrainError:
    """An instance of any class of the tree."""
    if kind is UpstreamTimeout:
        return UpstreamTimeout("idle", 15.0)
    return MethodNotAllowed("GET, OPTIONS") if kind is MethodNotAllowed else kind()


def test_the_docstring_draws_every_class_with_its_code_and_status() -> None:
    """The drawing and the code have the same classes, codes, statuses and parents."""
    drawn, parents = set(), {0: "EchoBrainError"}
    for indent, name, code, status, _ in DRAWN.findall(errors.__doc__ or ""):
        depth = len(indent) // 4 + 1
        parents[depth] = name
        drawn.add((parents[depth - 1], name, code, int(status)))
    assert drawn == {(kind.__bases__[0].__name__, kind.__name__, kind.code, kind.status) for kind in family()}


def test_a_code_is_that_of_one_failure() -> None:
    """Classes that share a code are one below the other: callers see the same, only what is done about them differs."""
    for kind in family():
        same = {other for other in family() if other.code == kind.code}
        first = next(other for other in kind.__mro__ if other in same and other.__base__ not in same)
        assert same <= {first, *family(first)}
        assert len({(other.status, other.openai_status, other.openai_type, other.text) for other in same}) == 1


def test_statuses_are_those_of_the_contract() -> None:
    """Each code has the contract's status in both dialects; our own key's refusal is a 500 to an OpenAI client."""
    assert {kind.code: (kind.status, kind.openai_status or kind.status) for kind in family()} == CONTRACT


def test_only_what_waiting_mends_may_be_retried() -> None:
    """Retryable is what a retry can mend; a bug of ours may be either."""
    retryable = {kind.code for kind in family() if kind.retryable} - {"internal_error"}
    assert retryable == MENDED_BY_WAITING
    assert {kind.code for kind in family() if example(kind).retry_after_s is not None} == RETRY_AFTER


TRIPS = {"timeout", "connection_error", "upstream_error"}


def test_what_trips_a_breaker_is_the_providers_health() -> None:
    """The last column of the contract's table; the other failures say nothing of it."""
    assert {kind.code for kind in family() if kind.trips_breaker} == TRIPS
    assert all(kind.trips_breaker for kind in family() if kind.code in TRIPS)


def test_a_wait_is_the_providers_only_where_it_asked_for_one() -> None:
    """What callers are told by default is not what a retry of ours waits for."""
    assert (RateLimited().retry_after_s, RateLimited().upstream_wait_s) == (1.0, None)
    asked = RateLimited(retry_after_s=7.5)
    assert (asked.retry_after_s, asked.upstream_wait_s) == (7.5, 7.5)


@pytest.mark.parametrize("kind", family(), ids=lambda kind: str(kind.__name__))
def test_every_error_has_a_safe_message_of_its_own(kind: type[EchoBrainError]) -> None:
    """A message is a sentence on one line; it is also the exception's text."""
    error = example(kind)
    assert error.message.endswith(".")
    assert error.message.isprintable()
    assert str(error) == error.message


@pytest.mark.parametrize("limit", ["connect", "first_token", "idle", "total"])
def test_a_timeout_says_which_limit_and_how_long(limit: str) -> None:
    """The four limits have four messages, each with its seconds."""
    error = UpstreamTimeout(limit, 2.5, upstream_request_id="req_1")
    assert "2.5 s" in error.message
    assert (error.limit, error.upstream_request_id) == (limit, "req_1")


def test_what_is_given_is_kept() -> None:
    """Message, parameter, wait and request id are those given, and a wait of zero is a wait."""
    error = BadRequest("n: too many", param="n", retry_after_s=0.0, upstream_request_id="req_2")
    assert (error.message, error.param, error.retry_after_s, error.upstream_request_id) == (
        "n: too many",
        "n",
        0.0,
        "req_2",
    )
