"""functions-framework in front and aiohttp behind: what the framework costs a function that only copies."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import cache

import aiohttp
import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

_REQUEST_HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-bench"}


@cache
def _session() -> aiohttp.ClientSession:
    """The pooled client, made in the worker that uses it."""
    return aiohttp.ClientSession(
        os.environ["UPSTREAM"],
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )


@functions_framework.aio.http
async def copy(request: Request) -> Response:
    """Copies the question to the upstream and the answer, streamed or not, to the caller."""
    answer = await _session().post(request.scope["path"], data=await request.body(), headers=_REQUEST_HEADERS)
    if answer.content_type == "text/event-stream":
        return StreamingResponse(_parts(answer), answer.status, media_type="text/event-stream")
    return Response(await answer.read(), answer.status, media_type=answer.content_type)


async def _parts(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for data in answer.content.iter_any():
            yield data
