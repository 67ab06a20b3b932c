"""The Brain contract, frozen: what the real gateway answers is compared with brain_contract.json.

Frontends are built on these answers, so a change must be meant. When one is, renew the file, read its diff,
and tell those who build them (docs/brain_api.md, CHANGELOG.md):

    python -m tests.contract.test_brain_snapshot --renew

The stub answers, the mock fails on demand. Recorded are the status, the headers of the contract, and the body
or the events with every key and value. What differs from run to run (ids, times, the version) is recorded as
its form: `<uuid 1>`, `<time>`, `<string>` or `<number>`.
"""

from __future__ import annotations

import contextlib
import difflib
import http.client
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.contract.brain_cases import ANSWERED, CASES, CHAT, FAILED, ORIGIN, REFUSED, STREAM, Ask
from tests.servers import Server, gateway

SNAPSHOT: Final = Path(__file__).with_name("brain_contract.json")
HOW_TO_RENEW: Final = (
    "The Brain contract changed. If that is meant: python -m tests.contract.test_brain_snapshot --renew"
)
ENVIRONMENT: Final = {
    "APP_ENV": "contract",
    "GIT_SHA": "4f2c9d1",
    "BUILD_TIME": "2026-03-01T11:00:00Z",
    "CORS_ALLOW_ORIGINS": ORIGIN,
}
TIMEOUT_S: Final = 30
CONTRACT_HEADERS: Final = (
    "content-type",
    "cache-control",
    "x-accel-buffering",
    "x-trace-id",
    "x-served-by",
    "x-attempts",
    "x-failed-providers",
    "x-request-id",
    "x-should-retry",
    "retry-after",
    "allow",
    "location",
    "vary",
    "www-authenticate",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-allow-credentials",
    "access-control-expose-headers",
    "access-control-max-age",
)
# The keys whose value differs from run to run or from release to release, whatever it looks like.
VARYING: Final = frozenset({"version", "latency_ms", "created"})
UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


def shape(value: Any, uuids: dict[str, str], key: str = "") -> Any:
    """The value itself, with what differs from run to run replaced by its form; equal UUIDs get equal numbers."""
    if isinstance(value, dict):
        return {name: shape(inner, uuids, name) for name, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(inner, uuids) for inner in value]
    if key in VARYING and isinstance(value, str | int | float) and not isinstance(value, bool):
        return "<string>" if isinstance(value, str) else "<number>"
    if isinstance(value, str) and UUID.fullmatch(value):
        return uuids.setdefault(value, f"<uuid {len(uuids) + 1}>")
    if key == "time" and isinstance(value, str) and TIME.fullmatch(value):
        return "<time>"
    return value


def _events(text: str) -> list[Any]:
    """The events of a stream in their order, each with its name and its JSON."""
    assert text.endswith("\n\n"), "a stream ends with a whole event"
    events = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        events.append({"event": fields["event"], "data": json.loads(fields["data"])})
    return events


def _body(content_type: str, content: bytes) -> Any:
    if not content:
        return None
    if content_type.startswith("text/event-stream"):
        return _events(content.decode())
    return json.loads(content) if content_type.startswith("application/json") else content.decode()


def observe(servers: Mapping[str, Server], ask: Ask) -> dict[str, Any]:
    """What one request is answered, as it is recorded."""
    address = urlsplit(servers[ask.provider].url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=TIMEOUT_S)
    try:
        # A body that is too large may be refused before all of it is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(ask.method, ask.path, ask.body, dict(ask.headers))
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    headers = {name: value for name in CONTRACT_HEADERS if (value := response.headers.get(name)) is not None}
    body = _body(headers.get("content-type", ""), content)
    answer: dict[str, Any] = shape({"status": response.status, "headers": headers, "body": body}, {})
    return answer


def difference(expected: object, observed: object) -> str:
    """A unified diff of two recordings, empty when they are the same."""
    before, after = ([*_text(part).splitlines()] for part in (expected, observed))
    return "\n".join(difflib.unified_diff(before, after, "brain_contract.json", "the gateway", lineterm="", n=4))


def _text(recording: object) -> str:
    return json.dumps(recording, indent=1, sort_keys=True, ensure_ascii=False)


@contextlib.contextmanager
def gateways(logs: Path) -> Iterator[Mapping[str, Server]]:
    """A gateway on the stub and one on the mock, each with all functions on one port."""
    with contextlib.ExitStack() as running:
        yield {
            provider: running.enter_context(
                gateway(logs / f"{provider}.log", {**ENVIRONMENT, "ECHO_BRAIN_PROVIDER": provider})
            )
            for provider in ("stub", "mock")
        }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Server]]:
    """The gateways that the cases ask, by provider."""
    with gateways(tmp_path_factory.mktemp("contract")) as servers:
        yield servers


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """The committed snapshot."""
    snapshot: dict[str, Any] = json.loads(SNAPSHOT.read_text())
    return snapshot


