"""What the process writes is JSON for Cloud Logging, a line a request, and never what anybody said or any key.

Canaries are planted wherever a caller, a provider or Secret Manager can put text; then every route is driven through
every failure, on the functions as they are deployed, and all that the processes wrote is searched.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.faults.upstream import BreakingUpstream
from tests.functions.canaries import (
    CANARY,
    KEY,
    METHODS,
    QUESTION,
    SECRET,
    bad_bodies,
    odd_headers,
    paths,
    rich_bodies,
    scenarios,
)
from tests.secret_manager import SecretManager, secret_manager
from tests.servers import Server, frank, free_port, serving
from tests.ways import BRAIN_EVENTS, BRAIN_JSON, OPENAI_EVENTS, OPENAI_JSON, Way, calling

AT_ONCE: Final = 24  # so that no sound answer is late
FIELDS: Final = {
    "trace_id",
    "method",
    "path",
    "status",
    "stream",
    "provider",
    "model",
    "attempts",
    "upstream_request_id",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "first_token_ms",
    "total_ms",
    "finish_reason",
    "error",
}


@dataclass(frozen=True, slots=True)
class Function:
    """A running function and where it writes its errors; its standard output is the server's."""

    server: Server
    errors: Path

    @property
    def url(self) -> str:
        """Where it serves."""
        return self.server.url

    def rows(self) -> list[dict[str, Any]]:
        """Each line of standard output; AssertionError where one is not a JSON object."""
        rows = [json.loads(line) for line in self.server.output().splitlines()]
        assert all(isinstance(row, dict) and row["severity"] for row in rows)
        return rows

    def requests(self) -> list[dict[str, Any]]:
        """The request lines but for the probes of the starting test."""
        return [row for row in self.rows() if row["logger"].endswith(".request") and row["path"] != "/health"]

    def written(self) -> str:
        """All that the process wrote."""
        return self.server.output() + self.errors.read_text()


@contextmanager
def deployed(tmp_path: Path, target: str | None, environment: dict[str, str]) -> Iterator[Function]:
    """A function whose standard output and standard error are kept apart."""
    port, errors = free_port(), tmp_path / f"{target}.stderr"
    framework = [str(Path(sys.executable).with_name("functions-framework")), "--target", str(target)]
    command = (
        [*framework, "--host", "127.0.0.1", "--port", str(port)]
        if target
        else [sys.executable, "-m", "functions.local"]
    )
    split = ["sh", "-c", 'exec "$@" 2>"$ERRORS"', "sh", *command]
    everything = {"PORT": str(port), "ERRORS": str(errors), "LOG_LEVEL": "DEBUG", **environment}
    with serving(split, port=port, log=tmp_path / f"{target}.stdout", environment=everything) as server:
        yield Function(server, errors)


def environment(upstream: BreakingUpstream, **more: str) -> dict[str, str]:
    """A gateway to this upstream that gives up on it soon."""
    soon = {"OPENAI_TIMEOUT": "1", "OPENAI_STREAMING_TIMEOUT": "1", "OPENAI_MAX_RETRIES": "0"}
    return {"OPENAI_API_KEY": KEY, "OPENAI_MODEL": "m", "OPENAI_BASE_URL": upstream.base_url, **soon, **more}


