"""The practical limit of a Python gateway: an ASGI app that copies bytes both ways and looks at none of them.

UPSTREAM=http://127.0.0.1:9000 uvicorn bench.copier:app --loop uvloop --http httptools
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any

import aiohttp

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_KEPT = (b"content-type", b"x-request-id")
_REQUEST_HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-bench"}


@cache
def _session() -> aiohttp.ClientSession:
    """The pooled client, made in the event loop that uses it."""
    return aiohttp.ClientSession(
        os.environ["UPSTREAM"],
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Copies a POST to the upstream and what comes back to the caller."""
    if scope["type"] != "http":
        return
    body = await _body(receive)
    async with _session().post(scope["path"], data=body, headers=_REQUEST_HEADERS) as answer:
        headers = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() in _KEPT]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        async for data in answer.content.iter_any():
            await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body"})


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)
