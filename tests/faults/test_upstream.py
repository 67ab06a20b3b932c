"""The breaking upstream is good when it should be, and breaks exactly as its scenarios say."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.faults.scenarios import SCENARIOS
from tests.faults.upstream import BreakingUpstream, breaking_upstream
from tests.servers import free_port, serving

TEXT = "Hello, world!"
# Arguments for the scenarios that need some, so that every scenario can be played.
ARGUMENTS = {
    "slow": "0",
    "status": "429:rate_limit_exceeded:2",
    "needs-key": "sk-good",
    "big": "50",
    "huge-line": "5000",
    "paced": "3:1",
    "turns": "ok",
    "cut-of": "3:5",
    "pause": "1:3:0.01",
    "slow-first": "0",
    "continue": "3",
    "finish": "length",
    "in-band-code": "429",
    "slow-status": "500:0",
    "later": "date:1",
}
UNHEADED = {"silent", "drip-headers", "endless-headers", "endless-hints"}  # never a byte of a body
ENDLESS = {"stall", "pings", "stall-pings", "no-done-open", "roles"} | UNHEADED
BREAKS_CONNECTION = {
    "reset",
    "refuse-headers",
    "no-http",
    "cut",
    "cut-of",
    "cut-reset",
    "finish-then-reset",
    "wrong-length",
}
REFUSES = {"redirect", "status", "slow-status", "later", "param-error", "echo-error", "needs-key", "flaky"}
NOT_WHOLE = {
    "clean-end",
    "html",
    "json-error-200",
    "in-band-error",
    "malformed-cut",
    "done-without-finish",
    "null-finish",
    "finish-error",
    "invalid-json",
    "no-choices",
    "finish",  # of which this one is whole, but not by `stop`
    "in-band-code",
    "empty",
}
NO_ANSWER = {"no-content", "gzip-garbage"}

OTHER_TEXT = {
    "big": "".join(f" w{number}" for number in range(50)),
    "paced": " w0 w1 w2",
    "pause": " w0 w1 w2",
    "continue": " w0 w1 w2",
    "utf8-trickle": "Grüße, 世界 🌍!",
}
HARMLESS = [
    (name, stream)
    for name in sorted(SCENARIOS.keys() - ENDLESS - BREAKS_CONNECTION - REFUSES - NOT_WHOLE - NO_ANSWER)
    for stream in (False, True)
    if stream or name != "malformed"  # a body that is not streamed is broken as a whole
]


def asking(text: str, *, stream: bool = False, **more: object) -> dict[str, Any]:
    """A chat request with this one user message."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream, **more}


def fault(name: str) -> str:
    """The text that picks this scenario."""
    return f"fault:{name}:{ARGUMENTS[name]}" if name in ARGUMENTS else f"fault:{name}"


