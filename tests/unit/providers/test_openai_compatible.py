"""The OpenAI-compatible provider: what each failure of an upstream is, by its very class, and how its key is kept."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shared.errors import (
    BrokenAnswer,
    ConnectionFailed,
    ConnectionReset,
    EchoBrainError,
    UpstreamAuthError,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
)
from shared.models import Chunk
from shared.providers.base import Provider
from shared.providers.slim_import import defer_sdk_types
from shared.providers.vendors import VENDORS
from shared.secrets import CachedSecret, FixedSecret, Lease, SecretSource
from shared.settings import Limits, ProviderSettings
from tests.faults.upstream import BreakingUpstream
from tests.servers import free_port
from tests.unit.fakes import Clock, chat_request
from tests.unit.providers.certificates import self_signed

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@contextlib.asynccontextmanager
async def provider(
    base_url: str, *, connect_s: float = 60.0, key: SecretSource | None = None, vendor: str = "openai-compatible"
) -> AsyncIterator[Provider]:
    """The provider under test, closed afterwards."""
    defer_sdk_types()
    from shared.providers.openai_compatible import OpenAICompatible

    limits = dataclasses.replace(Limits(), connect_s=connect_s)
    settings = ProviderSettings(name="p", vendor=vendor, model="m", base_url=base_url, limits=limits)
    made = OpenAICompatible(settings, VENDORS[vendor], key or FixedSecret("sk-1"))
    try:
        yield made
    finally:
        await made.aclose()


async def failure(asked: Provider, *, stream: bool = False) -> EchoBrainError:
    """What a question fails with."""
    with pytest.raises(EchoBrainError) as caught:
        await (whole_stream(asked) if stream else asked.complete(chat_request()))
    return caught.value


async def whole_stream(asked: Provider) -> list[Chunk]:
    """Every chunk of an answer."""
    return [chunk async for chunk in asked.stream(chat_request(stream=True))]


@contextlib.asynccontextmanager
async def listening(play: Play, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server of which `play` gets every connection; they are closed at the end."""
    writers: list[asyncio.StreamWriter] = []

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        play(reader, writer)

    async with await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def saying(answer: bytes) -> Play:
    """A server that says this to whoever comes."""
    return lambda _, writer: writer.write(answer)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refused_port_is_a_connection_that_failed(stream: bool) -> None:
    """Nobody listens: the same target need not be asked again."""
    async with provider(f"http://127.0.0.1:{free_port()}/v1") as asked:
        assert type(await failure(asked, stream=stream)) is ConnectionFailed


async def test_an_unknown_host_is_a_connection_that_failed() -> None:
    """A name under .invalid is nobody's."""
    async with provider("http://upstream.invalid/v1") as asked:
        assert type(await failure(asked)) is ConnectionFailed


@pytest.mark.parametrize("stream", [True, False])
async def test_a_certificate_that_nobody_trusts_is_a_connection_that_failed(tmp_path: Path, stream: bool) -> None:
    """The key is never sent to a server that cannot prove who it is."""
    came: list[asyncio.StreamReader] = []
    server = listening(lambda reader, _: came.append(reader), self_signed(tmp_path))
    async with server as port, provider(f"https://127.0.0.1:{port}/v1") as asked:
        assert type(await failure(asked, stream=stream)) is ConnectionFailed
    assert not came


