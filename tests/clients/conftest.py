"""The clients, one after the other, and the gateways they are pointed at."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clients.worker import COMMANDS, Client, not_installed, running, tool_missing
from tests.servers import frank, free_port, gateway, serving


@dataclass(frozen=True, slots=True)
class Pair:
    """A gateway at `url` in front of the breaking upstream."""

    url: str
    upstream_url: str

    def received(self) -> list[Any]:
        """The bodies of the chat requests that reached the upstream since it was last told to forget."""
        requests = json.loads(self._get("/_requests"))
        return [json.loads(one["body"]) for one in requests if one["path"].endswith("/chat/completions")]

    def forget(self) -> None:
        """Empties the upstream's list."""
        self._get("/_reset")

    def _get(self, path: str) -> bytes:
        with closing(HTTPConnection(urlsplit(self.upstream_url).netloc, timeout=10)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()


@pytest.fixture(scope="session", params=COMMANDS)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Each client in turn; skipped where it cannot be had, and never for want of an install in CI."""
    name: str = request.param
    if reason := tool_missing(name):
        pytest.skip(reason)
    if reason := not_installed(name):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with running(name, tmp_path_factory.mktemp("client") / f"{name}.log") as client:
        yield client


@pytest.fixture(scope="session")
def running_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both processes; the gateway retries nothing, so that each attempt at the upstream is the client's."""
    logs = tmp_path_factory.mktemp("pair")
    port = free_port()
    command = [sys.executable, "-m", "tests.faults.upstream", "--port", str(port)]
    with serving(command, port=port, log=logs / "upstream.log", environment={}) as upstream:
        settings = frank(logs, f"{upstream.url}/v1", model="gpt-4.1-mini")
        environment = {"OPENAI_API_KEY": "sk-ours", **settings}
        with gateway(logs / "gateway.log", environment) as served:
            yield Pair(served.url, upstream.url)


@pytest.fixture
def pair(running_pair: Pair) -> Pair:
    """The pair, with nothing received yet."""
    running_pair.forget()
    return running_pair


@pytest.fixture(scope="session")
def stub_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway without a key, which answers from the stub."""
    with gateway(tmp_path_factory.mktemp("stub") / "gateway.log", {}) as served:
        yield served.url
