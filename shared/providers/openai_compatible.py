"""Any OpenAI-compatible upstream, through the official SDK: its client, its authentication, its errors; raw bytes.

The SDK's typed objects are not used: they rebuild every chunk, and hide broken streams.
Bootstrap calls `slim_import.defer_sdk_types` before it imports this module.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, Final

import httpx2
import msgspec
import openai

from shared.errors import (
    BrokenAnswer,
    ConnectionFailed,
    ConnectionReset,
    EchoBrainError,
    UpstreamAuthError,
    UpstreamTimeout,
)
from shared.models import Answer, AnswerMessage, ChatRequest, Chunk, Ending, ProviderHealth, Usage
from shared.providers.events import EventReader, read_json
from shared.providers.faults import in_band_error, printable_token, refusal
from shared.providers.http_client import READ_FAILURES, AiohttpClient, UpstreamBody
from shared.providers.request_body import request_body
from shared.providers.vendors import Vendor
from shared.secrets import SecretSource
from shared.settings import ProviderSettings

FINISH_GRACE_S: Final = 0.5  # how long a finished answer waits for a usage chunk and [DONE] that may never come
POOL_GRACE_S: Final = 0.25  # how long the end of a whole answer's connection is waited for, to use it again
_NOT_SENT: Final = ("Authorization", "OpenAI-Organization", "OpenAI-Project")
_OMIT: Final = openai.Omit()

# The SDK's defaults, said in so many words: pydantic deep-copies those that are left out, for every request.
_OPTIONS: Final[Any] = {
    "timeout": None,  # every limit is the gateway's, but that of connecting, which is the client's
    "max_retries": 0,
    "security": {"bearer_auth": True, "admin_api_key_auth": True},
    "post_parser": openai.not_given,
}
_KIND: Final[Any] = {"cast_to": httpx2.Response, "stream": True, "stream_cls": openai.AsyncStream[Any]}


class _AnswerChoice(msgspec.Struct):
    message: AnswerMessage | None = None
    finish_reason: Any = None


class _Completion(msgspec.Struct):
    choices: list[_AnswerChoice] | None = None
    usage: Any = None
    error: Any = None
    model: Any = None


_completions = msgspec.json.Decoder(_Completion)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])


class OpenAICompatible:
    """A provider behind an OpenAI-compatible API; `vendor` says how that one differs, `key` is read per request."""

    def __init__(self, settings: ProviderSettings, vendor: Vendor, key: SecretSource) -> None:
        self.name = settings.name
        self.model = settings.model
        self._settings = settings
        self._vendor = vendor
        self._key = key
        base_url = vendor.address(settings)
        self._chat_url = base_url + "/chat/completions"
        self._health_url = vendor.health_address(base_url)
        self._client = openai.AsyncOpenAI(
            api_key="given with each request",
            base_url=base_url,
            max_retries=0,
            http_client=AiohttpClient(settings.limits.connect_s),
        )

    async def complete(self, request: ChatRequest) -> Answer:
        """The whole answer; `BrokenAnswer` unless every choice of it is finished."""
        body, headers = await self._ask(request)
        try:
            data = await body.read_all()
        except READ_FAILURES as error:
            raise BrokenAnswer(upstream_request_id=self._request_id(headers)) from error
        finally:
            body.close()
        return read_answer(data, self._request_id(headers))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """The answer's chunks, the last one with its ending; `BrokenAnswer` where the stream ends without one."""
        body, headers = await self._ask(request)
        whole = broken = False
        try:
            request_id = self._request_id(headers)
            if not headers.get("content-type", "").lower().startswith("text/event-stream"):
                raise await _not_a_stream(body, request_id)
            yield Chunk(b"", [], has_content=False, upstream_request_id=request_id)
            rest = _Rest(body, min(FINISH_GRACE_S, self._settings.limits.idle_s / 2))
            reader = EventReader(
                choices=request.choices, pass_usage=request.include_usage, upstream_request_id=request_id
            )
            while not whole:
                try:
                    data = b"" if broken else await (rest.read() if reader.finished else body.read_some())
                except READ_FAILURES:  # however the connection ended: the reader knows what that means
                    data, broken = body.left_over(), True
                chunk = reader.feed(data) if data else reader.closed()
                if chunk is not None:
                    whole = chunk.ending is not None
                    yield chunk
                if reader.failure is not None:
                    raise reader.failure
        finally:
            if whole and not broken:
                await body.finish(POOL_GRACE_S)
            body.close()

    async def health(self) -> ProviderHealth:
        """Asks the vendor's health path with the key in use."""
        started_s = time.monotonic()
        error: str | None = None
        try:
            response = await self._send("GET", self._health_url, await self._key.get())
            if read_json(_objects, await response.aread()) is None:  # the page of some other server
                error = BrokenAnswer.code
        except EchoBrainError as failure:
            error = failure.code
        return ProviderHealth(error is None, (time.monotonic() - started_s) * 1000, error)

    async def aclose(self) -> None:
        """Closes the connection pool."""
        await self._client.close()

    async def _ask(self, request: ChatRequest) -> tuple[UpstreamBody, httpx2.Headers]:
        content = request_body(request, self._settings, self._vendor)
        key = await self._key.get()
        try:
            response = await self._send("POST", self._chat_url, key, content, request.trace_id)
        except UpstreamAuthError:
            newer = await self._key.refresh(key)
            if newer == key:
                raise
            response = await self._send("POST", self._chat_url, newer, content, request.trace_id)
        assert isinstance(response.stream, UpstreamBody)  # noqa: S101 - our own client made it
        return response.stream, response.headers

    async def _send(
        self, method: str, url: str, key: str, content: bytes | None = None, trace_id: str | None = None
    ) -> httpx2.Response:
        """One exchange up to the headers of a 2xx answer; every failure of it as the error it is."""
        headers = self._headers(key, trace_id, health=method == "GET")
        options: Any = {**_OPTIONS, "headers": headers, "idempotency_key": trace_id or "-"}
        response: httpx2.Response
        try:
            if method == "GET":
                response = await self._client.get(url, options=options, **_KIND)
            else:
                response = await self._client.post(url, content=content, options=options, **_KIND)
        except openai.APIStatusError as error:
            answer = error.response
            request_id = self._request_id(answer.headers)
            raise refusal(answer.status_code, answer.content, answer.headers.get, request_id, key=key) from error
        except openai.APITimeoutError as error:  # of the timeouts only that of connecting is left to the client
            raise UpstreamTimeout("connect", self._settings.limits.connect_s) from error
        except (openai.APIConnectionError, httpx2.TransportError) as error:
            raise _lost_connection(error) from error
        return response

    def _headers(self, key: str, trace_id: str | None, *, health: bool) -> dict[str, str | openai.Omit]:
        # What the SDK would take from its own environment variables is nobody's setting here.
        headers: dict[str, str | openai.Omit] = {**dict.fromkeys(_NOT_SENT, _OMIT), **self._vendor.extra_headers}
        if key and health and self._vendor.health_key_header:
            headers[self._vendor.health_key_header] = key
        elif key:
            headers[self._vendor.auth_header] = self._vendor.auth_scheme + key
        if trace_id:
            headers["X-Client-Request-Id"] = trace_id
        return headers

    def _request_id(self, headers: httpx2.Headers) -> str | None:
        return printable_token(headers.get(self._vendor.request_id_header))


