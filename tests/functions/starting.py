"""Processes that are expected to end by themselves: a start that is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.servers import ROOT, free_port

LOCAL = (sys.executable, "-m", "functions.local")
LIMIT_S = 60


def framework(target: str) -> tuple[str, ...]:
    """The stock command that serves one function."""
    command = str(Path(sys.executable).with_name("functions-framework"))
    return (command, "--target", target, "--host", "127.0.0.1", "--port", str(free_port()))


def ended(command: tuple[str, ...], **environment: str) -> subprocess.CompletedProcess[str]:
    """The process after its end, which must come within the limit; its environment has nothing but this."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PORT": str(free_port()), **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
