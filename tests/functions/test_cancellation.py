"""A caller that leaves is nobody's failure: upstream is closed within a second, and the log says 499 without alarm."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests import inprocess
from tests.faults.upstream import BreakingUpstream, Received, breaking_upstream
from tests.servers import Server, gateway
from tests.ways import BRAIN_EVENTS, BRAIN_JSON, OPENAI_EVENTS, OPENAI_JSON, Way, calling, eventually

# How it is asked, what upstream does, and what has come when the caller leaves (nothing: once upstream was asked).
Case = tuple[Way, str, bytes]
CASES: Final[tuple[Case, ...]] = (
    (BRAIN_JSON, "silent", b""),
    (BRAIN_JSON, "stall", b""),
    (BRAIN_JSON, "pings", b""),
    (OPENAI_JSON, "silent", b""),
    (OPENAI_JSON, "stall-pings", b""),
    (BRAIN_EVENTS, "silent", b"event: meta"),
    (BRAIN_EVENTS, "pings", b"event: meta"),
    (BRAIN_EVENTS, "stall:2", b'"Hello"'),
    (BRAIN_EVENTS, "stall-pings:2", b'"Hello"'),
    (BRAIN_EVENTS, "paced:1000:20", b'" w1"'),
    (OPENAI_EVENTS, "silent", b""),
    (OPENAI_EVENTS, "pings", b""),
    (OPENAI_EVENTS, "stall:0", b""),
    (OPENAI_EVENTS, "stall:2", b'"Hello"'),
    (OPENAI_EVENTS, "stall-pings:2", b'"Hello"'),
    (OPENAI_EVENTS, "paced:1000:20", b'" w1"'),
)
NAMES: Final = [f"{way}-{fault}" for way, fault, _ in CASES]
PATHS: Final = {
    "chat": {BRAIN_JSON.path, OPENAI_JSON.path},
    "stream": {BRAIN_EVENTS.path, OPENAI_EVENTS.path},
}
PROMPTLY_S: Final = 1.0


@pytest.mark.parametrize(("way", "fault", "mark"), CASES, ids=NAMES)
async def test_upstream_is_closed_when_the_caller_leaves(way: Way, fault: str, mark: bytes) -> None:
    """Streamed or not, before the first token or after it; nothing is tried again."""
    async with breaking_upstream() as upstream, inprocess.serving(upstream.base_url) as served:
        await leave_early(upstream, served.url, way, fault, mark)
        await served.idle()
        assert [(line["status"], line["error"], line["severity"]) for line in served.lines] == [
            (499, "client_closed_request", "INFO")
        ]
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("target", PATHS)
async def test_a_deployed_function_notices_that_its_callers_leave(target: str, tmp_path: Path) -> None:
    """The same under the stock functions-framework, all cases at once, and the process serves on."""
    cases = [case for case in CASES if case[0].path in PATHS[target]]
    async with breaking_upstream() as upstream:
        environment = {"OPENAI_API_KEY": "sk-test", "OPENAI_MODEL": "m", "OPENAI_BASE_URL": upstream.base_url}
        with gateway(tmp_path / "log", environment, target) as server:
            await asyncio.gather(*(leave_early(upstream, server.url, *case) for case in cases))
            lines = await lines_of(server, len(cases))
            assert {(line["status"], line["severity"]) for line in lines} == {(499, "INFO")}
            way = BRAIN_JSON if target == "chat" else BRAIN_EVENTS
            async with calling(server.url, way, "hi") as caller:
                await caller.read_until(b'"content":"Hello, world!"')
            assert len(upstream.requests) == len(cases) + 1


async def test_a_caller_may_leave_before_its_body_is_sent() -> None:
    """Half a request is no reason to ask upstream, nor for an error in the log."""
    async with breaking_upstream() as upstream, inprocess.serving(upstream.base_url) as served:
        host, port = served.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {BRAIN_JSON.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f'{head}Content-Length: 99\r\n\r\n{{"messages":'.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: served.lines)
        assert (served.lines[0]["status"], served.lines[0]["severity"]) == (499, "INFO")
        assert upstream.requests == []


async def leave_early(upstream: BreakingUpstream, url: str, way: Way, fault: str, mark: bytes) -> None:
    """Asks, waits until upstream is at it and `mark` has come, leaves, and sees upstream left in time."""
    # The text tells the requests apart that are under way at the same time; upstream ignores it.
    text = f"fault:{fault} {way}"
    async with calling(url, way, text) as caller:
        await upstream.until(lambda it: find(it, text))
        await caller.read_until(mark)
        left_s = caller.leave()
        received = find(upstream, text)
        assert received is not None
        await upstream.until(lambda _: received.aborted)
        assert received.closed_at is not None
        assert received.closed_at - left_s < PROMPTLY_S


def find(upstream: BreakingUpstream, text: str) -> Received | None:
    """The request with this message."""
    return next((row for row in upstream.requests if row.json["messages"][-1]["content"] == text), None)


async def lines_of(server: Server, count: int) -> list[dict[str, Any]]:
    """The request lines of the process's POSTs, once there are `count`."""
    async with asyncio.timeout(5):
        while True:
            rows = [json.loads(line) for line in server.output().splitlines() if line.startswith("{")]
            found = [row for row in rows if row.get("method") == "POST"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)
