"""What an upstream's refusal becomes: by status and code, never by the text of a message."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import (
    BadRequest,
    BrokenAnswer,
    ContentFilter,
    ContextLengthExceeded,
    EchoBrainError,
    QuotaExceeded,
    RateLimited,
    UpstreamAuthError,
    UpstreamBusy,
    UpstreamError,
)
from shared.providers.faults import (
    MAX_REASON_CHARS,
    clean_reason,
    in_band_error,
    printable_token,
    refusal,
    retry_after_s,
)

TEMPTING = "context_length_exceeded insufficient_quota content_filter rate_limit_exceeded invalid_api_key 429"


def refused(status: int, headers: dict[str, str] | None = None, **error: Any) -> EchoBrainError:
    """The error of an upstream's answer with this error object."""
    return refusal(status, json.dumps({"error": error}).encode(), (headers or {}).get, "req_1")


def no_header(name: str) -> None:
    """An answer without headers."""


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, None, BadRequest),
        (400, "invalid_value", BadRequest),
        (404, "model_not_found", BadRequest),
        (422, None, BadRequest),
        (413, None, BadRequest),
        (400, "context_length_exceeded", ContextLengthExceeded),
        (413, "context_length_exceeded", ContextLengthExceeded),
        (400, "content_filter", ContentFilter),
        (400, "content_policy_violation", ContentFilter),
        (401, "invalid_api_key", UpstreamAuthError),
        (403, None, UpstreamAuthError),
        (402, None, QuotaExceeded),
        (429, None, RateLimited),
        (429, "rate_limit_exceeded", RateLimited),
        (429, "insufficient_quota", QuotaExceeded),
        (500, None, UpstreamError),
        (502, "server_error", UpstreamError),
        (503, None, UpstreamBusy),
        (529, "overloaded", UpstreamBusy),
        (307, None, BrokenAnswer),
        (304, None, BrokenAnswer),
    ],
)
def test_status_and_code_decide(status: int, code: str | None, expected: type[EchoBrainError]) -> None:
    """Each refusal is the error of the contract's table, and keeps the upstream's request id."""
    error = refused(status, message="no", code=code)
    assert type(error) is expected
    assert error.upstream_request_id == "req_1"
    assert type(refused(status, message="no", type=code)) is expected  # some vendors put it there


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_the_text_of_a_message_decides_nothing(status: int) -> None:
    """A message full of codes is as good as none."""
    assert type(refused(status, message=TEMPTING)) is type(refused(status, message="no"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b'"no"',
        b'{"error":"no"}',
        b'{"error":null}',
        b'{"detail":[{"msg":"no"}]}',
        b"\xff\xfe",
        b'{"error":{"message":"\xff"}}',
        b'{"error":{"message":"\\ud800"}}',
        b"[" * 100_000,
    ],
    ids=range(12),
)
@pytest.mark.parametrize(("status", "expected"), [(400, BadRequest), (401, UpstreamAuthError), (500, UpstreamError)])
def test_a_body_that_is_no_error_object_leaves_the_status(
    status: int, expected: type[EchoBrainError], body: bytes
) -> None:
    """Proxies and other vendors answer in every form there is."""
    error = refusal(status, body, no_header, None)
    assert type(error) is expected
    assert error.message in ("The provider refused the request.", expected.text)


@given(st.integers(300, 599), st.binary(max_size=60), st.text(max_size=30), st.text(max_size=30))
def test_no_answer_is_too_strange_to_be_refused(status: int, body: bytes, after: str, after_ms: str) -> None:
    """Whatever the status, the body and the headers are, the result is an error of ours."""
    header = {"retry-after": after, "retry-after-ms": after_ms}.get
    assert isinstance(refusal(status, body, header, None), EchoBrainError)


def test_a_reason_that_names_a_parameter_is_passed_on() -> None:
    """The caller can mend what the provider names; the parameter goes along."""
    error = refused(400, message="Invalid 'temperature':\n at most 2.", param="temperature")
    assert error.param == "temperature"
    assert error.message == "The provider refused the request: Invalid 'temperature': at most 2."


@pytest.mark.parametrize("param", [None, "", 7, ["n"], "two words", "x" * 500])
def test_a_reason_that_names_none_stays_here(param: object) -> None:
    """Without a parameter the text may be about anything, the prompt included."""
    error = refused(400, message="canary-4711", param=param)
    assert (error.param, error.message) == (None, "The provider refused the request.")


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_other_refusals_have_fixed_messages(status: int) -> None:
    """Only a 400 can be the caller's to mend."""
    assert "canary" not in refused(status, message="canary-4711", param="temperature").message


