"""A third-party client in a process of its own, which runs one job at a time and tells what it saw."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LANGCHAIN = HERE / "python/.venv-langchain"
NODE_MODULES = HERE / "node/node_modules"
JOB_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Failure:
    """What the application catches: the names of the error's classes, and what it says about the answer."""

    classes: tuple[str, ...]
    message: str
    status: int | None
    code: str | None
    retry_after: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the application got; `usage` is the total of tokens, `tools` the calls it was asked for."""

    text: str
    pieces: int
    finish_reason: str | None
    tools: list[dict[str, object]]
    error: Failure | None
    elapsed_s: float
    usage: int | None = None


class Client:
    """One client; its connections live on from job to job, as in an application."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @property
    def is_ai_sdk(self) -> bool:
        """Whether errors are the AI SDK's; the three others have the classes of the `openai` packages."""
        return self.name == "ai-sdk"

    def run(
        self,
        do: str,
        url: str,
        prompt: str,
        model: str = "gpt-4.1-mini",
        *,
        retries: int = 0,
        obey: bool = True,
    ) -> Seen:
        """Runs a job against the gateway at `url`: ask, stream, tool or tool-stream."""
        job = {
            "do": do,
            "base_url": f"{url}/v1",
            "prompt": prompt,
            "model": model,
            "retries": retries,
            "obey": obey,
        }
        seen = json.loads(self._exchange(json.dumps(job).encode()))
        failure = seen.pop("error")
        return Seen(**seen, error=failure and Failure(**{**failure, "classes": tuple(failure["classes"])}))

    def _exchange(self, job: bytes) -> bytes:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        limit = threading.Timer(JOB_LIMIT_S, self._process.kill)  # a killed client ends the line that we wait for
        limit.start()
        try:
            stdin.write(job + b"\n")
            stdin.flush()
            answer = stdout.readline()
        finally:
            limit.cancel()
        assert answer, f"{self.name} stopped, or took more than {JOB_LIMIT_S} s:\n{self._log.read_text()}"
        return answer


COMMANDS = {
    "openai-python": [sys.executable, str(HERE / "python/openai_client.py")],
    "langchain": [str(LANGCHAIN / "bin/python"), str(HERE / "python/langchain_client.py")],
    "openai-node": ["node", str(HERE / "node/openai_client.mjs")],
    "ai-sdk": ["node", str(HERE / "node/ai_sdk_client.mjs")],
}


def tool_missing(name: str) -> str | None:
    """Why this machine cannot have the client at all; None when it can."""
    if name in {"openai-node", "ai-sdk"} and not (shutil.which("npm") and shutil.which("node")):
        return "npm is not installed: the openai and AI SDK clients for Node were not tried"
    return None


def not_installed(name: str) -> str | None:
    """What is still to be done for the client; None when it is there."""
    places = {"langchain": LANGCHAIN, "openai-node": NODE_MODULES, "ai-sdk": NODE_MODULES}
    if name in places and not (places[name] / ".installed").exists():
        return f"{name} is not installed: `make clients` installs it"
    return None


@contextlib.contextmanager
def running(name: str, log: Path) -> Iterator[Client]:
    """Starts the client and ends it; it writes its complaints to `log`."""
    kept = {variable: os.environ[variable] for variable in ("PATH", "HOME") if variable in os.environ}
    with (
        log.open("wb") as complaints,
        subprocess.Popen(
            COMMANDS[name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, env=kept
        ) as process,
    ):
        try:
            yield Client(name, process, log)
        finally:
            process.kill()
