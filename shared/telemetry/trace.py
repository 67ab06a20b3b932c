"""The trace id of a request: taken from the caller where it is well formed, else made here."""

from __future__ import annotations

import contextvars
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

_TRACEPARENT = re.compile(
    r"(?:00(?!.{53}.)|(?!ff|00)[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
)
_CLOUD_TRACE = re.compile(r"(?!0{32})(?P<trace>[0-9a-fA-F]{32})(?:/(?P<span>[0-9]{1,20}))?(?:;o=[0-9]+)?")
_OWN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,127}")
_HEX_32 = re.compile(r"[0-9a-f]{32}")

current_trace_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("trace_id", default=None)


@dataclass(frozen=True, slots=True)
class TraceIds:
    """`trace_id` as shown to callers; `cloud_trace_id` (32 hex digits) and `span_id` (16) as Cloud Trace knows them."""

    trace_id: str
    cloud_trace_id: str | None = None
    span_id: str | None = None


def read_trace(header: Callable[[str], str | None]) -> TraceIds:
    """The ids from `traceparent`, else `X-Cloud-Trace-Context`, else `X-Trace-Id`, else a new UUID."""
    if match := _TRACEPARENT.fullmatch(header("traceparent") or ""):
        return TraceIds(match["trace"], match["trace"], match["span"])
    if match := _CLOUD_TRACE.fullmatch(header("x-cloud-trace-context") or ""):
        trace = match["trace"].lower()
        return TraceIds(trace, trace, _hex_span(match["span"]))
    own = header("x-trace-id") or ""
    if not _OWN.fullmatch(own):
        own = str(uuid.uuid4())
    plain = own.replace("-", "").lower()
    return TraceIds(own, plain if _HEX_32.fullmatch(plain) else None)


def _hex_span(decimal: str | None) -> str | None:
    if decimal is None or not 0 < int(decimal) < 2**64:
        return None
    return f"{int(decimal):016x}"
