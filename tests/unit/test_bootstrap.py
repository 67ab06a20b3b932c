"""The composition root: what is built from which settings, and what is not imported, opened or started for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from shared import bootstrap
from shared.settings import ProviderSettings, Serving, Settings, SettingsError, own_routes
from shared.settings.values import VENDORS
from tests.servers import ROOT

# Of google.cloud the framework itself imports a little.
GOOGLE = ("google.cloud.secretmanager", "google.auth", "google.api_core", "grpc")
HEAVY = ("openai", "aiohttp", "pydantic", "httpx2", *GOOGLE)
CHAT = """
import asyncio, json, sys
from starlette.requests import Request
import main
from shared import bootstrap
from shared.api.routes import CHAT, STREAM

async def ask(path, routes, body):
    async def receive(sent=[]):
        if sent:
            await asyncio.Event().wait()
        sent.append(1)
        return {"type": "http.request", "body": body, "more_body": False}
    received = []
    async def send(message):
        received.append(message)
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}
    scope["headers"] = [(b"content-type", b"application/json")]
    response = await bootstrap.endpoints().respond(Request(scope, receive, send), routes)
    await response(scope, receive, send)
    assert received[0]["status"] == 200, received

question = b'{"messages":[{"role":"user","content":"Hi"}]}'
asyncio.run(ask("/v1/brain/chat", CHAT, question))
print(json.dumps(sorted(name for name in sys.modules if name.startswith(tuple(sys.argv[1:])))), file=sys.stderr)
"""
WATCH = """
import json, os, sys, threading
seen = []
WATCHED = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.posix_spawn")
def hook(event, arguments):
    if event in WATCHED or event.startswith("_thread.start") or (event == "open" and writes(*arguments[:2])):
        seen.append(event)
def writes(path, mode):
    return isinstance(mode, str) and set(mode) & set("wax+") and ".pyc" not in str(path)
import functions_framework.aio  # the framework's own imports are its business
before = threading.active_count()
sys.addaudithook(hook)
import main, functions.local, shared.gateway, shared.api.endpoints, shared.secrets
from shared.providers import google_credentials, mock, registry, slim_import, stub, vendors
print(json.dumps([seen, threading.active_count() - before, sorted(main.__all__)]))
"""


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in the repository, with nothing in its environment but this."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("provider", ["stub", "mock"])
def test_without_a_provider_of_others_nothing_heavy_is_imported(provider: str) -> None:
    """After a chat on the stub neither the SDK nor Google's clients nor what they bring is loaded."""
    done = run(CHAT, *HEAVY, ECHO_BRAIN_PROVIDER=provider)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []


def test_importing_opens_nothing() -> None:
    """The framework imports the functions in a process that forks: no socket, no file, no thread, no process."""
    done = run(WATCH)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], 0, ["chat", "health", "stream"]]


def test_importing_shared_reads_no_environment() -> None:
    """Only the deploy seam checks the settings: everything else can be imported anywhere."""
    done = run("import shared.bootstrap, functions.local", ECHO_BRAIN_PROVIDER="nonsense")
    assert done.returncode == 0, done.stderr
    refused = run("import main", ECHO_BRAIN_PROVIDER="nonsense")
    assert "ECHO_BRAIN_PROVIDER" in refused.stderr
    assert refused.returncode != 0


def test_the_settings_of_the_process_are_checked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting is refused when it is asked for, by name."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_TIMEOUT", "soon")
    with pytest.raises(SettingsError, match=r"^OPENAI_TIMEOUT: "):
        bootstrap.check_settings()


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "stub"),
        ({"ECHO_BRAIN_PROVIDER": "mock"}, "mock"),
        ({"OPENAI_API_KEY": "sk-test"}, "openai"),
        ({"OPENAI_API_KEY_SECRET": "projects/p/secrets/k"}, "openai"),
    ],
)
async def test_each_provider_can_be_built(environ: dict[str, str], name: str) -> None:
    """Building opens nothing, so that it can be closed without having served."""
    settings = Settings.from_env(environ)
    assert [provider.name for provider in settings.serving.providers] == [name]
    await bootstrap.build(settings).aclose()


@pytest.mark.parametrize("vendor", VENDORS)
async def test_each_vendor_can_be_built(vendor: str) -> None:
    """Several of them in one process, too."""
    row = ProviderSettings(
        name=f"my-{vendor}",
        vendor=vendor,
        model="m",
        base_url="http://127.0.0.1:9/v1",
        project="p-1",
        location="europe-west4",
        api_key="sk-test",
    )
    providers = (row, ProviderSettings())
    await bootstrap.build(Settings(serving=Serving(providers, own_routes(providers)))).aclose()
