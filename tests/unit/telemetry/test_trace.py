"""Trace ids: taken from the caller in a fixed order, only where well formed, else made here."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry.trace import TraceIds, read_trace

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
CLOUD_TRACE = "105445aa7843bc8bf206b12000100000"
WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,127}")
HEADERS = ("traceparent", "x-cloud-trace-context", "x-trace-id")


def read(parent: str | None = None, cloud: str | None = None, own: str | None = None) -> TraceIds:
    """The ids of a request with these headers."""
    return read_trace(dict(zip(HEADERS, (parent, cloud, own), strict=True)).get)


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID as `str(uuid4())` writes it."""
    return str(uuid.UUID(text)) == text


def test_traceparent_goes_before_all() -> None:
    """The W3C header wins, and brings its span."""
    assert read(PARENT, f"{CLOUD_TRACE}/1;o=1", "mine") == TraceIds(TRACE, TRACE, SPAN)


def test_cloud_trace_goes_before_our_own() -> None:
    """Google's header is next; its span is decimal there and hexadecimal in a log."""
    assert read(None, f"{CLOUD_TRACE}/255;o=1", "mine") == TraceIds(CLOUD_TRACE, CLOUD_TRACE, "00000000000000ff")


@pytest.mark.parametrize("cloud", [CLOUD_TRACE, CLOUD_TRACE.upper(), f"{CLOUD_TRACE};o=0", f"{CLOUD_TRACE}/0"])
def test_cloud_trace_without_a_span(cloud: str) -> None:
    """The span and the options may be missing, and 0 is no span."""
    assert read(cloud=cloud) == TraceIds(CLOUD_TRACE, CLOUD_TRACE, None)


def test_a_span_beyond_64_bits_is_left_out() -> None:
    """The trace is still good when the span is not."""
    assert read(cloud=f"{CLOUD_TRACE}/{2**64}").span_id is None


def test_our_own_header_is_last() -> None:
    """`X-Trace-Id` may be any word; it is Cloud Trace's id only where it has that form."""
    assert read(own="order-42.a_b") == TraceIds("order-42.a_b", None, None)
    assert read(own=TRACE) == TraceIds(TRACE, TRACE, None)
    dashed = str(uuid.UUID(TRACE))
    assert read(own=dashed) == TraceIds(dashed, TRACE, None)


def test_without_any_header_an_id_is_made() -> None:
    """Each such request has a new UUID, which Cloud Trace can find."""
    first, second = read(), read()
    assert first.trace_id != second.trace_id
    assert is_uuid(first.trace_id)
    assert first.cloud_trace_id == first.trace_id.replace("-", "")


@pytest.mark.parametrize(
    "parent",
    [
        "",
        TRACE,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-0",
        f"00-{TRACE}-{SPAN}-01extra",
        f"00-{TRACE}{SPAN}-01",
        f" {PARENT}",
    ],
)
def test_a_malformed_traceparent_is_passed_over(parent: str) -> None:
    """The next header is looked at, as if this one were not there."""
    assert read(parent, f"{CLOUD_TRACE}/1") == TraceIds(CLOUD_TRACE, CLOUD_TRACE, f"{1:016x}")


@pytest.mark.parametrize("cloud", ["", "0" * 32, CLOUD_TRACE[1:], f"{CLOUD_TRACE}/x", f"{CLOUD_TRACE}/1;o=x", "a b"])
def test_a_malformed_cloud_trace_is_passed_over(cloud: str) -> None:
    """The next header is looked at, as if this one were not there."""
    assert read(None, cloud, "mine").trace_id == "mine"


@pytest.mark.parametrize("own", ["", " ", "-x", "a b", "a\nb", "é", "a" * 129, "<script>", '"', "a,b"])
def test_a_malformed_id_of_ours_is_replaced(own: str) -> None:
    """What cannot stand in a header or a log line is not echoed."""
    assert is_uuid(read(own=own).trace_id)


def test_a_later_version_of_traceparent_may_have_more_fields() -> None:
    """The standard asks readers to take the fields they know."""
    assert read(f"01-{TRACE}-{SPAN}-01-more").trace_id == TRACE


NEARLY = st.one_of(st.text(max_size=140), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.?"))


@given(NEARLY, st.one_of(NEARLY, st.from_regex(r"[0-9a-f]{32}(/\d{1,21})?(;o=\d)?")), NEARLY)
def test_whatever_the_headers_say_the_ids_are_well_formed(parent: str, cloud: str, own: str) -> None:
    """An id is always a short word, fit for a header, a log line and an upstream."""
    ids = read(parent, cloud, own)
    assert WELL_FORMED.fullmatch(ids.trace_id)
    assert ids.cloud_trace_id is None or re.fullmatch(r"[0-9a-f]{32}", ids.cloud_trace_id)
    assert ids.span_id is None or re.fullmatch(r"[0-9a-f]{16}", ids.span_id)