def read_answer(data: bytes, request_id: str | None) -> Answer:
    """The answer in a 200 body; `BrokenAnswer`, or the error in it, for anything that is not a whole one."""
    completion = read_json(_completions, data)
    if completion is not None and completion.error is not None:
        raise in_band_error(completion.error, request_id)
    choices = completion.choices if completion is not None else None
    if completion is None or not choices or not all(_is_whole(choice) for choice in choices):
        raise BrokenAnswer(upstream_request_id=request_id)
    return Answer(
        data,
        choices[0].message or AnswerMessage(),
        Ending(
            printable_token(choices[0].finish_reason) or "unknown",
            _usage(completion.usage),
            printable_token(completion.model),
            request_id,
        ),
    )


def _is_whole(choice: _AnswerChoice) -> bool:
    return choice.message is not None and choice.finish_reason is not None and choice.finish_reason != "error"


def _usage(reported: Any) -> Usage | None:
    try:
        return msgspec.convert(reported, Usage)
    except msgspec.ValidationError:
        return None


class _Rest:
    """What may still come of a finished answer, usage and [DONE]; waited for `grace_s` in all, not a ping longer."""

    def __init__(self, body: UpstreamBody, grace_s: float) -> None:
        self._body = body
        self._grace_s = grace_s
        self._until_s: float | None = None

    async def read(self) -> bytes:
        """The next bytes; none at the end of the body or of the grace. Raises `READ_FAILURES`."""
        if self._until_s is None:
            self._until_s = asyncio.get_running_loop().time() + self._grace_s
        try:
            async with asyncio.timeout_at(self._until_s):
                return await self._body.read_some()
        except TimeoutError:
            return b""


async def _not_a_stream(body: UpstreamBody, request_id: str | None) -> EchoBrainError:
    """The error that a 200 answer of another content type is."""
    try:
        completion = read_json(_completions, await body.read_all())
    except READ_FAILURES:
        completion = None
    return in_band_error(completion.error if completion else None, request_id)


def _lost_connection(error: Exception) -> EchoBrainError:
    """What a failure of the transport before the end of the headers is."""
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(cause, httpx2.ConnectError):
        return ConnectionFailed()
    return BrokenAnswer() if isinstance(cause, httpx2.RemoteProtocolError) else ConnectionReset()
