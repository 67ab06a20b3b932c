"""Logs: one JSON object a line, whatever is in it, and never what a message or an exception says."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.models import Ending, Usage
from shared.telemetry import logs
from shared.telemetry.logs import CloudFormatter, log_bug, log_circuit, log_request, log_step
from shared.telemetry.trace import current_trace_id
from tests.unit.fakes import exchange

ANYTHING = st.text(st.characters(), max_size=60)  # half surrogate pairs too
HARMFUL = "line\r\nsecond \x1b[31mred\x1b[0m \x00 \u2028 \u202e 🌍 ü"
CANARY = "canary-4711"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the process writes to its log; the logging of pytest itself is put back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger(logs.LOGGER)
    before = (root.handlers[:], root.level, ours.level)
    stream = io.StringIO()
    logs.configure("INFO", "p-1", stream)
    yield stream
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    """The lines so far, each of which must be a JSON object."""
    lines = stream.getvalue().splitlines()
    assert stream.getvalue() == "".join(f"{line}\n" for line in lines)
    return [json.loads(line) for line in lines]


def record(name: str, message: object, *args: object, **more: object) -> logging.LogRecord:
    """A log record as a library would make it."""
    made = logging.LogRecord(name, logging.WARNING, "library.py", 12, message, args, None)
    made.__dict__.update(more)
    return made


def formatted(entry: logging.LogRecord, project: str | None = None) -> dict[str, Any]:
    """The record as Cloud Logging reads it; it must be on one line, without a control character."""
    line = CloudFormatter(project).format(entry)
    assert not any(character < " " for character in line)
    read: dict[str, Any] = json.loads(line)
    return read


@given(ANYTHING, ANYTHING, ANYTHING)
def test_a_line_is_one_json_object_whatever_is_in_it(message: str, name: str, value: str) -> None:
    """Text, logger names and fields of any kind stay on one line and are JSON."""
    assert formatted(record(f"echo_brain.{name}", "%s", message))["severity"] == "WARNING"
    assert formatted(record(name, message, value, fields={"path": value}))["severity"] == "WARNING"


def test_line_breaks_and_escape_codes_are_harmless() -> None:
    """A message comes back as it was, from one line without control characters."""
    assert formatted(record("echo_brain.x", "%s", HARMFUL))["message"] == HARMFUL


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_the_severity_is_the_level(level: str) -> None:
    """Cloud Logging knows the standard library's names."""
    made = record("echo_brain", "x")
    made.levelno, made.levelname = getattr(logging, level), level
    assert formatted(made)["severity"] == level


def test_the_time_is_utc_with_milliseconds() -> None:
    """The time is the record's own."""
    made = record("echo_brain", "x")
    made.created, made.msecs = 1_700_000_000.9996, 999.6
    assert formatted(made)["time"] == "2023-11-14T22:13:20.999Z"


def test_other_libraries_may_not_quote_what_they_handle() -> None:
    """Of a third party's record only its template or its place is written."""
    assert formatted(record("aiohttp.access", "sent %s", CANARY))["message"] == "sent %s"
    assert formatted(record("aiohttp.access", f"sent {CANARY}"))["message"] == "aiohttp.access at library:12"
    assert CANARY not in json.dumps(formatted(record("x", {"what": CANARY})))


def test_an_exception_is_written_by_class_and_place_without_its_text() -> None:
    """What an exception says, and what caused it, may quote a prompt or a key."""

    def read() -> None:
        raise ValueError(f"cannot read {CANARY}") from KeyError(CANARY)

    with pytest.raises(ValueError, match=CANARY) as caught:
        read()
    entry = formatted(record("echo_brain", "internal error", exc_info=(caught.type, caught.value, caught.tb)))
    assert CANARY not in json.dumps(entry)
    assert entry["stack"][0] == "ValueError"
    assert "test_an_exception_is_written" in entry["stack"][1]


def test_an_exception_group_is_written_without_its_texts() -> None:
    """Task groups wrap what went wrong; their members' texts stay inside as well."""
    error = ExceptionGroup(CANARY, [ValueError(CANARY)])
    entry = formatted(record("echo_brain", "x", exc_info=(type(error), error, None)))
    assert CANARY not in json.dumps(entry)


def test_a_trace_is_named_as_cloud_trace_does() -> None:
    """With a project the trace is its resource name, without one the bare id; a record's own goes first."""
    current_trace_id.set("a" * 32)
    try:
        assert formatted(record("echo_brain", "x"), "p-1")["logging.googleapis.com/trace"] == (
            f"projects/p-1/traces/{'a' * 32}"
        )
        own = formatted(record("echo_brain", "x", trace="b" * 32, span="c" * 16))
        assert own["logging.googleapis.com/trace"] == "b" * 32
        assert own["logging.googleapis.com/spanId"] == "c" * 16
    finally:
        current_trace_id.set(None)
    assert "logging.googleapis.com/trace" not in formatted(record("echo_brain", "x"))