KEYS = [
    "sk-abcd1234",
    "sk-proj-Ab_12-34.56",
    "pk_live_12345678",
    "gsk_0123456789abcdef",
    "xai-0123456789",
    "key-0123456789",
    "org-AbCdEfGh",
    "proj_AbCdEfGh",
    "ebk_0123456789",
    "AIzaSyD-0123456789_abc",
    "Bearer abc.def.ghi",
    "bearer   x",
    "Basic dXNlcjpwYXNz",
    "https://internal.example.com:8443/v1?key=1",
    "http://10.0.0.1/",
    "HTTPS://INTERNAL.EXAMPLE/V1",
    "0123456789abcdef0123456789abcdef",
    "sk-abcd****************wxyz",
]


@pytest.mark.parametrize("secret", KEYS)
@pytest.mark.parametrize("frame", ["{}", "Incorrect API key provided: {}.", "key='{}', retry", "({})", "a\n{}\tb"])
def test_credentials_and_addresses_are_removed_from_a_reason(secret: str, frame: str) -> None:
    """Whatever stands around it, nothing that looks like a key or an address is left."""
    cleaned = clean_reason(frame.format(secret))
    assert secret not in cleaned
    assert "[removed]" in cleaned


WORDS = st.text(st.characters(codec="utf-8"), max_size=40)


@given(WORDS, st.sampled_from(KEYS), WORDS)
def test_a_reason_is_one_short_line_without_the_credential(before: str, secret: str, after: str) -> None:
    """Set apart by blanks, a credential is found in any text."""
    cleaned = clean_reason(f"{before} {secret} {after}")
    assert secret not in cleaned
    assert len(cleaned) <= MAX_REASON_CHARS
    assert len(cleaned.splitlines()) <= 1


def test_an_ordinary_reason_is_left_alone() -> None:
    """Names of models, parameters and limits are what the caller needs."""
    reason = "Invalid schema for response_format 'weather': additionalProperties must be false for gpt-4.1-mini."
    assert clean_reason(reason) == reason


def test_a_long_reason_is_cut() -> None:
    """Some vendors repeat the request."""
    assert len(clean_reason("word " * 1000)) == MAX_REASON_CHARS


@pytest.mark.parametrize(
    "message",
    ["a-" * 10_000, "1-" * 10_000, "a" * 20_000, "-" * 20_000, "http://" * 3_000, "sk-" * 6_000, "a " * 10_000],
)
def test_a_huge_reason_is_cleaned_in_one_go(message: str) -> None:
    """An upstream's text cannot make the process search for ever (it would here, without a limit)."""
    assert len(clean_reason(message)) <= MAX_REASON_CHARS


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "2, 9"}, 9.0),
        ({"retry-after": "12345678901234"}, 12345678901234.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00"}, 0.0),
        ({"retry-after": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"}, None),
        ({"retry-after": f"Mon, 01 Jan 2024 00:00:00 +{'9' * 20}"}, None),
        ({"retry-after": "Mon, 41 Jan 2024 99:99:99 GMT"}, None),
    ],
)
def test_every_form_of_retry_after_is_read(headers: dict[str, str], expected: float | None) -> None:
    """Seconds, milliseconds, a date; anything else is no wish at all."""
    assert retry_after_s(headers.get) == expected


def test_a_date_to_come_is_a_wait() -> None:
    """A date counts from now."""
    at = datetime.now(UTC) + timedelta(hours=1)
    wait_s = retry_after_s({"retry-after": format_datetime(at, usegmt=True)}.get)
    assert wait_s is not None
    assert 3000 < wait_s <= 3600


@given(st.text(max_size=60))
def test_no_retry_after_is_too_strange(raw: str) -> None:
    """Whatever the header says, it is a wait or none."""
    wait_s = retry_after_s({"retry-after": raw}.get)
    assert wait_s is None or wait_s >= 0


@pytest.mark.parametrize(("status", "kept"), [(429, True), (503, True), (500, True), (401, False), (400, False)])
def test_a_wait_is_kept_where_waiting_helps(status: int, kept: bool) -> None:
    """Rate limits and failures pass it on."""
    assert (refused(status, {"retry-after": "7"}, message="no").retry_after_s == 7.0) is kept


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "context_length_exceeded"}, ContextLengthExceeded),
        ({"type": "insufficient_quota"}, QuotaExceeded),
        ({"code": "content_filter"}, ContentFilter),
        ({"code": 500, "message": TEMPTING}, BrokenAnswer),
        ("rate_limit_exceeded", BrokenAnswer),
        (None, BrokenAnswer),
        ([], BrokenAnswer),
    ],
)
def test_an_error_inside_a_good_answer(error: object, expected: type[EchoBrainError]) -> None:
    """Its code decides; without a known one it is the upstream's failure, never a success."""
    found = in_band_error(error, "req_1")
    assert (type(found), found.upstream_request_id) == (expected, "req_1")


@pytest.mark.parametrize("value", [None, 7, "", "two words", "line\n", "é", "x" * 201, ["x"]])
def test_only_words_are_tokens(value: object) -> None:
    """Ids, models and reasons are logged only where they are short printable words."""
    assert printable_token(value) is None
    assert printable_token("req_1") == "req_1"
