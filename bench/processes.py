"""Processes on a core of their own, and the first questions that each is asked over a plain socket."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import verify, wire

ROOT = Path(__file__).resolve().parents[1]
START_LIMIT_S = 90.0
_ANSWER_LIMIT_S = 30.0
_POLL_S = 0.001
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class NotStartedError(RuntimeError):
    """A process that was to be measured did not come up, or went away."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: what is measured has one core, the upstream and the load generator share another."""

    subject: int
    load: int

    @staticmethod
    def available() -> Cores:
        """The last and the first core this process may use; the same one where there is only one."""
        usable = sorted(os.sched_getaffinity(0))
        return Cores(subject=usable[-1], load=usable[0])


@dataclass(frozen=True, slots=True)
class Running:
    """A process that was started at `began_s` of the monotonic clock and listens, or soon will, on `port`."""

    process: subprocess.Popen[bytes]
    port: int
    began_s: float
    log: Path

    def failure(self, what: str) -> NotStartedError:
        """`what` went wrong, with the end of what the process wrote."""
        written = self.log.read_text(errors="replace").strip()[-600:]
        return NotStartedError(f"{what}\n{written}" if written else what)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str], core: int
) -> Iterator[Running]:
    """Runs `command` on `core` in an environment of its own; kills its whole process group at the end."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    before = os.sched_getaffinity(0)
    with log.open("wb") as sink:
        os.sched_setaffinity(0, {core})  # the child inherits it: no wrapper in the time that is measured
        began_s = time.perf_counter()
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**kept, **environment},
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, before)
    try:
        yield Running(process, port, began_s, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def seconds_to_first_answer(subject: Running, request: bytes) -> float:
    """Seconds from the spawn to the end of the first answer with status 200, asking again until then."""
    limit = time.perf_counter() + START_LIMIT_S
    while time.perf_counter() < limit:
        if subject.process.poll() is not None:
            raise subject.failure(f"stopped with status {subject.process.returncode}")
        with contextlib.suppress(ConnectionError):
            answer = ask(subject.port, request)
            if b" 503 " not in answer.split(b"\r\n", 1)[0]:
                verify.http_body(answer)
                return time.perf_counter() - subject.began_s
        time.sleep(_POLL_S)
    raise subject.failure(f"did not answer within {START_LIMIT_S:.0f} s")


def ask(port: int, request: bytes) -> bytes:
    """The whole response to a request, on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), _ANSWER_LIMIT_S) as connection:
        connection.sendall(request)
        received = b""
        while not _is_whole(received):
            part = connection.recv(1 << 18)
            if not part:
                raise ConnectionResetError(f"closed after {len(received)} bytes")
            received += part
    return received


def _is_whole(received: bytes) -> bool:
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = _CONTENT_LENGTH.search(received, 0, end + 2)
    if length is None:
        return received.endswith(wire.WHOLE_CHUNKED_BODY)
    return len(received) >= end + 4 + int(length[1])
