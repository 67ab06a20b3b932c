"""What an upstream's refusals become: the table of error codes in both dialects, with the headers that go with it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

import aiohttp
import pytest

from shared.providers import http_client
from tests.faults.upstream import BreakingUpstream
from tests.inprocess import KEY, scripted, serving
from tests.servers import free_port
from tests.ways import BRAIN_EVENTS, BRAIN_JSON, OPENAI_JSON, WAYS, ask, judge

INVALID, SERVER, LIMITED, QUOTA = "invalid_request_error", "server_error", "rate_limit_error", "insufficient_quota"
# scenario: code, status for Brain and for OpenAI, OpenAI's type, Retry-After, may it be tried again
Row = tuple[str, int, int, str, str | None, bool]
REFUSALS: Final[dict[str, Row]] = {
    "status:400": ("bad_request", 400, 400, INVALID, None, False),
    "status:400:context_length_exceeded": ("context_length_exceeded", 400, 400, INVALID, None, False),
    "status:400:content_filter": ("content_filter", 400, 400, INVALID, None, False),
    "status:401:invalid_api_key": ("auth_error", 401, 500, SERVER, None, False),
    "status:403": ("auth_error", 401, 500, SERVER, None, False),
    "status:404:model_not_found": ("bad_request", 400, 400, INVALID, None, False),
    "status:408": ("upstream_error", 502, 502, SERVER, None, True),
    "status:409": ("upstream_error", 502, 502, SERVER, None, True),
    "status:413": ("bad_request", 400, 400, INVALID, None, False),
    "status:422": ("bad_request", 400, 400, INVALID, None, False),
    "status:429": ("rate_limit", 429, 429, LIMITED, "1", True),
    "status:429:rate_limit_exceeded:2": ("rate_limit", 429, 429, LIMITED, "2", True),
    "status:429:rate_limit_exceeded:0.2": ("rate_limit", 429, 429, LIMITED, "1", True),
    "status:429:insufficient_quota:9": ("quota_exceeded", 429, 429, QUOTA, None, False),
    "status:500": ("upstream_error", 502, 502, SERVER, None, True),
    "status:502": ("upstream_error", 502, 502, SERVER, None, True),
    "status:503::7": ("upstream_error", 502, 502, SERVER, "7", True),
    "status:529": ("upstream_error", 502, 502, SERVER, None, True),
}
THE_CALLERS_OWN: Final = ("bad_request", "context_length_exceeded", "content_filter")


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_has_its_code_status_and_headers(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, refusal: str
) -> None:
    """The table of errors holds before anything was streamed; a Brain stream has begun and sends its error event."""
    code, brain_status, openai_status, kind, retry_after, again = REFUSALS[refusal]
    async with serving(upstream.base_url) as gateway:
        for way in WAYS:
            reply = await ask(http, gateway.url, way, f"fault:{refusal}")
            error, request_id = judge(reply).error or {}, f"req_{upstream.requests[-1].number}"
            assert (way, error.get("code")) == (way, code)
            assert (error["type"] if way.dialect == "openai" else error["upstream_request_id"]) in (kind, request_id)
            line = gateway.lines.pop()
            assert (line["error"], line["status"], line["upstream_request_id"]) == (code, reply.status, request_id)
            if way is BRAIN_EVENTS:
                assert reply.status == 200
                continue
            assert reply.status == (brain_status if way.dialect == "brain" else openai_status)
            headers = reply.headers
            assert (headers.get("Retry-After"), headers.get("x-should-retry")) == (
                retry_after,
                None if again else "false",
            )
            assert (headers["X-Served-By"], headers["X-Attempts"]) == ("openai", "1")
            assert headers.get("X-Failed-Providers") == (None if code in THE_CALLERS_OWN else "openai")
            assert headers["X-Request-Id"] == request_id
    assert len(upstream.requests) == len(WAYS)


@pytest.mark.parametrize("refusal", ["echo-error:400", "echo-error:401", "echo-error:500", "param-error"])
async def test_a_refusal_repeats_neither_the_key_nor_the_request(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, refusal: str
) -> None:
    """Only a reason that names a parameter is passed on, without what looks like a credential or an address."""
    async with serving(upstream.base_url) as gateway:
        for way in WAYS:
            reply = await ask(http, gateway.url, way, f"fault:{refusal} my-secret-question")
            for secret in (KEY, "my-secret-question", "sk-canary", "internal.example", "Bearer"):
                assert secret not in reply.body.decode()
                assert secret not in str(reply.headers)
            if refusal == "param-error":
                assert "must be at most 2" in judge(reply).message


@pytest.mark.parametrize(
    ("header", "expected"),
    [("Retry-After: 30", {30}), ("retry-after-ms: 1500", {2}), ("Retry-After: soon", {1}), ("Retry-After: -5", {1})],
)
async def test_retry_after_is_understood(http: aiohttp.ClientSession, header: str, expected: set[int]) -> None:
    """Seconds and milliseconds; whole seconds go out, rounded up, and nonsense counts as one second."""
    async with refusing(header) as base_url, serving(base_url) as gateway:
        reply = await ask(http, gateway.url, OPENAI_JSON)
        assert (reply.status, int(reply.headers["Retry-After"]) in expected) == (429, True)


async def test_retry_after_may_be_a_date(http: aiohttp.ClientSession) -> None:
    """An HTTP date becomes the seconds that are left."""
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    async with refusing(f"Retry-After: {at}") as base_url, serving(base_url) as gateway:
        reply = await ask(http, gateway.url, OPENAI_JSON)
        assert 60 < int(reply.headers["Retry-After"]) <= 100


async def test_an_upstream_that_cannot_be_reached(http: aiohttp.ClientSession) -> None:
    """A refused port, a name that does not exist, and an answer that is not TLS are connection errors."""
    async with refusing("X-Nothing: 0") as not_tls:
        unreachable = [
            f"http://127.0.0.1:{free_port()}/v1",
            "http://nowhere.invalid/v1",
            not_tls.replace("http://", "https://"),
        ]
        for base_url in unreachable:
            async with serving(base_url) as gateway:
                for way in WAYS:
                    reply = await ask(http, gateway.url, way)
                    assert (base_url, way, judge(reply).code) == (base_url, way, "connection_error")
                    assert reply.status == (200 if way is BRAIN_EVENTS else 502)
                    assert base_url not in reply.body.decode()


async def test_a_connection_that_is_never_made_is_a_timeout(http: aiohttp.ClientSession) -> None:
    """The connect limit is the one that is named."""
    with full_backlog() as base_url:
        async with serving(base_url, connect_s=0.3) as gateway:
            begun_s = time.monotonic()
            for reply in await asyncio.gather(*(ask(http, gateway.url, way) for way in WAYS)):
                verdict = judge(reply)
                assert (verdict.code, "connection" in verdict.message) == ("timeout", True)
                assert reply.status == (200 if reply.way is BRAIN_EVENTS else 504)
            assert time.monotonic() - begun_s >= 0.3


@contextlib.asynccontextmanager
async def refusing(header: str) -> AsyncIterator[str]:
    """An upstream that answers whatever it gets with a 429 that has this header."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        head = "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 2\r\n"
        writer.write(f"{head}{header}\r\n\r\n{{}}".encode())
        await writer.drain()

    async with scripted(refuse) as base_url:
        yield base_url


