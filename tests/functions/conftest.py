"""The three functions, each under the stock framework's command as it is deployed, started once for all tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from tests.servers import Server, gateway

ORIGIN = "https://app.example.com"
DEPLOYMENT = {"APP_ENV": "test", "GIT_SHA": "4f2c9d1", "BUILD_TIME": "2026-03-01T11:00:00Z"}


@pytest.fixture(scope="session")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Server]]:
    """`chat`, `stream` and `health` on the stub, open to pages of one origin."""
    logs = tmp_path_factory.mktemp("functions")
    environment = {"ECHO_BRAIN_PROVIDER": "stub", "CORS_ALLOW_ORIGINS": ORIGIN, **DEPLOYMENT}
    with ExitStack() as running:
        yield {
            target: running.enter_context(gateway(logs / f"{target}.log", environment, target))
            for target in ("chat", "stream", "health")
        }


@pytest.fixture(scope="session")
def chat_url(functions: Mapping[str, Server]) -> str:
    """The address of the chat function."""
    return functions["chat"].url


@pytest.fixture(scope="session")
def stream_url(functions: Mapping[str, Server]) -> str:
    """The address of the stream function."""
    return functions["stream"].url


@pytest.fixture(scope="session")
def health_url(functions: Mapping[str, Server]) -> str:
    """The address of the health function."""
    return functions["health"].url