async def test_tls_to_a_server_that_has_none_is_a_connection_that_failed() -> None:
    """An https address of a plain server."""
    server = listening(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    async with server as port, provider(f"https://127.0.0.1:{port}/v1") as asked:
        assert type(await failure(asked)) is ConnectionFailed


async def test_a_handshake_that_stands_still_is_a_timeout_of_connecting() -> None:
    """The limit of connecting ends only when a request can be sent."""
    async with listening(lambda *_: None) as port, provider(f"https://127.0.0.1:{port}/v1", connect_s=0.05) as asked:
        error = await failure(asked)
    assert isinstance(error, UpstreamTimeout)
    assert error.limit == "connect"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("scenario", ["reset", "refuse-headers"])
async def test_a_connection_lost_before_the_headers_is_a_reset(
    upstream: BreakingUpstream, scenario: str, stream: bool
) -> None:
    """It was made, so the same target may be asked once more; the provider itself does not."""
    upstream.force(scenario)
    async with provider(upstream.base_url) as asked:
        assert type(await failure(asked, stream=stream)) is ConnectionReset
    assert len(upstream.requests) == 1


async def test_a_connection_dropped_before_the_request_is_a_reset() -> None:
    """Accepted and closed, as by a proxy with nobody behind it."""
    server = listening(lambda _, writer: writer.close())
    async with server as port, provider(f"http://127.0.0.1:{port}/v1") as asked:
        assert type(await failure(asked)) is ConnectionReset


async def test_an_answer_that_is_no_http_is_a_broken_answer() -> None:
    """Whatever speaks on that port."""
    server = listening(saying(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"))
    async with server as port, provider(f"http://127.0.0.1:{port}/v1") as asked:
        assert type(await failure(asked)) is BrokenAnswer


@pytest.mark.parametrize("stream", [True, False])
async def test_a_redirect_is_refused(upstream: BreakingUpstream, stream: bool) -> None:
    """A question and a key do not go where somebody points to."""
    upstream.force("redirect")
    async with provider(upstream.base_url) as asked:
        assert isinstance(await failure(asked, stream=stream), UpstreamError)
    assert [row.path for row in upstream.requests] == ["/v1/chat/completions"]


BROKEN = ("html", "json-error-200", "cut", "cut-reset", "clean-end", "null-finish", "finish-error", "no-choices")


@pytest.mark.parametrize("scenario", [*BROKEN, "wrong-length", "invalid-json"])
async def test_an_answer_that_is_not_whole_is_a_broken_answer(upstream: BreakingUpstream, scenario: str) -> None:
    """A 200 is not believed."""
    upstream.force(scenario)
    async with provider(upstream.base_url) as asked:
        assert type(await failure(asked)) is BrokenAnswer


@pytest.mark.parametrize("scenario", [*BROKEN, "done-without-finish", "malformed-cut", "in-band-error"])
async def test_a_stream_that_is_not_whole_is_a_broken_answer(upstream: BreakingUpstream, scenario: str) -> None:
    """However it ends."""
    upstream.force(scenario)
    async with provider(upstream.base_url) as asked:
        assert type(await failure(asked, stream=True)) is BrokenAnswer


@pytest.mark.parametrize("status", [503, 529])
async def test_a_busy_upstream_says_so(upstream: BreakingUpstream, status: int) -> None:
    """With the wait it asks for."""
    upstream.force(f"status:{status}:overloaded_error:7")
    async with provider(upstream.base_url) as asked:
        error = await failure(asked)
    assert (type(error), error.retry_after_s) == (UpstreamBusy, 7.0)


async def test_health_is_the_code_of_what_is_wrong(upstream: BreakingUpstream) -> None:
    """Never an exception, never a text."""
    codes = {"status:500": "upstream_error", "status:401": "auth_error", "reset": "connection_error", "ok": None}
    async with provider(upstream.base_url) as asked:
        for scenario, code in codes.items():
            upstream.force(scenario)
            health = await asked.health()
            assert (scenario, health.error, health.healthy) == (scenario, code, code is None)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refused_key_is_read_anew_once(upstream: BreakingUpstream, stream: bool) -> None:
    """A token that was withdrawn before its time is replaced, unseen by the caller."""
    leases = iter([Lease("old", 3000.0), Lease("new", 3000.0)])
    key = CachedSecret(lambda _: next(leases), 300.0, Clock())
    upstream.force("needs-key:new")
    async with provider(upstream.base_url, key=key, vendor="vertex") as asked:
        await (whole_stream(asked) if stream else asked.complete(chat_request()))
    assert [row.headers["authorization"] for row in upstream.requests] == ["Bearer old", "Bearer new"]


async def test_a_key_that_is_refused_for_good_is_not_asked_with_again(upstream: BreakingUpstream) -> None:
    """Where there is no newer one the refusal stands, after one request."""
    upstream.force("needs-key:another")
    async with provider(upstream.base_url) as asked:
        assert type(await failure(asked)) is UpstreamAuthError
    assert len(upstream.requests) == 1
