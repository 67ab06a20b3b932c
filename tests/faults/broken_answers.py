"""Answers that are broken or refuse, on a sound connection. `count`: token chunks sent before the fault."""

from __future__ import annotations

import asyncio
import json
import math
import time
from datetime import UTC, datetime
from email.utils import format_datetime

from . import answers
from .exchange import Exchange
from .playing import half_json, ok, play, scenario

BROKEN_EVENT = b'data: {"id":"chatcmpl-upstream","choices":[{"index":0,"delta":{"content":"bro\n\n'
ERROR = answers.error("The server had an error.", code="server_error")
ERROR_EVENT = answers.event(
    {"error": {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}}
)
HTML = b"<!doctype html><html><head><title>Gateway</title></head><body><h1>Please log in</h1></body></html>\n"
CANARY_REASON = (
    "Invalid 'temperature': must be at most 2. Key sk-canary-in-error-12345678 at https://internal.example/v1"
)


@scenario("clean-end")
async def clean_end(x: Exchange, count: str = "2") -> None:
    """A proper end of the body with no finish_reason and no `[DONE]`."""
    if not x.streamed:
        return await half_json(x)
    return await play(x, answers.script(x.payload).until(int(count)))


@scenario("html")
async def html(x: Exchange) -> None:
    """A web page with status 200."""
    await x.whole(HTML, kind="text/html; charset=utf-8")


@scenario("json-error-200")
async def json_error_200(x: Exchange) -> None:
    """An error body with status 200."""
    await x.whole(ERROR)


@scenario("in-band-error")
async def in_band_error(x: Exchange, count: str = "2") -> None:
    """An error in the middle of the stream, and a proper end."""
    if not x.streamed:
        return await json_error_200(x)
    return await play(x, (*answers.script(x.payload).until(int(count)), ERROR_EVENT))


@scenario("in-band-code")
async def in_band_code(x: Exchange, code: str, count: str = "2") -> None:
    """An error in the middle of the stream, or with status 200, that has this code (a number or a word)."""
    known = int(code) if code.isdigit() else code
    said = {"error": {"message": "The server says no.", "type": "server_error", "param": None, "code": known}}
    if not x.streamed:
        return await x.whole(json.dumps(said).encode())
    return await play(x, (*answers.script(x.payload).until(int(count)), answers.event(said)))


@scenario("malformed")
async def malformed(x: Exchange, count: str = "2") -> None:
    """One chunk of broken JSON in a stream that is good otherwise."""
    if not x.streamed:
        return await invalid_json(x)
    events = answers.script(x.payload)
    before = events.until(int(count))
    return await play(x, (*before, BROKEN_EVENT, *events.whole()[len(before) :]))


@scenario("malformed-cut")
async def malformed_cut(x: Exchange, count: str = "2") -> None:
    """One chunk of broken JSON, then a proper end without a finish_reason."""
    if not x.streamed:
        return await half_json(x)
    return await play(x, (*answers.script(x.payload).until(int(count)), BROKEN_EVENT))


@scenario("no-done")
async def no_done(x: Exchange) -> None:
    """All but the `[DONE]`."""
    await (play(x, answers.script(x.payload).whole()[:-1]) if x.streamed else ok(x))


@scenario("no-done-open")
async def no_done_open(x: Exchange) -> None:
    """Everything up to the finish_reason, then silence with the connection open."""
    if not x.streamed:
        return await ok(x)
    script = answers.script(x.payload)
    await x.open_stream()
    await x.chunks(script.until(len(script.tokens)) + script.finish)
    return await x.hold()


@scenario("done-without-finish")
async def done_without_finish(x: Exchange, count: str = "2") -> None:
    """`[DONE]` without ever a finish_reason."""
    if not x.streamed:
        return await null_finish(x)
    return await play(x, (*answers.script(x.payload).until(int(count)), answers.DONE))


@scenario("null-finish")
async def null_finish(x: Exchange) -> None:
    """An answer whose finish_reason is null to the end."""
    await finish_with(x, None)


@scenario("finish-error")
async def finish_error(x: Exchange) -> None:
    """An answer whose finish_reason is "error"."""
    await finish_with(x, "error")


@scenario("finish")
async def finish(x: Exchange, reason: str) -> None:
    """An answer with this finish_reason."""
    await finish_with(x, reason)