def test_other_libraries_speak_from_warning_up(written: io.StringIO) -> None:
    """Our own loggers follow LOG_LEVEL, the others are kept quiet."""
    logging.getLogger("aiohttp").info("hidden %s", 1)
    logging.getLogger("aiohttp").warning("seen %s", 1)
    logging.getLogger("echo_brain.x").debug("hidden")
    logging.getLogger("echo_brain.x").info("seen")
    assert [(entry["severity"], entry["message"]) for entry in entries(written)] == [
        ("WARNING", "seen %s"),
        ("INFO", "seen"),
    ]


def test_a_bug_is_one_line_without_its_text(written: io.StringIO) -> None:
    """An unexpected exception is an ERROR with a stack, and says nothing it was told."""
    log_bug(RuntimeError(CANARY))
    (entry,) = entries(written)
    assert (entry["severity"], entry["stack"]) == ("ERROR", ["RuntimeError"])
    assert CANARY not in written.getvalue()


def test_half_a_surrogate_pair_does_not_break_the_log(written: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    """Such text is written like any other; the logging module must not complain on stderr and quote it."""
    logging.getLogger("echo_brain.x").warning("%s", f"{CANARY} \ud83d")
    assert len(entries(written)) == 1
    assert CANARY not in capsys.readouterr().err


def test_a_request_is_one_line_with_all_that_became_known(written: io.StringIO) -> None:
    """The fields of the issue are there: ids, status, provider, model, tokens, times, ending."""
    row = exchange(provider="openai", model="asked", attempts=3, first_token_s=1000.25, trace_header="a" * 32)
    row.failed_providers, row.continued_by = ["azure"], ["vertex"]
    row.settle(Ending("stop", Usage(9, 4, 13), "gpt-x", "req_1"))
    log_request(row, 200, 1001.5)
    (entry,) = entries(written)
    expected = {
        "severity": "INFO",
        "message": "request",
        "logging.googleapis.com/trace": f"projects/p-1/traces/{'a' * 32}",
        "trace_id": "trace-1",
        "method": "POST",
        "path": "/v1/brain/chat",
        "status": 200,
        "stream": False,
        "provider": "openai",
        "model": "gpt-x",
        "attempts": 3,
        "failed_providers": ["azure"],
        "continued_by": ["vertex"],
        "upstream_request_id": "req_1",
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "total_tokens": 13,
        "first_token_ms": 250.0,
        "total_ms": 1500.0,
        "finish_reason": "stop",
        "error": None,
    }
    assert {name: entry[name] for name in expected} == expected


def test_what_is_not_known_of_a_request_is_null(written: io.StringIO) -> None:
    """A request that never reached a provider has the same fields."""
    log_request(exchange(), 404, 1000.0)
    (entry,) = entries(written)
    assert (entry["total_ms"], entry["attempts"], entry["failed_providers"]) == (0.0, 0, [])
    assert {entry[name] for name in ("provider", "model", "total_tokens", "first_token_ms", "finish_reason")} == {None}


@pytest.mark.parametrize(
    ("status", "code", "severity"),
    [
        (200, None, "INFO"),
        (200, "upstream_error", "ERROR"),
        (404, "not_found", "WARNING"),
        (499, "client_closed_request", "INFO"),
        (500, "internal_error", "ERROR"),
        (503, None, "ERROR"),
    ],
)
def test_the_severity_of_a_request(written: io.StringIO, status: int, code: str | None, severity: str) -> None:
    """Our faults are errors, a stream that broke too; a caller's are warnings, a caller that left is neither."""
    log_request(exchange(error_code=code), status, 1001.0)
    assert entries(written)[0]["severity"] == severity


def test_a_decision_is_one_line(written: io.StringIO) -> None:
    """A warning with its fields, under the trace of the request that it was made for."""
    token = current_trace_id.set("a" * 32)
    try:
        log_step("azure", "gpt-x", "rate_limit", "retry", "retry_after", 1.23456)
    finally:
        current_trace_id.reset(token)
    (entry,) = entries(written)
    expected = {
        "severity": "WARNING",
        "message": "azure: retry",
        "logger": "echo_brain.failover",
        "logging.googleapis.com/trace": f"projects/p-1/traces/{'a' * 32}",
        "provider": "azure",
        "model": "gpt-x",
        "error": "rate_limit",
        "decision": "retry",
        "reason": "retry_after",
        "wait_ms": 1234.6,
    }
    assert {name: entry[name] for name in expected} == expected


@pytest.mark.parametrize(("after", "severity"), [("open", "WARNING"), ("half_open", "WARNING"), ("closed", "INFO")])
def test_a_transition_of_a_circuit_is_one_line(written: io.StringIO, after: str, severity: str) -> None:
    """That a circuit has closed is good news."""
    log_circuit("azure", None, "closed", after)
    (entry,) = entries(written)
    fields = ("severity", "logger", "provider", "model", "from", "to")
    assert [entry[name] for name in fields] == [severity, "echo_brain.circuit", "azure", None, "closed", after]