@pytest.mark.parametrize("name", CASES)
def test_answer_is_as_recorded(name: str, served: Mapping[str, Server], recorded: dict[str, Any]) -> None:
    """The gateway answers each request of the table as the snapshot has it."""
    assert name in recorded, f"No recording of this case. {HOW_TO_RENEW}"
    changed = difference(recorded[name], observe(served, CASES[name]))
    assert not changed, f"{HOW_TO_RENEW}\n{changed}"


def test_snapshot_has_every_case_and_no_other(recorded: dict[str, Any]) -> None:
    """The snapshot and the table have the same cases, so that none passes by not being there."""
    assert set(recorded) == set(CASES), HOW_TO_RENEW
    assert all(set(entry) == {"status", "headers", "body"} for entry in recorded.values())


def _events_of(entry: dict[str, Any]) -> list[str]:
    return [event["event"] for event in entry["body"]]


def test_snapshot_covers_answers_and_routes(recorded: dict[str, Any]) -> None:
    """The snapshot holds whole answers, whole streams, and a good answer of every route."""
    assert all(recorded[name]["status"] == 200 for name in ANSWERED)
    streams = [recorded[name] for name, ask in ANSWERED.items() if ask.path == STREAM]
    assert streams
    assert all(_events_of(entry) == ["meta", *["token"] * 7, "final"] for entry in streams)
    good = {CASES[name].path.partition("?")[0] for name, entry in recorded.items() if entry["status"] == 200}
    assert good >= {CHAT, STREAM, "/v1/brain/health", "/health", "/version", "/v1/models"}


def test_snapshot_covers_refusals(recorded: dict[str, Any]) -> None:
    """Every refused request is a 4xx with `ok: false`, and together they have every code of a refusal."""
    refusals = [recorded[name] for name in REFUSED]
    assert all(400 <= entry["status"] < 500 for entry in refusals)
    codes = {entry["body"]["error"]["code"] for entry in refusals}
    assert codes == {
        "bad_request",
        "payload_too_large",
        "unsupported_media_type",
        "method_not_allowed",
        "not_found",
    }


def test_snapshot_covers_failures(recorded: dict[str, Any]) -> None:
    """A provider's failure is a status on chat; on a stream it is `meta`, the tokens so far, and `error`."""
    for name, ask in FAILED.items():
        entry = recorded[name]
        if ask.path == STREAM:
            tokens = ["token"] * (2 if "cut" in name else 0)
            assert (entry["status"], _events_of(entry)) == (200, ["meta", *tokens, "error"])
        else:
            assert entry["status"] >= 400
            assert entry["body"]["ok"] is False


def _rename(entry: dict[str, Any]) -> None:
    entry["body"][-1]["data"]["answer"] = entry["body"][-1]["data"].pop("message")


def _another_session(entry: dict[str, Any]) -> None:
    entry["body"][1]["data"]["session_id"] = "<uuid 3>"


def _retype(entry: dict[str, Any]) -> None:
    entry["body"][-1]["data"]["usage"]["total_tokens"] = "25"


CHANGES: Final[dict[str, Callable[[dict[str, Any]], object]]] = {
    "status": lambda entry: entry.update(status=201),
    "header lost": lambda entry: entry["headers"].pop("x-trace-id"),
    "event lost": lambda entry: entry["body"].pop(1),
    "event renamed": lambda entry: entry["body"][-1].update(event="done"),
    "key added": lambda entry: entry["body"][0]["data"].update(extra=1),
    "key renamed": _rename,
    "type changed": _retype,
    "id changes within a stream": _another_session,
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_is_noticed(change: str, recorded: dict[str, Any]) -> None:
    """A change of a status, header, event, key or type makes a difference; no change makes none."""
    entry = recorded["stream: one message"]
    changed = deepcopy(entry)
    assert difference(entry, changed) == ""
    CHANGES[change](changed)
    assert difference(entry, changed)


def renew() -> None:
    """Writes the snapshot anew from the gateway of this checkout."""
    with tempfile.TemporaryDirectory() as folder, gateways(Path(folder)) as servers:
        recordings = {name: observe(servers, ask) for name, ask in CASES.items()}
    SNAPSHOT.write_text(_text(recordings) + "\n")
    print(f"{SNAPSHOT.name}: {len(recordings)} cases. Read the diff before you commit it.")


if __name__ == "__main__":
    if sys.argv[1:] != ["--renew"]:
        sys.exit(__doc__)
    renew()