@contextlib.contextmanager
def full_backlog() -> Iterator[str]:
    """The base URL of a port whose queue is full: the kernel lets further connections wait unanswered."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.1)
            try:
                filler.connect(listening.getsockname())
            except TimeoutError:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
                return
        pytest.skip("this kernel accepts connections beyond the backlog")


@pytest.mark.parametrize("end", ["cut", "stall", "endless"])
@pytest.mark.parametrize(("status", "code"), [(401, "auth_error"), (429, "rate_limit"), (500, "upstream_error")])
async def test_a_refusal_counts_whatever_becomes_of_its_body(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, end: str, status: int, code: str
) -> None:
    """Status and headers have come: a body that breaks off, stalls or never ends does not hide or delay them."""
    monkeypatch.setattr(http_client, "REFUSAL_BODY_S", 0.1)
    sent = 0

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} No\r\nContent-Length: 999999999\r\nRetry-After: 7\r\nx-request-id: req_1\r\n\r\n"
        writer.write(head.encode() + b'{"error": {')
        while end == "endless":
            writer.write(bytes(1 << 20))
            await writer.drain()
            sent += 1
        if end == "stall":
            await reader.read()
            await reader.read()

    async with scripted(upstream) as base_url, serving(base_url) as gateway:
        reply = await ask(http, gateway.url, BRAIN_JSON)
    error = judge(reply).error or {}
    assert (error["code"], error["upstream_request_id"]) == (code, "req_1")
    assert reply.headers.get("Retry-After") == (None if status == 401 else "7")
    assert sent < 32


async def test_what_the_sdk_reads_from_its_own_environment_does_not_go_up(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is in the table of settings counts."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-stray")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-stray")
    async with serving(upstream.base_url) as gateway:
        await ask(http, gateway.url, OPENAI_JSON)
    assert not {"openai-organization", "openai-project"} & upstream.requests[-1].headers.keys()
