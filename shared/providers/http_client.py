"""The HTTP client under the openai SDK: aiohttp in the shape of `httpx2.AsyncClient`.

The SDK asks its client for two things, `build_request` and `send`. Both are leaner here: they skip what a gateway must
not have anyway (redirects, cookies, proxies from the environment, authentication flows), send the SDK's headers and
body as they are, and hand the answer's body on as aiohttp reads it. Measured in docs/performance.md; the SDK's own
`DefaultAioHttpClient` is the idea's source.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from functools import lru_cache
from typing import Any, Final

import aiohttp
import httpx2

KEEP_ALIVE_S: Final = 55.0  # below the 60 s after which common servers close an idle connection
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_REFUSAL_BYTES: Final = 1024 * 1024
REFUSAL_BODY_S: Final = 1.0
READ_BUFFER_BYTES: Final = 256 * 1024
READ_FAILURES: Final = (aiohttp.ClientError, OSError, ValueError, RuntimeError)  # RuntimeError: a lost connection
_NO_STREAM: Final = httpx2.ByteStream(b"")
_SKIPPED_HEADERS: Final = frozenset({"host", "accept-encoding", "content-length", "connection"})


class PreparedRequest(httpx2.Request):
    """A request whose headers and body go out as the SDK gave them: httpx2 would encode, merge and copy them again."""

    def __init__(self, method: str, url: str, headers: list[tuple[str, str]], body: bytes | None) -> None:
        super().__init__(method, _parsed(url), headers=headers, stream=_NO_STREAM)
        self.prepared = headers
        self.body = body


@lru_cache(maxsize=256)  # two addresses a provider
def _parsed(url: str) -> httpx2.URL:
    return httpx2.URL(url)


class UpstreamBody(httpx2.AsyncByteStream):
    """The body of one answer, as its bytes come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    def read_some(self) -> Awaitable[bytes]:
        """What has come, at least a byte; empty at the body's end. Raises `READ_FAILURES`."""
        return self._response.content.readany()  # no coroutine of our own: this is awaited for every chunk

    def left_over(self) -> bytes:
        """What had come before a read failed, which aiohttp would otherwise keep to itself."""
        self._response.content.set_exception(None)  # type: ignore[arg-type]
        return self._response.content.read_nowait()

    async def read_all(self) -> bytes:
        """The rest of the body. Raises `READ_FAILURES`, also for a body that would fill the memory."""
        pieces: list[bytes] = []
        size = 0
        while data := await self.read_some():
            size += len(data)
            if size > MAX_ANSWER_BYTES:
                raise ValueError("the answer is too large")
            pieces.append(data)
        return b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The start of the body, for the SDK, which reads that of a refusal.

        What breaks, drags on or fills the memory behind the headers must not hide what they say.
        """
        pieces: list[bytes] = []
        with contextlib.suppress(*READ_FAILURES):
            async with asyncio.timeout(REFUSAL_BODY_S):
                while sum(map(len, pieces)) < MAX_REFUSAL_BYTES and (data := await self.read_some()):
                    pieces.append(data)
        yield b"".join(pieces)

    async def finish(self, limit_s: float) -> None:
        """Lets the connection go back to the pool if the body ends within `limit_s`, else closes it."""
        try:
            async with asyncio.timeout(limit_s):
                while await self.read_some():
                    pass
        except READ_FAILURES:
            self.close()

    def close(self) -> None:
        """Ends the exchange at once; a body that was not read to its end takes its connection along."""
        self._response.close()

    async def aclose(self) -> None:
        self.close()


class _Connector(aiohttp.TCPConnector):
    """A pool that uses no connection again on which something came that nobody had asked for.

    aiohttp would take it for the answer to the next question, which may be another caller's. There is no public place
    to look at a connection before it is used again; tests/faults/failover/test_liars.py tells when this one moves.
    """

    async def _get(self, *wanted: Any) -> aiohttp.connector.Connection | None:
        """A pooled connection that is clean, if there is one."""
        while (connection := await super()._get(*wanted)) is not None:
            if connection.protocol is None or not connection.protocol.should_close:
                break
            connection.close()
        return connection


class AiohttpClient(httpx2.AsyncClient):
    """Sends the SDK's requests through one pooled aiohttp session, made on first use in the running loop."""

    def __init__(self, connect_timeout_s: float) -> None:
        super().__init__(transport=httpx2.AsyncBaseTransport(), trust_env=False, follow_redirects=False)
        # The name's look-up and the TLS handshake are part of connecting.
        self._timeout_of_session = aiohttp.ClientTimeout(total=None, connect=connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    def build_request(self, method: str, url: httpx2.URL | str, **prepared: Any) -> httpx2.Request:
        """The request as the SDK has prepared it: nothing is merged into it."""
        headers = httpx2.Headers(prepared.get("headers")).multi_items()
        return PreparedRequest(method, str(url), headers, prepared.get("content"))

    async def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
        """One request, one answer: no redirect is followed, and the body is not read yet."""
        assert isinstance(request, PreparedRequest)  # noqa: S101 - `build_request` made it
        try:
            response = await self._open_session().request(
                request.method,
                str(request.url),
                data=request.body,
                headers=[item for item in request.prepared if item[0] not in _SKIPPED_HEADERS],
                allow_redirects=False,
            )
        except READ_FAILURES as error:
            raise _translated(error) from error
        return httpx2.Response(
            response.status,
            headers=httpx2.Headers(  # aiohttp has undone the encoding
                [item for item in response.raw_headers if item[0].lower() != b"content-encoding"], encoding="latin-1"
            ),
            stream=UpstreamBody(response),
            request=request,
        )

    async def aclose(self) -> None:
        """Closes the pool."""
        if self._session is not None:
            await self._session.close()
        await super().aclose()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
                timeout=self._timeout_of_session,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},
                read_bufsize=READ_BUFFER_BYTES,
            )
        return self._session


def _translated(error: Exception) -> httpx2.TransportError:
    """aiohttp's exception as httpx2's, which the SDK knows; without its text, which may name hosts and headers."""
    if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.SocketTimeoutError):
        return httpx2.ConnectTimeout("connect")
    if isinstance(error, aiohttp.ClientConnectorError):  # refused, name not found, TLS
        return httpx2.ConnectError("connect")
    if isinstance(error, OSError | aiohttp.ServerDisconnectedError):
        return httpx2.ReadError("read")
    return httpx2.RemoteProtocolError("answer")
