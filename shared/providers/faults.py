"""What an upstream's refusal becomes: decided by status and error code, never by the text of a message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

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

MAX_REASON_CHARS: Final = 500
_BY_CODE: Final[Mapping[str, type[EchoBrainError]]] = {
    "context_length_exceeded": ContextLengthExceeded,
    "content_filter": ContentFilter,
    "content_policy_violation": ContentFilter,
    "insufficient_quota": QuotaExceeded,
    "rate_limit_exceeded": RateLimited,
}
_BY_STATUS: Final[Mapping[int, type[EchoBrainError]]] = {
    401: UpstreamAuthError,
    402: QuotaExceeded,
    403: UpstreamAuthError,
    408: UpstreamError,  # like 409 not the caller's fault, and gone a moment later
    409: UpstreamError,
    429: RateLimited,
    503: UpstreamBusy,
    529: UpstreamBusy,  # Anthropic's
}
_CREDENTIAL: Final = re.compile(
    r"(?i:https?)://\S+|(?i:bearer|basic)\s+\S+|\b(?:sk|pk|rk|ak|gsk|xai|ebk|key|org|proj)[-_][\w*.\-]{4,}|\bAIza[\w\-]{10,}"
    r"|\b(?=[\w\-]*\d)(?=[\w\-]*[A-Za-z])[\w\-]{32,}"
)
_NUMBER: Final = re.compile(r"\d{1,100}(\.\d{1,100})?")
_TOKEN: Final = re.compile(r"[!-~]{1,200}")


class ErrorObject(msgspec.Struct):
    """OpenAI's error object; the types are loose because vendors differ."""

    message: Any = None
    type: Any = None
    code: Any = None
    param: Any = None


class _Body(msgspec.Struct):
    error: ErrorObject | None = None


def refusal(
    status: int, body: bytes, header: Callable[[str], str | None], request_id: str | None, *, key: str = ""
) -> EchoBrainError:
    """The error that an answer with this `status` (not 2xx) is; `key` is what was sent and must not come back."""
    error = _error_object(body)
    kind = _BY_CODE.get(str(error.code)) or _BY_CODE.get(str(error.type)) or _BY_STATUS.get(status)
    if kind is None:
        kind = BadRequest if 400 <= status < 500 else UpstreamError if status >= 500 else BrokenAnswer
    if kind is BadRequest:
        return _bad_request(error, request_id, key)
    wait_s = retry_after_s(header) if issubclass(kind, (RateLimited, UpstreamError)) else None
    return kind(retry_after_s=wait_s, upstream_request_id=request_id)


def in_band_error(error: Any, request_id: str | None) -> EchoBrainError:
    """The error that an error object inside a 200 answer is."""
    fields = error if isinstance(error, dict) else {}
    code = fields.get("code")
    kind = _BY_CODE.get(str(code)) or _BY_CODE.get(str(fields.get("type")))
    if kind is None:
        kind = _BY_STATUS.get(code, BrokenAnswer) if isinstance(code, int) else BrokenAnswer
    return kind(upstream_request_id=request_id)


def retry_after_s(header: Callable[[str], str | None]) -> float | None:
    """The wait the upstream asks for, in seconds, by `retry-after-ms`, which is exact, or by Retry-After."""
    ms = _number(header("retry-after-ms"))
    return _until(header("retry-after")) if ms is None else ms / 1000


def _until(raw: str | None) -> float | None:
    """Retry-After as seconds, also more than one, or as an HTTP date."""
    if (seconds := _number(raw)) is not None:
        return seconds
    try:
        at = parsedate_to_datetime(raw or "")
    except (ValueError, OverflowError):
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def clean_reason(message: str) -> str:
    """A provider's own reason, on one line, short, and without anything that looks like a credential or an address."""
    start = " ".join(message[: 4 * MAX_REASON_CHARS].split())  # the pattern looks ahead: not over a whole prompt
    return _CREDENTIAL.sub("[removed]", start)[:MAX_REASON_CHARS]


def printable_token(value: Any) -> str | None:
    """`value` if it is a short printable word such as an id, else None: nothing else of an upstream's is logged."""
    return value if isinstance(value, str) and _TOKEN.fullmatch(value) else None


def _bad_request(error: ErrorObject, request_id: str | None, key: str) -> BadRequest:
    param = printable_token(error.param)
    reason = None
    if param and isinstance(error.message, str):
        reason = clean_reason(error.message.replace(key, "[removed]") if key else error.message)
    message = f"The provider refused the request: {reason}" if reason else "The provider refused the request."
    return BadRequest(message, param=param, upstream_request_id=request_id)


def _error_object(body: bytes) -> ErrorObject:
    try:
        return msgspec.json.decode(body, type=_Body).error or ErrorObject()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorObject()


def _number(raw: str | None) -> float | None:
    """The number in a header, the largest where it was sent several times; one of many digits is just very large."""
    numbers = [number.strip() for number in raw.split(",")] if raw else []
    if not numbers or not all(_NUMBER.fullmatch(number) for number in numbers):
        return None
    return max(float(number) for number in numbers)
