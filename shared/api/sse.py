"""A response that streams server-sent events, and always ends in a way that tells whole from broken."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.api.dialect import StreamEncoder
from shared.api.inflight import Drain, Inflight, interrupt_when_gone
from shared.api.responses import Headers, raw_headers
from shared.errors import ClientClosedRequest, EchoBrainError, InternalError
from shared.models import Chunk
from shared.streaming import AnswerStream
from shared.telemetry.logs import log_bug

KEEP_ALIVE_S: Final = 15.0
FAREWELL_S: Final = 1.0  # how long the last event of an interrupted stream is pushed to a caller that does not read
_KEEP_ALIVE: Final = b": keep-alive\n\n"
_HEADERS: Final = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)


class EventStream(Response):
    """Sends what the dialect opens with, the content with which `chunks` has `begun`, then `chunks`.

    `ended` is told before the last byte goes out.
    """

    def __init__(
        self,
        begun: asyncio.Task[Chunk],
        chunks: AnswerStream,
        encoder: StreamEncoder,
        *,
        headers: Headers,
        limit_s: float,
        drain: Drain,
        ended: Callable[[EchoBrainError | None], None],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = raw_headers(headers, *_HEADERS)
        self._begun = begun
        self._chunks = chunks
        self._encoder = encoder
        self._limit_s = limit_s
        self._drain = drain
        self._ended = ended
        self._sent_s = time.monotonic()
        self._unsent = b""  # what the stream opens with, until it goes out
        self._over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Runs the stream to its end; never raises what a provider did."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # In a task of its own, a token wakes this file and what is below it, not the dozen frames of the framework.
        await asyncio.create_task(self._run(receive, send))

    async def _run(self, receive: Receive, send: Send) -> None:
        attendant: asyncio.Task[None] | None = None
        self._unsent = self._encoder.opening()
        try:
            with Inflight(self._drain, stream=True) as inflight:
                attendant = asyncio.create_task(self._attend(receive, send, inflight))
                await self._copy(send)
        except EchoBrainError as error:
            await self._fail(send, error)
        except Exception as error:  # noqa: BLE001 - a second response start would break the transfer
            log_bug(error)
            await self._fail(send, InternalError())
        finally:
            if attendant is not None:
                attendant.cancel()
            await leave(self._begun, self._chunks)

    async def _copy(self, send: Send) -> None:
        if self._unsent and not self._with_content():
            await self._send_opening(send)
        chunk = await self._begun
        data, ending = self._unsent + self._encoder.chunk(chunk), chunk.ending
        self._unsent = b""
        if data and ending is None:
            await self._send(send, data)
        while ending is None:
            chunk = await self._chunks.__anext__()
            data, ending = self._encoder.chunk(chunk), chunk.ending
            if data and ending is None:  # `_send` without its frame: every token passes here
                self._sent_s = time.monotonic()
                await send({"type": "http.response.body", "body": data, "more_body": True})
        self._over = True
        self._ended(None)
        await self._send(send, data + self._encoder.closing(ending), more=False)

    async def _send_opening(self, send: Send) -> None:
        opening, self._unsent = self._unsent, b""
        await self._send(send, opening)

    def _with_content(self) -> bool:
        return self._begun.done() and not self._begun.cancelled() and self._begun.exception() is None

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        self._sent_s = time.monotonic()
        await send({"type": "http.response.body", "body": data, "more_body": more})

    async def _fail(self, send: Send, error: EchoBrainError) -> None:
        if self._over:  # the answer is whole, only its last bytes were not taken: there is nothing else to tell
            return
        self._ended(error)
        if isinstance(error, ClientClosedRequest):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._send(send, self._unsent + self._encoder.failure(error), more=False)

    async def _attend(self, receive: Receive, send: Send, inflight: Inflight) -> None:
        """Keeps a silent stream alive; ends it when its caller leaves, or stops reading until past every limit."""
        end_s = time.monotonic() + self._limit_s
        while (now_s := time.monotonic()) < end_s:
            next_sign_s = self._sent_s + KEEP_ALIVE_S
            with contextlib.suppress(TimeoutError):
                if now_s < next_sign_s:
                    async with asyncio.timeout(min(next_sign_s, end_s) - now_s):
                        await interrupt_when_gone(receive, inflight)
                    return
                async with asyncio.timeout(end_s - now_s):  # a caller that does not read blocks this, too
                    await self._send(send, _KEEP_ALIVE)
        inflight.interrupt(ClientClosedRequest())


async def leave(begun: asyncio.Task[Chunk], chunks: AnswerStream) -> None:
    """Ends what is under way for a stream that nobody reads on, also where it has not begun."""
    begun.cancel()
    begun.add_done_callback(lambda task: task.cancelled() or task.exception())  # the caller has been told
    try:
        await asyncio.wait({begun})
    finally:
        await chunks.aclose()
