"""Real processes of `python -m functions.local`, which the drill may kill and start again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp

ROOT: Final = Path(__file__).resolve().parents[1]
START_LIMIT_S: Final = 60.0
_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")  # of the environment: no key, no setting


class NotStartedError(RuntimeError):
    """A server did not come up; the message says which one, and what it wrote."""


class Server:
    """A process with a configuration of its own, always on the same port; its log is in `folder`."""

    def __init__(self, name: str, config: Mapping[str, Any], folder: Path) -> None:
        self.name, port = name, free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log, self._read_bytes = folder / f"{name}.log", 0
        path = folder / f"{name}.json"
        path.write_text(json.dumps(config, indent=2))  # JSON is YAML
        kept = {variable: os.environ[variable] for variable in _KEPT if variable in os.environ}
        self._environment = {**kept, "PORT": str(port), "ECHO_BRAIN_CONFIG": str(path)}
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Starts the process and waits until it answers; raises `NotStartedError`."""
        command = [sys.executable, "-u", "-m", "functions.local"]
        with self._log.open("ab") as log:  # a session of its own: Ctrl-C is for the drill alone
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        limit = time.monotonic() + START_LIMIT_S
        while time.monotonic() < limit and self._process.poll() is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with aiohttp.request("GET", f"{self.url}/health"):
                    return
            await asyncio.sleep(0.02)
        raise NotStartedError(f"{self.name} did not start: {self._log.read_text(errors='replace').strip()[-1000:]}")

    def kill(self) -> None:
        """SIGKILL: no goodbye to anybody; nothing where it is not running."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def logged(self) -> Iterator[dict[str, Any]]:
        """What it has logged since the last time, in whole lines."""
        with self._log.open("rb") as log:
            log.seek(self._read_bytes)
            lines, end, _ = log.read().rpartition(b"\n")
        self._read_bytes += len(lines + end)
        return (json.loads(line) for line in lines.splitlines() if line.startswith(b"{"))


def free_port() -> int:
    """A free port below those of outgoing connections, one of which could take it while its server is dead."""
    for port in random.sample(range(20000, 32000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise NotStartedError("no free port was found between 20000 and 32000")
