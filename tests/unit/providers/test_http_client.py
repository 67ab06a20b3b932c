"""The HTTP client under the SDK: one pooled connection, nothing followed, kept or sent that was not asked for."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator

import httpx2
import pytest

from shared.providers.http_client import READ_FAILURES, AiohttpClient, UpstreamBody
from tests.faults.upstream import BreakingUpstream, breaking_upstream
from tests.servers import free_port
from tests.unit.fakes import until

ASKING = b'{"model": "m", "messages": [{"role": "user", "content": "%s"}], "stream": %s}'


@pytest.fixture
async def client() -> AsyncIterator[AiohttpClient]:
    """A client, closed afterwards."""
    made = AiohttpClient(connect_timeout_s=5.0)
    yield made
    await made.aclose()


@contextlib.asynccontextmanager
async def asked(
    client: AiohttpClient, base_url: str, says: str = "Hi", *, stream: bool = False
) -> AsyncIterator[tuple[httpx2.Response, UpstreamBody]]:
    """The answer to a question that is sent as the SDK would send it; closed afterwards."""
    content = ASKING % (says.encode(), b"true" if stream else b"false")
    headers = {"Content-Type": "application/json", "X-Own": "1"}
    request = client.build_request("POST", f"{base_url}/chat/completions", content=content, headers=headers)
    response = await client.send(request)
    assert isinstance(response.stream, UpstreamBody)
    try:
        yield response, response.stream
    finally:
        response.stream.close()


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A server that says exactly these bytes to every connection; gives its base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_the_body_goes_out_and_comes_back_byte_for_byte(
    client: AiohttpClient, upstream: BreakingUpstream
) -> None:
    """Nothing is encoded anew on either way."""
    async with asked(client, upstream.base_url) as (response, body):
        assert response.status_code == 200
        assert await body.read_all() == upstream.last_body
    assert upstream.requests[-1].body == ASKING % (b"Hi", b"false")
    assert response.headers["x-request-id"] == "req_1"


async def test_headers_are_those_given_and_no_compression_is_asked_for(
    client: AiohttpClient, upstream: BreakingUpstream
) -> None:
    """A compressed stream could not be copied."""
    async with asked(client, upstream.base_url):
        headers = upstream.requests[-1].headers
    assert (headers["x-own"], headers["accept-encoding"]) == ("1", "identity")
    assert headers["host"] == f"127.0.0.1:{upstream.port}"
    assert "cookie" not in headers


async def test_a_body_that_was_read_leaves_its_connection_to_the_next(
    client: AiohttpClient, upstream: BreakingUpstream
) -> None:
    """Ten questions are one connection."""
    for _ in range(10):
        async with asked(client, upstream.base_url) as (_, body):
            await body.read_all()
    assert upstream.connections == 1


async def test_a_stream_that_is_finished_leaves_its_connection_too(
    client: AiohttpClient, upstream: BreakingUpstream
) -> None:
    """`finish` reads what is left of a body that ends in time."""
    for _ in range(3):
        async with asked(client, upstream.base_url, stream=True) as (_, body):
            assert await body.read_some()
            await body.finish(5.0)
    assert upstream.connections == 1


@pytest.mark.parametrize("scenario", ["no-done-open", "stall"])
async def test_finish_gives_up_a_body_that_does_not_end(
    client: AiohttpClient, upstream: BreakingUpstream, scenario: str
) -> None:
    """An upstream that keeps the connection open holds nobody up."""
    async with asked(client, upstream.base_url, f"fault:{scenario}", stream=True) as (_, body):
        await body.finish(0.02)
        await until(lambda: upstream.requests[-1].closed_at)


async def test_finish_does_not_mind_a_body_that_breaks(client: AiohttpClient, upstream: BreakingUpstream) -> None:
    """The answer was whole before; what breaks behind it is of no interest."""
    async with asked(client, upstream.base_url, "fault:cut-reset", stream=True) as (_, body):
        await body.finish(5.0)


async def test_closing_a_body_early_closes_the_connection(client: AiohttpClient, upstream: BreakingUpstream) -> None:
    """Upstream sees at once that nobody listens any more."""
    async with asked(client, upstream.base_url, "fault:stall", stream=True) as (_, body):
        assert await body.read_some()
        body.close()
        await until(lambda: upstream.requests[-1].closed_at)


async def test_a_redirect_is_an_answer_and_never_followed(client: AiohttpClient, upstream: BreakingUpstream) -> None:
    """A POST with a key must not go where somebody points to."""
    async with asked(client, upstream.base_url, "fault:redirect") as (response, _):
        assert response.status_code == 307
    assert len(upstream.requests) == 1


async def test_a_cookie_is_not_kept(client: AiohttpClient, upstream: BreakingUpstream) -> None:
    """Callers share the client; what one's answer sets is not sent with another's question."""
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: who=first; Path=/\r\nContent-Length: 2\r\n\r\n{}"
    async with answering(answer) as url, asked(client, url) as (response, _):
        assert response.headers["set-cookie"].startswith("who=first")
    async with asked(client, upstream.base_url):
        assert "cookie" not in upstream.requests[-1].headers


async def test_nobody_listening_is_a_connect_error_without_the_address(client: AiohttpClient) -> None:
    """The SDK knows the class; the text names no host."""
    with pytest.raises(httpx2.ConnectError) as caught:
        async with asked(client, f"http://127.0.0.1:{free_port()}/v1"):
            pass
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize("scenario", ["reset", "refuse-headers"])
async def test_a_connection_that_ends_before_the_headers_is_a_transport_error(
    client: AiohttpClient, upstream: BreakingUpstream, scenario: str
) -> None:
    """Reset or closed: nothing came."""
    with pytest.raises(httpx2.TransportError):
        async with asked(client, upstream.base_url, f"fault:{scenario}"):
            pass


@pytest.mark.parametrize("scenario", ["cut", "cut-reset", "wrong-length"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_body_that_is_cut_is_a_read_failure(
    client: AiohttpClient, upstream: BreakingUpstream, scenario: str, stream: bool
) -> None:
    """However much came, the rest does not look like an end."""
    async with asked(client, upstream.base_url, f"fault:{scenario}", stream=stream) as (_, body):
        with pytest.raises(READ_FAILURES):
            await body.read_all()


@pytest.mark.parametrize("scenario", ["cut", "cut-reset", "wrong-length"])
async def test_to_the_sdk_a_body_that_is_cut_is_what_came_of_it(
    client: AiohttpClient, upstream: BreakingUpstream, scenario: str
) -> None:
    """The SDK reads the body of a refusal itself: how that ends must not hide the status."""
    async with asked(client, upstream.base_url, f"fault:{scenario}") as (response, _):
        await response.aread()
    assert response.status_code == 200
    assert upstream.last_body.startswith(response.content)


@pytest.mark.parametrize(
    "answer",
    [b"rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n"],
)
async def test_an_answer_that_is_not_http_is_a_transport_error(client: AiohttpClient, answer: bytes) -> None:
    """Whatever speaks on that port, it becomes an error that the SDK knows."""
    async with answering(answer) as url:
        with pytest.raises(httpx2.TransportError):
            async with asked(client, url):
                pass


@contextlib.asynccontextmanager
async def babbling(connections: list[asyncio.StreamWriter], strays: list[bytes]) -> AsyncIterator[str]:
    """A server that answers `N` on its Nth connection, and sends an answer behind it that nobody has asked for."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                await reader.readexactly(int(head.split(b"content-length:")[1].split()[0]))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % len(connections))
                await asyncio.sleep(0.02)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
                strays.append(b"stray")

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        for writer in connections:
            writer.close()


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody(client: AiohttpClient) -> None:
    """It may be another caller's: a connection on which it came is not used again."""
    connections: list[asyncio.StreamWriter] = []
    strays: list[bytes] = []
    async with babbling(connections, strays) as url:
        for number in (b"1", b"2", b"3"):
            async with asked(client, url) as (_, body):
                assert await body.read_all() == number
            await until(lambda: len(strays) == len(connections))
            for _ in range(10):  # the client's turn to read it
                await asyncio.sleep(0)
    assert len(connections) == 3


async def test_a_refusal_that_is_compressed_all_the_same_can_be_read(client: AiohttpClient) -> None:
    """Some proxies compress whatever is asked; the SDK reads the body of a refusal from the same response."""
    packed = gzip.compress(b'{"error": {"message": "no"}}')
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with answering(head + packed) as url, asked(client, url) as (response, _):
        assert await response.aread() == b'{"error": {"message": "no"}}'


async def test_closing_twice_or_unused_is_harmless() -> None:
    """A process that stops closes what there is."""
    unused = AiohttpClient(connect_timeout_s=1.0)
    await unused.aclose()
    async with breaking_upstream() as upstream:
        used = AiohttpClient(connect_timeout_s=1.0)
        async with asked(used, upstream.base_url) as (_, body):
            await body.read_all()
        await used.aclose()
        await used.aclose()
