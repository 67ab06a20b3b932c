"""The failover drill, shortened, as a newcomer runs it: what it shows, when it fails, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from drill.load import Answer, Load, text_of
from drill.servers import NotStartedError, Server
from tests.servers import ROOT

QUICK = [sys.executable, "-u", "-m", "drill", "--quick"]
LIMIT_S = 300  # for a run of ten seconds
OF_THE_CALLER = {"ECHO_BRAIN_PROVIDER": "stub", "LOG_LEVEL": "ERROR"}


@contextlib.contextmanager
def drilling(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The drill, under way, with its files in `folder`; none of the caller's own settings may reach its servers."""
    environment = {**os.environ, **OF_THE_CALLER, "TMPDIR": str(folder)}
    with subprocess.Popen(
        [*QUICK, *options], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    """Exit code, output and folder of a drill with nothing wrong."""
    folder = tmp_path_factory.mktemp("drill")
    with drilling(folder) as running:
        output, complaints = running.communicate(timeout=LIMIT_S)
    return running.returncode, output + complaints, folder


def test_nobody_notices_the_death_of_the_primary(passed: tuple[int, str, Path]) -> None:
    """Every request answered whole, by both providers, some across the kill."""
    code, output, _ = passed
    assert code == 0, output
    assert "Passed: no caller noticed." in output
    figures = table(output)
    assert figures["client-visible errors"] == 0
    assert figures["served by primary"] > 0
    assert figures["served by survivor"] > 0
    assert figures["served by primary"] + figures["served by survivor"] == figures["requests"]
    assert figures["failed over before the first word"] > 0
    assert figures["mid-stream continuations"] > 0


def test_the_circuit_opens_and_closes(passed: tuple[int, str, Path]) -> None:
    """Told in its order, and with the time that each took."""
    _, output, _ = passed
    story = ("load:", "KILLED primary", "closed -> open", "is started again", "half_open -> closed", "  requests ")
    places = [output.index(part) for part in story]
    assert places == sorted(places)
    assert "open -> half_open" in output
    figures = table(output)
    assert 0 <= figures["seconds to open"] < LIMIT_S
    assert 0 <= figures["seconds to close"] < LIMIT_S


def test_the_headers_of_an_answer_that_failed_over_are_shown(passed: tuple[int, str, Path]) -> None:
    """What tells a caller who looks."""
    _, output, _ = passed
    shown = output.split("first answer that failed over", 1)[1].splitlines()[1:4]
    assert shown[0].strip() == "X-Served-By: survivor"
    assert re.fullmatch(r" +X-Attempts: [2-9]", shown[1])
    assert shown[2].strip() == "X-Failed-Providers: primary"


def test_every_figure_is_explained(passed: tuple[int, str, Path]) -> None:
    """In the documentation, by the name it has in the table."""
    _, output, _ = passed
    explained = (ROOT / "docs" / "failover.md").read_text().split("## The drill")[1]
    assert [name for name in table(output) if f" {name}" not in explained] == []


def test_nothing_is_left_running(passed: tuple[int, str, Path]) -> None:
    """No process, no listener."""
    _, output, folder = passed
    assert_nothing_runs(output, folder)


def test_a_survivor_that_cannot_continue_fails_the_drill(tmp_path: Path) -> None:
    """A stream that was cut and not continued is seen by its caller, and so by the drill."""
    with drilling(tmp_path, "--no-continuation") as running:
        output, _ = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 1
    assert "CLIENT-VISIBLE ERROR: /v1/" in output
    assert "Not passed: /v1/" in output
    figures = table(output)
    assert figures["client-visible errors"] > 0
    assert figures["mid-stream continuations"] == 0
    assert_nothing_runs(output, tmp_path)


@pytest.mark.parametrize(
    ("act", "number"), [("gateway is up", signal.SIGTERM), ("is started again", signal.SIGINT)], ids=["load", "return"]
)
def test_interrupted_it_leaves_nothing_running(act: str, number: signal.Signals, tmp_path: Path) -> None:
    """Even while a server is coming up again; no traceback, and no complaint about the gateway that it has stopped."""
    with drilling(tmp_path) as running:
        assert running.stdout
        output = read_until(act, running.stdout)
        running.send_signal(number)
        rest, complaints = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 130
    assert complaints == "Interrupted; what was started is stopped.\n"
    assert "CLIENT-VISIBLE ERROR" not in output + rest
    assert_nothing_runs(output + rest, tmp_path)


async def test_a_server_that_cannot_start_is_named(tmp_path: Path) -> None:
    """With what it said itself."""
    server = Server("primary", {"providers": {"p": {"type": "nonsense"}}}, tmp_path)
    with pytest.raises(NotStartedError, match=r"(?s)^primary did not start: .*cannot start: .*type"):
        await server.start()
    server.kill()


async def test_what_fails_under_load_is_told_as_it_is() -> None:
    """A server that does not come back ends the load, and its message reaches `main`."""
    load = Load("http://127.0.0.1:9", "", list[Answer]().append)
    with pytest.raises(NotStartedError, match="primary did not start"):
        async with load.running():
            raise NotStartedError("primary did not start")


ROLE = {"role": "assistant", "content": ""}
MESSAGE = {"message": {"role": "assistant", "content": "a b"}}


def chunk(delta: dict[str, str], end: str | None = None, name: str = "1") -> str:
    """An event of an OpenAI stream."""
    return f"data: {json.dumps({'id': name, 'choices': [{'delta': delta, 'finish_reason': end}]})}\n\n"


def event(name: str, data: object) -> str:
    """An event of a Brain stream."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


CHUNKS = [chunk(ROLE), chunk({"content": "a"}), chunk({"content": " b"}), chunk({}, "stop"), "data: [DONE]\n\n"]
EVENTS = [
    event("meta", {}),
    event("token", {"token": "a"}),
    ": keep-alive\n\n",
    event("token", {"token": " b"}),
    event("final", {"ok": True, **MESSAGE}),
]


@pytest.mark.parametrize("stream", [CHUNKS, EVENTS])
def test_a_whole_stream_is_read(stream: list[str]) -> None:
    """The text of both dialects."""
    assert text_of("text/event-stream", "".join(stream).encode()) == "a b"


@pytest.mark.parametrize(
    "stream",
    [
        [],
        CHUNKS[:-1],
        [*CHUNKS[:3], CHUNKS[4]],
        [*CHUNKS[:3], chunk({}, "error"), CHUNKS[4]],
        [CHUNKS[0], *CHUNKS],
        [*CHUNKS[:2], chunk({"content": " b"}, name="2"), *CHUNKS[3:]],
        [*CHUNKS[:4], CHUNKS[4].rstrip()],
        [*CHUNKS, CHUNKS[2]],
        [*CHUNKS[:3], 'data: {"error": {}}\n\n', CHUNKS[4]],
        EVENTS[:-1],
        EVENTS[1:],
        [EVENTS[0], *EVENTS[3:]],
        [*EVENTS[:-1], event("error", {"ok": False})],
        [*EVENTS, EVENTS[1]],
        [*EVENTS, EVENTS[-1]],
        [*EVENTS[:-1], event("final", {"ok": False, **MESSAGE})],
    ],
)
def test_a_stream_that_is_not_whole_is_not_read(stream: list[str]) -> None:
    """Cut, an end too few or too many, two ids, two roles, an error, a final event that says something else."""
    with pytest.raises((ValueError, LookupError, TypeError)):
        text_of("text/event-stream", "".join(stream).encode())


@pytest.mark.parametrize(
    "body",
    [
        {"ok": False, **MESSAGE},
        {"choices": []},
        {"choices": [{**MESSAGE, "finish_reason": None}]},
        {"error": {"code": "overloaded"}},
    ],
)
def test_a_chat_that_is_not_whole_is_not_read(body: dict[str, object]) -> None:
    """Neither dialect's answer."""
    with pytest.raises((ValueError, LookupError, TypeError)):
        text_of("application/json", json.dumps(body).encode())


def table(output: str) -> dict[str, float]:
    """The figures at the end."""
    return {name: float(value) for name, value in re.findall(r"^ {2,4}(\w[\w -]*\w) +([\d.]+)$", output, re.MULTILINE)}


def read_until(part: str, output: IO[str]) -> str:
    """What was said until `part` was."""
    said = ""
    for line in output:
        said += line
        if part in line:
            return said
    raise AssertionError(f"{part!r} was not said in:\n{said}")


def assert_nothing_runs(output: str, folder: Path) -> None:
    """No server listens, and no process has its files in `folder`."""
    ports = [int(port) for port in re.findall(r"is up at http://127\.0\.0\.1:(\d+)", output)]
    assert len(ports) == 3
    for port in ports:
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
            pass
    assert left_behind(folder) == []


def left_behind(folder: Path) -> list[str]:
    """The processes whose environment names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append(process.name)
    return found
