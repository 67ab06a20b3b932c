"""Logs for Cloud Logging: one JSON object a line on stdout, and never what a message, a key or an upstream body says.

The format is the one that google-cloud-logging's StructuredLogHandler writes; importing that handler takes longer than
everything else a cold start does on the stub (docs/performance.md), so the few lines of it that matter stand here.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from types import TracebackType
from typing import Any, Final, TextIO

import msgspec

from shared.models import Exchange
from shared.telemetry.trace import current_trace_id

LOGGER: Final = "echo_brain"

_requests = logging.getLogger(f"{LOGGER}.request")
_steps = logging.getLogger(f"{LOGGER}.failover")
_circuits = logging.getLogger(f"{LOGGER}.circuit")


class CloudFormatter(logging.Formatter):
    """One log record as one line of JSON in the fields that Cloud Logging knows."""

    def __init__(self, project: str | None) -> None:
        super().__init__()
        self._prefix = f"projects/{project}/traces/" if project else ""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "severity": record.levelname,
            "message": _message(record),
            "logger": record.name,
        }
        entry["time"] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        trace = getattr(record, "trace", None) or current_trace_id.get()
        if trace:
            entry["logging.googleapis.com/trace"] = self._prefix + trace
        if span := getattr(record, "span", None):
            entry["logging.googleapis.com/spanId"] = span
        if fields := getattr(record, "fields", None):
            entry.update(fields)
        if record.exc_info and record.exc_info[0]:
            entry["stack"] = where(record.exc_info[0], record.exc_info[2])
        try:
            return msgspec.json.encode(entry).decode()
        except UnicodeEncodeError:  # half a surrogate pair; logging's own complaint would quote the record
            return json.dumps(entry)


def configure(level: str, project: str | None, stream: TextIO | None = None) -> None:
    """Sends every log record of the process through `CloudFormatter`; other libraries speak from WARNING up."""
    # What a record would collect for fields that no line of ours has.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(CloudFormatter(project))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(LOGGER).setLevel(level)


def log_bug(error: BaseException) -> None:
    """An exception that should not have come this far, by class and place."""
    logging.getLogger(LOGGER).error("internal error", exc_info=error)


def where(kind: type[BaseException], tb: TracebackType | None) -> list[str]:
    """An exception's class and the lines it passed, without its text, which may quote what must not be logged."""
    return [kind.__qualname__, *(f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(tb))]


def log_request(exchange: Exchange, status: int, now_s: float) -> None:
    """Writes the one line of a request: `status` as the caller saw it, times in milliseconds since it came in."""
    usage = exchange.usage
    fields = {
        "trace_id": exchange.trace_id,
        "method": exchange.method,
        "path": exchange.path,
        "status": status,
        "stream": exchange.stream,
        "provider": exchange.provider,
        "model": exchange.model,
        "attempts": exchange.attempts,
        "failed_providers": exchange.failed_providers,
        "continued_by": exchange.continued_by,
        "upstream_request_id": exchange.upstream_request_id,
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "total_tokens": usage.total_tokens if usage else None,
        "first_token_ms": _ms(exchange.started_s, exchange.first_token_s),
        "total_ms": _ms(exchange.started_s, now_s),
        "finish_reason": exchange.finish_reason,
        "error": exchange.error_code,
    }
    extra = {"fields": fields, "trace": exchange.trace_header, "span": exchange.span_id}
    _requests.log(_severity(status, exchange.error_code), "request", extra=extra)


def log_step(
    provider: str, model: str | None, error_code: str | None, decision: str, reason: str, wait_s: float
) -> None:
    """What is done about a failure, or about a silent target, and why."""
    fields = {
        "provider": provider,
        "model": model,
        "error": error_code,
        "decision": decision,
        "reason": reason,
        "wait_ms": round(wait_s * 1000, 1),
    }
    _steps.warning("%s: %s", provider, decision, extra={"fields": fields})


def log_circuit(provider: str, model: str | None, before: str, after: str) -> None:
    """A transition of a target's circuit."""
    level = logging.INFO if after == "closed" else logging.WARNING
    fields = {"provider": provider, "model": model, "from": before, "to": after}
    _circuits.log(level, "circuit of %s: %s", provider, after, extra={"fields": fields})


def _ms(start_s: float, end_s: float | None) -> float | None:
    return None if end_s is None else round((end_s - start_s) * 1000, 1)


def _severity(status: int, error_code: str | None) -> int:
    if status >= 500 or (error_code and status < 400):
        return logging.ERROR
    return logging.WARNING if status >= 400 and status != 499 else logging.INFO


def _message(record: logging.LogRecord) -> str:
    if record.name.startswith(LOGGER):
        return record.getMessage()
    # What another library interpolates may be anything, a prompt included: only its template is safe.
    return str(record.msg) if record.args else f"{record.name} at {record.module}:{record.lineno}"
