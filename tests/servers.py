"""Real processes for the tests: the gateway as it is deployed or run locally, and upstreams behind it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_LIMIT_S = 60.0
PORTS = (20_000, 32_000)
_given: set[int] = set()
_CLEAN_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on, another one at each call.

    Below the range from which systems take the ports of outgoing connections: one of those could take it meanwhile.
    """
    while True:
        port = random.randint(*PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


@dataclass(frozen=True, slots=True)
class Server:
    """A running process that serves HTTP at `url`; all it wrote (stdout and stderr) is in `log`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """Everything the process and its children have written so far."""
        return self.log.read_text(errors="replace")

    def terminate(self) -> None:
        """Sends SIGTERM to the process, as Cloud Run does."""
        self.process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def serving(
    command: Sequence[str], *, port: int, log: Path, environment: Mapping[str, str], ready: str = "/health"
) -> Iterator[Server]:
    """Runs `command` until `ready` answers 200; kills its whole process group at the end."""
    base = {name: os.environ[name] for name in _CLEAN_ENVIRONMENT if name in os.environ}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**base, "PYTHONUNBUFFERED": "1", **environment},
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_until_ready(server, ready)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@contextlib.contextmanager
def gateway(log: Path, environment: Mapping[str, str], target: str | None = None) -> Iterator[Server]:
    """The gateway: all functions on one port, or with `target` that one under the stock functions-framework."""
    port = free_port()
    if target is None:
        command = [sys.executable, "-m", "functions.local"]
    else:
        framework = str(Path(sys.executable).with_name("functions-framework"))
        command = [framework, "--target", target, "--host", "127.0.0.1", "--port", str(port)]
    with serving(command, port=port, log=log, environment={"PORT": str(port), **environment}) as server:
        yield server


def frank(folder: Path, base_url: str, **more: object) -> dict[str, str]:
    """The environment of a gateway to one upstream for the model `m`, whose key is in OPENAI_API_KEY.

    It neither retries nor opens its circuit: what each single failure becomes is to be seen.
    """
    path = folder / "echo-brain.json"
    provider = {
        "type": "openai",
        "model": "m",
        "base_url": base_url,
        "api_key_env": "OPENAI_API_KEY",
        "max_retries": 0,
        "circuit_breaker_threshold": 1_000_000,
        **more,
    }
    path.write_text(json.dumps({"providers": {"openai": provider}}))
    return {"ECHO_BRAIN_CONFIG": str(path)}


def _wait_until_ready(server: Server, path: str) -> None:
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        if server.process.poll() is not None:
            raise AssertionError(f"the server stopped while starting:\n{server.output()}")
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(server.url + path, timeout=5),
        ):
            return
        time.sleep(0.02)
    raise AssertionError(f"the server was not ready within {START_LIMIT_S} s:\n{server.output()}")
