"""The local server: all functions on one port, a banner that says what to try, a plain word when it cannot start."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.asking import QUESTION, ask, brain_events, get, openai_chunks, post
from tests.functions.starting import LOCAL, ended
from tests.servers import Server, gateway


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`python -m functions.local` with nothing set but the port."""
    with gateway(tmp_path_factory.mktemp("local") / "log", {}) as server:
        yield server


def test_the_banner_says_where_and_what(local: Server) -> None:
    """The URL of every route and the provider in use."""
    banner = local.output()
    assert f"Echo Brain on {local.url}, serving: stub" in banner
    for path in ("/v1/brain/chat", "/v1/brain/chat/stream", "/v1/chat/completions", "/v1/models", "/v1/brain/health"):
        assert f"{local.url}{path}" in banner


def test_the_banners_curl_works(local: Server) -> None:
    """What it tells to try, run as it stands, is answered."""
    text = local.output().split("Try:\n")[1]
    command = re.split(r"\n(?! {4})", text.replace("\\\n", " "))[0]
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=30, check=False)
    assert '"ok":true' in done.stdout


def test_all_functions_are_on_one_port(local: Server) -> None:
    """Each canonical path, in both dialects, streamed and not."""
    assert post(local.url, "/v1/brain/chat").json()["ok"] is True
    assert brain_events(post(local.url, "/v1/brain/chat/stream").body)[-1][0] == "final"
    assert post(local.url, "/v1/chat/completions").json()["object"] == "chat.completion"
    assert openai_chunks(post(local.url, "/v1/chat/completions", {**QUESTION, "stream": True}).body)[-1] == "[DONE]"
    assert get(local.url, "/v1/models").json()["object"] == "list"
    assert get(local.url, "/v1/brain/health").json()["ok"] is True
    assert get(local.url, "/health").json() == {"status": "ok"}
    assert set(get(local.url, "/version").json()) == {"env", "git_sha", "build_time"}


def test_the_root_is_health_to_read_and_chat_to_ask(local: Server) -> None:
    """`/` is each function's; here the method tells which."""
    assert "time" in get(local.url, "/").json()
    assert ask(local.url, "HEAD", "/").status == 200
    assert post(local.url, "/").json()["message"]["role"] == "assistant"
    assert ask(local.url, "DELETE", "/").status == 405


def test_what_is_unset_is_unknown(local: Server) -> None:
    """A local process has no revision."""
    assert get(local.url, "/version").json() == {"env": "unknown", "git_sha": "unknown", "build_time": "unknown"}


def test_without_origins_no_page_is_let_in(local: Server) -> None:
    """CORS is off unless it is set."""
    reply = post(local.url, "/", Origin="http://localhost:3000")
    assert not [name for name in reply.headers if name.startswith("access-control-") or name == "vary"]


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "80 80", "８０８０", "8080.0"])
def test_a_port_that_is_none_is_refused_in_one_line(port: str) -> None:
    """By the variable's name."""
    done = ended(LOCAL, PORT=port)
    assert done.returncode != 0
    assert done.stderr.splitlines() == ["Echo Brain cannot start: PORT: must be a port number from 1 to 65535"]


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """The process ends and names the address and why; it must not tell to try what is somebody else's."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = ended(LOCAL, PORT=str(port))
    assert done.returncode != 0
    assert "address already in use" in done.stderr.lower()
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr
    assert "Try:" not in done.stdout


def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    """No traceback, before the first request and after it."""
    for asked_before in (False, True):
        with gateway(tmp_path / f"log-{asked_before}", {}, None) as running:
            if asked_before:
                get(running.url, "/v1/brain/health")
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(8) == 0
            assert "Traceback" not in running.output()
