"""What is measured: a row of data for each subject."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import wire

_BIN = Path(sys.executable).parent
_OPENAI_PATH = "/v1/chat/completions"
_BRAIN_STREAM_PATH = "/v1/brain/chat/stream"
_HOST = ("--host", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Subject:
    """How a subject is started, and what can be asked of it."""

    name: str
    title: str
    command: Callable[[int, Path], list[str]]  # port, a folder to write to
    environment: Callable[[str], Mapping[str, str]]  # the upstream's URL
    measured: frozenset[str]  # of: chat, burst, paced, memory, spawn
    check: str = "same_bytes"  # see bench.verify
    stream_path: str = _OPENAI_PATH
    streams: bool = True
    heavy: bool = False  # too slow for several rounds and long bursts
    missing: Callable[[], str] = lambda: ""  # why it cannot be measured here

    def kinds(self) -> frozenset[str]:
        """The kinds of load it is put under."""
        return self.measured & {"chat", "burst", "paced"}

    def chat_request(self) -> bytes:
        """The question for a whole answer, always in the OpenAI dialect."""
        return wire.http_request(_OPENAI_PATH, wire.request_body("bench:chat", stream=False))

    def stream_request(self) -> bytes:
        """The question for one short stream."""
        body = wire.request_body("bench:burst:50", stream=True, brain=self.check == "brain")
        return wire.http_request(self.stream_path, body)


def _framework(target: str, source: str | None = None) -> Callable[[int, Path], list[str]]:
    def command(port: int, folder: Path) -> list[str]:  # noqa: ARG001 - one signature for all
        where = ["--source", source] if source else []
        return [str(_BIN / "functions-framework"), "--target", target, *where, *_HOST, "--port", str(port)]

    return command


def _uvicorn(port: int, folder: Path) -> list[str]:  # noqa: ARG001 - one signature for all
    server = [sys.executable, "-m", "uvicorn", "bench.copier:app", "--loop", "uvloop", "--http", "httptools"]
    return [*server, "--no-access-log", "--log-level", "error", *_HOST, "--port", str(port)]


def _litellm_command() -> str | None:
    return os.environ.get("LITELLM") or shutil.which("litellm")


def _litellm(port: int, folder: Path) -> list[str]:
    command = _litellm_command()
    assert command is not None
    config = ["--config", str(folder / "litellm.json"), "--num_workers", "1", "--telemetry", "False"]
    return [command, *config, *_HOST, "--port", str(port)]


def write_litellm_config(folder: Path, upstream: str) -> None:
    """LiteLLM's configuration (JSON is YAML): one model, the upstream behind it."""
    parameters = {"model": f"openai/{wire.MODEL}", "api_base": f"{upstream}/v1", "api_key": "sk-bench"}
    config = {
        "model_list": [{"model_name": wire.MODEL, "litellm_params": parameters}],
        "litellm_settings": {"telemetry": False},
    }
    (folder / "litellm.json").write_text(json.dumps(config))


def _copies(upstream: str) -> dict[str, str]:
    return {"UPSTREAM": upstream}


def _nothing(upstream: str) -> dict[str, str]:  # noqa: ARG001 - one signature for all
    return {}


def _openai(upstream: str) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": f"{upstream}/v1", "OPENAI_MODEL": wire.MODEL}


def _offline(upstream: str) -> dict[str, str]:  # noqa: ARG001 - one signature for all
    return {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # as open as the others are here
        "NO_PROXY": "*",
    }


_ALL = frozenset({"chat", "burst", "paced", "memory", "spawn"})

SUBJECTS = (
    Subject("copier", "byte copier (uvicorn, aiohttp)", _uvicorn, _copies, _ALL),
    Subject(
        "bare",
        "bare function, no upstream",
        _framework("bare", "bench/bare.py"),
        _nothing,
        frozenset({"spawn", "memory"}),
        streams=False,
    ),
    Subject(
        "framework_aiohttp",
        "framework in front, aiohttp behind",
        _framework("copy", "bench/framework_aiohttp.py"),
        _copies,
        _ALL,
    ),
    Subject("echo_stub", "Echo Brain, stub", _framework("chat"), _nothing, frozenset({"spawn", "memory"})),
    Subject("echo", "Echo Brain, OpenAI dialect", _framework("chat"), _openai, _ALL),
    Subject(
        "echo_stream",
        "Echo Brain, Brain dialect",
        _framework("stream"),
        _openai,
        frozenset({"burst", "paced"}),
        check="brain",
        stream_path=_BRAIN_STREAM_PATH,
    ),
    Subject(
        "litellm",
        "LiteLLM proxy",
        _litellm,
        _offline,
        _ALL,
        check="same_meaning",
        heavy=True,
        missing=lambda: "" if _litellm_command() else "no `litellm` on PATH and no LITELLM=/path/to/it",
    ),
)
