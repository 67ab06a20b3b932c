"""The README tells the truth: its settings are those of the code, its examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.settings import Settings
from tests.servers import ROOT, Server, gateway

README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8080"


class _Recorder(dict[str, str]):
    """An environment that notes what is looked up."""

    def __init__(self, **values: str) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: str = "") -> str:  # type: ignore[override]
        self.asked.add(key)
        return super().get(key, default)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The gateway on the stub, all functions on one port."""
    with gateway(tmp_path_factory.mktemp("readme") / "log", {}) as running:
        yield running


def test_the_settings_table_is_what_the_code_reads() -> None:
    """Every variable that is read has a row, and no row is about another."""
    environments = (_Recorder(OPENAI_API_KEY="k"), _Recorder(ECHO_BRAIN_PROVIDER="stub"))
    for environment in environments:
        Settings.from_env(environment)
    read = set[str]().union(*(environment.asked for environment in environments))
    rows = re.search(r"\| variable \|.*?\n\n", README, re.DOTALL)
    assert rows
    cells = (line.split("|")[1] for line in rows[0].splitlines()[2:] if line)
    described = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert described == read


def test_the_defaults_in_the_table_are_those_of_the_code() -> None:
    """The numbers and words of the second column, where they are values."""
    settings = Settings.from_env({"OPENAI_API_KEY": "k"})
    (provider,) = settings.serving.providers
    shown = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+?)`? \|", README, re.MULTILINE))
    assert shown["SECRET_CACHE_TTL"] == f"{settings.secret_cache_ttl_s:g}"
    assert shown["OPENAI_MODEL"] == provider.model
    assert shown["OPENAI_TIMEOUT"] == f"{provider.limits.request_s:g}"
    assert shown["OPENAI_STREAMING_TIMEOUT"] == f"{provider.limits.streaming_s:g}"
    assert shown["OPENAI_MAX_TOKENS"] == str(provider.max_tokens)
    assert shown["OPENAI_MAX_RETRIES"] == str(provider.retries.max_retries)
    assert shown["LOG_LEVEL"] == settings.log_level
    limits = provider.limits
    fixed = f"{limits.connect_s:g} s to connect, {limits.first_token_s:g} s to the first token of a stream, "
    assert fixed + f"{limits.idle_s:g} s between two tokens" in README


def test_the_curl_example_answers(server: Server) -> None:
    """The first request of the README, as it stands there."""
    command = _example("sh", "/v1/brain/chat").replace(ADDRESS, server.url)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=20, check=True)
    assert '"content":"Echo Brain (stub): received 1 message."' in done.stdout


def test_the_python_example_streams(server: Server, tmp_path: Path) -> None:
    """The openai package against the gateway, as it stands there."""
    script = tmp_path / "example.py"
    script.write_text(_example("python", "from openai import OpenAI").replace(ADDRESS, server.url))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "Echo Brain (stub): streaming response."


def _example(language: str, part: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if part in block)
