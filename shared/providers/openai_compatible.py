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

from shared.errors import ConnectionFailed, EchoBrainError, UpstreamAuthError, UpstreamError, UpstreamTimeout
from shared.models import Answer, AnswerMessage, ChatRequest, Chunk, Ending, ProviderHealth, Usage
from shared.providers.events import EventReader, read_json
from shared.providers.faults import in_band_error, printable_token, refusal
from shared.providers.http_client import READ_FAILURES, AiohttpClient, UpstreamBody
from shared.providers.vendors import Vendor
from shared.secrets import SecretSource
from shared.settings import ProviderSettings

FINISH_GRACE_S: Final = 0.5  # how long a finished answer waits for a usage chunk and [DONE] that may never come
POOL_GRACE_S: Final = 0.25  # how long the end of a whole answer's connection is waited for, to use it again
_NOT_SENT: Final = ("Authorization", "OpenAI-Organization", "OpenAI-Project")
_CAPS: Final = ("max_tokens", "max_completion_tokens")
_NULL: Final = b"null"


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


class OpenAICompatible:
    """A provider behind an OpenAI-compatible API; `vendor` says how that one differs, `key` is read per request."""

    def __init__(self, settings: ProviderSettings, vendor: Vendor, key: SecretSource) -> None:
        self.name = settings.name
        self.model = settings.model
        self._settings = settings
        self._vendor = vendor
        self._key = key
        self._base_url = settings.base_url or vendor.base_url
        self._client = openai.AsyncOpenAI(
            api_key="given with each request",
            base_url=self._base_url,
            max_retries=0,
            http_client=AiohttpClient(settings.limits.connect_s),
        )

    async def complete(self, request: ChatRequest) -> Answer:
        """The whole answer; `UpstreamError` unless every choice of it is finished."""
        body, headers = await self._ask(request)
        try:
            data = await body.read_all()
        except READ_FAILURES as error:
            raise UpstreamError(upstream_request_id=_request_id(headers)) from error
        finally:
            body.close()
        return read_answer(data, _request_id(headers))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """The answer's chunks, the last one with its ending; `UpstreamError` where the stream ends without one."""
        body, headers = await self._ask(request)
        whole = broken = False
        try:
            request_id = _request_id(headers)
            if not headers.get("content-type", "").startswith("text/event-stream"):
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
            response = await self._send("GET", self._vendor.health_path, await self._key.get())
            await response.aread()
        except EchoBrainError as failure:
            error = failure.code
        except httpx2.TransportError:
            error = ConnectionFailed.code
        return ProviderHealth(error is None, (time.monotonic() - started_s) * 1000, error)

    async def aclose(self) -> None:
        """Closes the connection pool."""
        await self._client.close()

    async def _ask(self, request: ChatRequest) -> tuple[UpstreamBody, httpx2.Headers]:
        content = request_body(request, self._settings, self._vendor)
        key = await self._key.get()
        try:
            response = await self._send("POST", "/chat/completions", key, content, request.trace_id)
        except UpstreamAuthError:
            newer = await self._key.refresh(key)
            if newer == key:
                raise
            response = await self._send("POST", "/chat/completions", newer, content, request.trace_id)
        assert isinstance(response.stream, UpstreamBody)  # noqa: S101 - our own client made it
        return response.stream, response.headers

    async def _send(
        self, method: str, path: str, key: str, content: bytes | None = None, trace_id: str | None = None
    ) -> httpx2.Response:
        """One exchange up to the headers of a 2xx answer; every failure of it as the error it is."""
        options: Any = {**_OPTIONS, "headers": self._headers(key, trace_id), "idempotency_key": trace_id or "-"}
        response: httpx2.Response
        try:
            if method == "GET":
                response = await self._client.get(self._base_url + path, options=options, **_KIND)
            else:
                response = await self._client.post(self._base_url + path, content=content, options=options, **_KIND)
        except openai.APIStatusError as error:
            answer = error.response
            raise refusal(
                answer.status_code, answer.content, answer.headers.get, _request_id(answer.headers), key=key
            ) from error
        except openai.APITimeoutError as error:  # of the timeouts only that of connecting is left to the client
            raise UpstreamTimeout("connect", self._settings.limits.connect_s) from error
        except (openai.APIConnectionError, httpx2.TransportError) as error:
            raise ConnectionFailed from error
        return response

    def _headers(self, key: str, trace_id: str | None) -> dict[str, str | openai.Omit]:
        # What the SDK would take from its own environment variables is nobody's setting here.
        headers: dict[str, str | openai.Omit] = dict.fromkeys(_NOT_SENT, openai.Omit())
        if key:
            headers[self._vendor.auth_header] = self._vendor.auth_scheme + key
        if trace_id:
            headers["X-Client-Request-Id"] = trace_id
        return headers


def request_body(request: ChatRequest, settings: ProviderSettings, vendor: Vendor) -> bytes:
    """The caller's members as they were written, with the model, the cap and the wish for usage set."""
    members = dict(request.parameters)
    model = settings.model or request.model
    if model is not None:
        members["model"] = msgspec.Raw(msgspec.json.encode(model))
    if all(bytes(members.get(cap, _NULL)) == _NULL for cap in _CAPS):
        tokens = request.cap.tokens if request.cap else settings.max_tokens
        members[vendor.max_tokens_field] = msgspec.Raw(b"%d" % tokens)
    if request.stream:
        members["stream"] = msgspec.Raw(b"true")
        options = msgspec.json.decode(members.get("stream_options", _NULL), type=dict[str, msgspec.Raw] | None) or {}
        members["stream_options"] = msgspec.Raw(msgspec.json.encode({**options, "include_usage": msgspec.Raw(b"true")}))
    return msgspec.json.encode(members)


def read_answer(data: bytes, request_id: str | None) -> Answer:
    """The answer in a 200 body; `UpstreamError` for anything that is not a whole one."""
    completion = read_json(_completions, data)
    if completion is not None and completion.error is not None:
        raise in_band_error(completion.error, request_id)
    choices = completion.choices if completion is not None else None
    if completion is None or not choices or not all(_is_whole(choice) for choice in choices):
        raise UpstreamError(upstream_request_id=request_id)
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


def _request_id(headers: httpx2.Headers) -> str | None:
    return printable_token(headers.get("x-request-id"))