@pytest.mark.parametrize("target", ["chat", "stream"])
async def test_nothing_said_is_written_whatever_upstream_does(
    target: str, upstream: BreakingUpstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Every scenario, in both dialects, streamed and not; then SIGTERM in the middle of a stream."""
    ways = (BRAIN_JSON, OPENAI_JSON, OPENAI_EVENTS) if target == "chat" else (BRAIN_EVENTS, OPENAI_EVENTS)
    settings = {"OPENAI_API_KEY": KEY, **frank(tmp_path, upstream.base_url, request_timeout=1, streaming_timeout=1)}
    with deployed(tmp_path, target, settings) as function:
        url, few = function.url, asyncio.Semaphore(AT_ONCE)

        async def question(way: Way, body: bytes) -> str:
            async with few:
                return await post(http, url + way.path, body)

        asked = [question(way, way.body(text)) for text in scenarios() for way in ways]
        # These answers repeat nothing of what was asked: a canary could only have come by way of an error.
        assert not any(CANARY in reply for reply in await asyncio.gather(*asked))
        rich = [await question(way, body) for way in ways for body in rich_bodies(way)]
        assert any(CANARY in reply for reply in rich)
        assert not any(KEY in reply for reply in rich)
        way = BRAIN_EVENTS if target == "stream" else OPENAI_EVENTS
        async with calling(function.url, way, f"fault:stall:2 {QUESTION}") as caller:
            await caller.read_until(b'"Hello"')
            function.server.terminate()
            await asyncio.to_thread(function.server.process.wait, 10)
        assert_clean(function, len(asked) + len(rich) + 1)


@pytest.mark.parametrize("target", ["chat", "stream", "health"])
async def test_nothing_sent_is_written_when_a_request_is_refused(
    target: str, upstream: BreakingUpstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Bad bodies, unknown models and fields, odd paths, headers and query strings, on every route."""
    with deployed(tmp_path, target, environment(upstream)) as function:
        asked = [(path, body, headers) for path in paths() for body in bad_bodies() for headers in odd_headers()]
        for path, body, headers in asked:
            await post(http, function.url + path, body, headers)
        bare = [(method, f"{path}?{CANARY}={CANARY}&deep={CANARY}") for path in paths() for method in METHODS]
        for method, path in bare:
            async with http.request(method, function.url + path, headers={"Authorization": CANARY}) as answer:
                await answer.read()
        await garbage(function.url)
        assert_clean(function, len(asked) + len(bare))


async def test_no_key_is_written_whatever_secret_manager_does(
    upstream: BreakingUpstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Down, failing, garbage, then good and refused upstream: neither the key nor Secret Manager's answer is shown."""
    async with secret_manager() as manager:
        named = {"OPENAI_API_KEY": "", "OPENAI_API_KEY_SECRET": "projects/p/secrets/openai", "SECRET_CACHE_TTL": "0.01"}
        more = {**named, "SECRET_MANAGER_ENDPOINT": manager.endpoint}
        with deployed(tmp_path, "chat", environment(upstream, **more)) as function:
            count = 0
            for state in (down, failing, garbled, good, refused, down, failing):
                state(manager)
                for text in (QUESTION, f"fault:needs-key:nobody {QUESTION}", f"fault:echo-error:401 {QUESTION}"):
                    reply = await post(http, function.url + OPENAI_JSON.path, OPENAI_JSON.body(text))
                    assert SECRET not in reply
                    count += 1
            assert any(row["status"] == 200 for row in function.requests())
            assert_clean(function, count)


@pytest.mark.parametrize(
    "wrong",
    [
        {"OPENAI_BASE_URL": f"https://user:{KEY}@127.0.0.1/v1"},
        {"OPENAI_API_KEY": f"{KEY}\n{KEY}"},
        {"OPENAI_API_KEY": "", "OPENAI_API_KEY_SECRET": f"not a name {KEY}"},
    ],
    ids=["address", "key", "secret"],
)
@pytest.mark.parametrize("target", ["chat", None])
def test_a_wrong_setting_is_refused_without_showing_it(
    target: str | None, wrong: dict[str, str], tmp_path: Path
) -> None:
    """The process names the setting and stops; what somebody pasted into it may be a key."""
    everything = {"OPENAI_API_KEY": KEY, **wrong}
    with pytest.raises(AssertionError, match="stopped while starting"), deployed(tmp_path, target, everything):
        pass
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert list(wrong)[-1] in written
    assert CANARY not in written


async def test_all_functions_on_one_port_write_no_more(
    upstream: BreakingUpstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The server for development writes nothing said either; its greeting is the only text that is not JSON."""
    with deployed(tmp_path, None, environment(upstream)) as function:
        for way in (BRAIN_JSON, OPENAI_JSON, BRAIN_EVENTS, OPENAI_EVENTS):
            for text in (QUESTION, f"fault:echo-error:400 {QUESTION}", f"fault:cut:2 {QUESTION}"):
                await post(http, function.url + way.path, way.body(text))
        assert CANARY not in function.written()


async def post(http: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str] | None = None) -> str:
    """Headers and body of the answer, as text."""
    kind = {"Content-Type": "application/json"}
    async with asyncio.timeout(20), http.post(url, data=body, headers={**kind, **(headers or {})}) as answer:
        return f"{answer.headers}\n{(await answer.read()).decode()}"


async def garbage(url: str) -> None:
    """Bytes that are not HTTP."""
    host, port = url.removeprefix("http://").split(":")
    for line in (f"{CANARY}\r\n\r\n", f"GET /{CANARY} {CANARY}\r\n\r\n", f"GET / HTTP/1.1\r\n{CANARY}\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line.encode())
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()


def down(manager: SecretManager) -> None:
    """Nobody listens."""
    manager.down()


def failing(manager: SecretManager) -> None:
    """Every access is refused."""
    manager.up()
    manager.fail_with = 403


def garbled(manager: SecretManager) -> None:
    """The secret is no key."""
    manager.fail_with = None
    manager.put("openai", f"{SECRET}\n{SECRET}\x00")


def good(manager: SecretManager) -> None:
    """The secret is a key."""
    manager.put("openai", SECRET)


def refused(manager: SecretManager) -> None:
    """The version is disabled."""
    manager.disable("openai", 2)


def assert_clean(function: Function, count: int) -> None:
    """No canary in anything written, only JSON on standard output, and one complete line a request."""
    assert CANARY not in function.written()
    requests = function.requests()
    assert len(requests) == count
    assert all(row.keys() >= FIELDS for row in requests)
    assert len({row["trace_id"] for row in requests}) == count
    assert all(row["total_ms"] >= 0 and row["logging.googleapis.com/trace"] for row in requests)