async def finish_with(x: Exchange, reason: str | None) -> None:
    """A good answer but for its finish_reason."""
    if x.streamed:
        await play(x, answers.script(x.payload, finish=reason).whole())
    else:
        await x.whole(answers.odd(answers.completion(x.payload, finish=reason)))


@scenario("invalid-json")
async def invalid_json(x: Exchange) -> None:
    """Called JSON, but is not."""
    await x.whole(b"upstream connect error or disconnect/reset before headers")


@scenario("no-choices")
async def no_choices(x: Exchange) -> None:
    """An answer without choices."""
    if x.streamed:
        await play(x, (answers.event({"choices": []}), answers.DONE))
    else:
        await x.whole(b'{"choices":[]}')


@scenario("empty")
async def empty(x: Exchange) -> None:
    """Status 200, the right content type, and not one byte."""
    await x.whole(b"", kind="text/event-stream" if x.streamed else "application/json")


@scenario("no-content")
async def no_content(x: Exchange) -> None:
    """Status 204, which has no body."""
    await x.start({}, 204)


@scenario("gzip-garbage")
async def gzip_garbage(x: Exchange) -> None:
    """Called gzip, but is not."""
    kind = "text/event-stream" if x.streamed else "application/json"
    await x.whole(b"\x1f\x8b\x08not gzip at all" * 3, kind=kind, headers={"Content-Encoding": "gzip"})


@scenario("redirect")
async def redirect(x: Exchange) -> None:
    """307 to another path of this server."""
    there = f"http://{x.request.headers['host']}/v1/redirected/chat/completions"
    await x.whole(b"", 307, headers={"Location": there})


@scenario("status")
async def status(x: Exchange, code: str, error_code: str | None = None, retry_after: str = "") -> None:
    """An OpenAI error with this status, code and Retry-After."""
    body = answers.error(f"The upstream says {code}.", code=error_code)
    await x.whole(body, int(code), headers={"Retry-After": retry_after} if retry_after else None)


@scenario("later")
async def later(x: Exchange, form: str, seconds: str) -> None:
    """429 that says when to come back: in `s`, in `ms`, or at a `date`, the first whole second after so many."""
    at = datetime.fromtimestamp(math.ceil(time.time() + float(seconds)), UTC)
    headers = {
        "s": {"Retry-After": seconds},
        "ms": {"retry-after-ms": str(round(float(seconds) * 1000)), "Retry-After": "600"},
        "date": {"Retry-After": format_datetime(at, usegmt=True)},
    }[form]
    await x.whole(answers.error("Too many requests.", code="rate_limit_exceeded"), 429, headers=headers)


@scenario("slow-status")
async def slow_status(x: Exchange, code: str, seconds: str) -> None:
    """An OpenAI error with this status that takes so long."""
    await asyncio.sleep(float(seconds))
    await status(x, code)


@scenario("param-error")
async def param_error(x: Exchange) -> None:
    """400 that names a parameter, and lets slip a key and an internal address."""
    await x.whole(answers.error(CANARY_REASON, code="invalid_value", param="temperature"), 400)


@scenario("echo-error")
async def echo_error(x: Exchange, code: str = "400") -> None:
    """An error that repeats the request and the credentials."""
    said = f"{x.request.headers.get('authorization')} sent {x.request.body.decode(errors='replace')}"
    await x.whole(answers.error(said, code="invalid_request_error"), int(code))


@scenario("needs-key")
async def needs_key(x: Exchange, key: str) -> None:
    """401 for every key but one."""
    if x.request.headers.get("authorization") == f"Bearer {key}":
        return await ok(x)
    return await x.whole(answers.error("Incorrect API key provided.", code="invalid_api_key"), 401)


@scenario("rejects-prefill")
async def rejects_prefill(x: Exchange) -> None:
    """400 where the assistant has the last word, else a good answer."""
    messages = x.payload.get("messages") or [{}]
    if messages[-1].get("role") != "assistant":
        return await ok(x)
    reason = "This model does not support assistant message prefill."
    return await x.whole(answers.error(reason, code="invalid_request_error", param="messages"), 400)


@scenario("flaky")
async def flaky(x: Exchange, count: str = "1") -> None:
    """500 for the first `count` requests with the same text, then good answers."""
    x.seen[x.text] += 1
    await (status(x, "500", "server_error") if x.seen[x.text] <= int(count) else ok(x))