async def ask(http: aiohttp.ClientSession, upstream: BreakingUpstream, body: dict[str, Any]) -> tuple[int, bytes]:
    """Status and whole body of one chat."""
    async with http.post(f"{upstream.base_url}/chat/completions", json=body, allow_redirects=False) as answer:
        return answer.status, await answer.read()


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of each event, by the rules of server-sent events; broken JSON is skipped."""
    events = stream.decode().replace("\r\n", "\n").split("\n\n")
    found = []
    for event in events:
        rows = [row.removeprefix("data:") for row in event.split("\n") if row.startswith("data:")]
        try:
            found.append(json.loads("\n".join(rows)))
        except ValueError:
            continue
    return found


def text_of(stream: bytes) -> str:
    """What a whole stream says in its first choice; AssertionError when it is not whole."""
    chunks = chunks_of(stream)
    choices = [choice for chunk in chunks for choice in chunk.get("choices", []) if choice["index"] == 0]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_a_good_answer_is_oddly_written_and_its_bytes_are_known(
    http: aiohttp.ClientSession, upstream: BreakingUpstream
) -> None:
    """The body is not what any serialiser gives, and `last_body` has its exact bytes."""
    status, body = await ask(http, upstream, asking("hi"))
    assert (status, body) == (200, upstream.last_body)
    assert json.loads(body)["choices"][0]["message"]["content"] == TEXT
    assert b"H\\u0065llo" in body
    assert b"1.0" in body
    assert json.dumps(json.loads(body)).encode() != body


async def test_a_good_stream_has_its_usage_only_when_asked(
    http: aiohttp.ClientSession, upstream: BreakingUpstream
) -> None:
    """Role, tokens, finish, usage if asked for, `[DONE]`; the bytes are known."""
    _, plain = await ask(http, upstream, asking("hi", stream=True))
    assert plain == upstream.last_body
    assert text_of(plain) == TEXT
    assert b"usage" not in plain
    _, counted = await ask(http, upstream, asking("hi", stream=True, stream_options={"include_usage": True}))
    *others, last = chunks_of(counted)
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 13)
    assert all(chunk["usage"] is None for chunk in others)
    assert counted.endswith(b"data: [DONE]\n\n")


async def test_tools_choices_logprobs_and_schemas_are_served(
    http: aiohttp.ClientSession, upstream: BreakingUpstream
) -> None:
    """The features that must pass through a gateway untouched are really there."""
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    _, body = await ask(http, upstream, asking("hi", tools=tools, n=2, logprobs=True))
    first, second = json.loads(body)["choices"]
    assert (first["index"], second["index"], first["finish_reason"]) == (0, 1, "tool_calls")
    assert first["message"]["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": '{"city":"Paris"}',
    }
    _, stream = await ask(http, upstream, asking("hi", stream=True, tools=tools))
    calls = [chunk["choices"][0]["delta"].get("tool_calls") for chunk in chunks_of(stream)]
    assert "".join(call[0]["function"]["arguments"] for call in calls if call) == '{"city":"Paris"}'
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"enum": ["a"]}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    _, body = await ask(http, upstream, asking("hi", response_format=wanted))
    assert json.loads(json.loads(body)["choices"][0]["message"]["content"]) == {"n": 7, "s": "a"}


async def test_the_last_user_message_or_the_model_picks_the_scenario(
    http: aiohttp.ClientSession, upstream: BreakingUpstream
) -> None:
    """The model wins; then the last user message, its first text part when it has parts; forced beats all."""
    parts = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "fault:status:418 x"}]
    said = [{"role": "user", "content": "fault:status:500"}, {"role": "user", "content": parts}]
    assert (await ask(http, upstream, {"model": "m", "messages": said}))[0] == 418
    assert (await ask(http, upstream, {"model": "fault:status:503", "messages": said}))[0] == 503
    upstream.force("status:404")
    assert (await ask(http, upstream, asking("hi")))[0] == 404
    upstream.reset()
    assert (await ask(http, upstream, asking("hi")))[0] == 200
    assert [request.number for request in upstream.requests] == [4]


@pytest.mark.parametrize(("name", "stream"), HARMLESS)
async def test_harmless_scenarios_are_whole_answers(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, name: str, stream: bool
) -> None:
    """What is only unusual in shape still says everything."""
    status, body = await ask(http, upstream, asking(fault(name), stream=stream))
    text = text_of(body) if stream else json.loads(body)["choices"][0]["message"]["content"]
    assert status == 200
    assert text.strip("x") == OTHER_TEXT.get(name, "" if name == "huge-line" else TEXT)
    if name == "huge-line" and stream:
        assert max(map(len, body.split(b"\n"))) == 5000


@pytest.mark.parametrize("name", sorted(NOT_WHOLE))
async def test_broken_streams_end_properly_but_are_not_whole(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, name: str
) -> None:
    """These end as good streams do on the wire, without ever finishing what they say."""
    status, body = await ask(http, upstream, asking(fault(name), stream=True))
    assert status == 200
    with pytest.raises(AssertionError):
        text_of(body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", sorted(BREAKS_CONNECTION - {"finish-then-reset"}))
async def test_broken_connections_are_broken_for_the_client(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, name: str, stream: bool
) -> None:
    """The client sees a transport error, and the upstream does not blame the client for it."""
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await ask(http, upstream, asking(fault(name), stream=stream))
    await upstream.until(lambda up: up.requests[-1].answered_at is not None)
    assert upstream.requests[-1].closed_at is None


@pytest.mark.parametrize(
    ("name", "ends_with"),
    [
        ("reset", ConnectionResetError),
        ("cut-reset", ConnectionResetError),
        ("refuse-headers", b""),
        ("cut", b""),
    ],
)
async def test_a_reset_is_a_reset_and_a_close_is_a_close(
    upstream: BreakingUpstream, name: str, ends_with: type[ConnectionError] | bytes
) -> None:
    """RST and FIN differ on the wire, and what was sent before arrives in both cases."""
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    body = json.dumps(asking(fault(name), stream=True)).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    if "cut" in name:
        await reader.readuntil(b'"content":"Hello"')
        await reader.readuntil(b'"content":","')
    if isinstance(ends_with, bytes):
        assert b"\r\n0\r\n" not in await reader.read()
    else:
        with pytest.raises(ends_with):
            await reader.read()
    writer.close()


@pytest.mark.parametrize(
    ("name", "last"), [("finish-then-reset", b'"stop"}]}\n\n'), ("no-done-open", b'"stop"}]}\n\n')]
)
async def test_a_finished_stream_may_lack_its_end(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, name: str, last: bytes
) -> None:
    """The finish_reason arrives, then the connection breaks or stays silent."""
    asked = asyncio.create_task(ask(http, upstream, asking(fault(name), stream=True)))
    await upstream.until(lambda up: up.requests and up.last_body.endswith(last))
    if name == "no-done-open":
        asked.cancel()
        await upstream.until(lambda up: up.requests[-1].aborted)
    with pytest.raises((aiohttp.ClientError, ConnectionError, asyncio.CancelledError)):
        await asked


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", sorted(ENDLESS - {"no-done-open"}))
async def test_an_endless_scenario_notices_that_the_client_left(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, name: str, stream: bool
) -> None:
    """`closed_at` is set while the scenario still holds the answer."""
    asked = asyncio.create_task(ask(http, upstream, asking(fault(name), stream=stream)))
    await upstream.until(lambda up: up.requests and (name in UNHEADED or up.requests[-1].answer))
    asked.cancel()
    await upstream.until(lambda up: up.requests[-1].aborted)
    with pytest.raises((asyncio.CancelledError, aiohttp.ClientResponseError)):  # the client has limits of its own
        await asked


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("redirect", 307, b""),
        ("status", 429, b'"code": "rate_limit_exceeded"'),
        ("later", 429, b'"code": "rate_limit_exceeded"'),
        ("slow-status", 500, b"server_error"),
        ("param-error", 400, b'"param": "temperature"'),
        ("echo-error", 400, b"fault:echo-error"),
        ("needs-key", 401, b"invalid_api_key"),
        ("flaky", 500, b"server_error"),
    ],
)
async def test_refusals_have_their_status_and_body(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, name: str, status: int, said: bytes
) -> None:
    """A refusal is the same streamed or not."""
    for stream in (False, True):
        upstream.reset()
        got, body = await ask(http, upstream, asking(fault(name), stream=stream))
        assert got == status
        assert said in body


async def test_good_answers_keep_the_connection_and_carry_a_request_id(
    http: aiohttp.ClientSession, upstream: BreakingUpstream
) -> None:
    """One connection serves many requests, each with its own `x-request-id`, errors too."""
    names = []
    for text in ("hi", "fault:status:500", "fault:no-request-id"):
        async with http.post(f"{upstream.base_url}/chat/completions", json=asking(text, stream=True)) as answer:
            names.append(answer.headers.get("x-request-id"))
            await answer.read()
    assert names == ["req_1", "req_2", None]
    assert upstream.connections == 1


async def test_a_flaky_upstream_recovers_and_a_key_is_checked(
    http: aiohttp.ClientSession, upstream: BreakingUpstream
) -> None:
    """`flaky:2` fails twice for the same text; `needs-key` accepts its key."""
    statuses = [(await ask(http, upstream, asking("fault:flaky:2 a")))[0] for _ in range(3)]
    assert statuses == [500, 500, 200]
    address, key = f"{upstream.base_url}/chat/completions", {"Authorization": "Bearer k"}
    async with http.post(address, json=asking("fault:needs-key:k"), headers=key) as answer:
        assert answer.status == 200


async def test_scenarios_take_turns_for_the_same_text(http: aiohttp.ClientSession, upstream: BreakingUpstream) -> None:
    """`turns:A/B/C` plays one after the other, and those behind the last play the last."""
    text = "fault:turns:status:503::2/status:500/ok"
    assert [(await ask(http, upstream, asking(f"{text} a")))[0] for _ in range(4)] == [503, 500, 200, 200]
    assert (await ask(http, upstream, asking(f"{text} b")))[0] == 503


async def test_a_text_is_continued_from_where_the_assistant_stopped(
    http: aiohttp.ClientSession, upstream: BreakingUpstream
) -> None:
    """`continue` says the rest, even of a word, under an id of its own; what is not its own text it starts anew."""
    upstream.force("continue:4")
    for said, rest in ((" w0 w1", " w2 w3"), (" w0 w", "1 w2 w3"), ("Hello", " w0 w1 w2 w3")):
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": said}]
        _, stream = await ask(http, upstream, {"model": "m", "stream": True, "messages": messages})
        assert text_of(stream) == rest
        assert {chunk["id"] for chunk in chunks_of(stream)} == {"chatcmpl-continued"}


async def test_a_prefill_is_rejected(http: aiohttp.ClientSession, upstream: BreakingUpstream) -> None:
    """`rejects-prefill` refuses only where the assistant has the last word."""
    upstream.force("rejects-prefill")
    last = {"role": "assistant", "content": "Hel"}
    assert (await ask(http, upstream, asking("hi")))[0] == 200
    assert (await ask(http, upstream, {"model": "m", "messages": [last]}))[0] == 400


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_that_are_none(http: aiohttp.ClientSession, upstream: BreakingUpstream, stream: bool) -> None:
    """204 and an empty 200 have no body, and what is called gzip cannot be unpacked."""
    assert await ask(http, upstream, asking("fault:no-content", stream=stream)) == (204, b"")
    assert await ask(http, upstream, asking("fault:empty", stream=stream)) == (200, b"")
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(http, upstream, asking("fault:gzip-garbage", stream=stream))


async def test_a_stray_answer_follows_on_the_wire(upstream: BreakingUpstream) -> None:
    """`two-answers` sends one more than it was asked for, on the same connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    body = json.dumps(asking("fault:two-answers")).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert (await reader.readuntil(b'"stray"')).count(b"HTTP/1.1 200 OK") == 2
    writer.close()


async def test_an_unknown_scenario_fails_the_test_that_asked_for_it(http: aiohttp.ClientSession) -> None:
    """A typing error in a scenario's name cannot pass for the fault that was meant."""
    with pytest.raises(AssertionError, match="no-such"):
        async with breaking_upstream() as upstream:
            assert (await ask(http, upstream, asking("fault:no-such")))[0] == 501


async def test_as_a_process_it_tells_what_it_received(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """`python -m tests.faults.upstream` serves, lists and forgets."""
    port = free_port()
    command = [sys.executable, "-m", "tests.faults.upstream", "--port", str(port)]
    with serving(command, port=port, log=tmp_path / "log", environment={}) as server:
        async with http.post(f"{server.url}/v1/chat/completions", json=asking("hi")) as answer:
            assert answer.status == 200
        async with http.get(f"{server.url}/_requests") as answer:
            (received,) = await answer.json()
        assert json.loads(received["body"]) == asking("hi")
        assert (received["method"], received["scenario"], received["aborted"]) == ("POST", "ok", False)
        async with http.post(f"{server.url}/_reset"), http.get(f"{server.url}/_requests") as answer:
            assert await answer.json() == []
