"""Nothing is rewritten: what a caller sends reaches upstream, and what that answers reaches the caller, as it is."""

from __future__ import annotations

import json
from typing import Any, Final

import aiohttp
import msgspec
import pytest

from tests.faults.upstream import BreakingUpstream
from tests.inprocess import KEY, serving
from tests.ways import BRAIN_EVENTS, BRAIN_JSON, OPENAI_EVENTS, OPENAI_JSON, WAYS, ask, judge, payloads, send

TOOLS: Final = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
FEATURES: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "tools": {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": False},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "several": {"n": 3},
    "json": {"response_format": {"type": "json_object"}},
    "usage": {"stream_options": {"include_usage": True}},
}
# Numbers, escapes and blanks as no serialiser writes them: each must arrive as it stands here.
WRITTEN: Final = {
    "messages": r'[ {"role":"user" , "content":[{"type":"text","text":"caf\u00e9 \ud83c\udf0d 😀 \/"},'
    r' {"type":"image_url","image_url":{"url":"data:image\/png;base64,iVBORw0KGgo=","detail":"low"}}]},'
    r' {"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function",'
    r'"function":{"name":"f","arguments":"{\"a\": 1.0}"}}]}, {"role":"tool","tool_call_id":"call_1","content":"1e2"}]',
    "temperature": "1.0",
    "top_p": "1e0",
    "seed": "9007199254740993",
    "presence_penalty": "-0.0",
    "frequency_penalty": "1E-1",
    "logit_bias": '{"50256" : -1e2}',
    "tools": '[{"type":"function","function":{"name":"f","parameters":{"maximum":1.50}}}]',
    "response_format": '{"type":"json_schema","json_schema":{"name":"x","schema":{"b":1,"a":2.0}}}',
    "logprobs": "true",
    "n": "1",
    "x_unknown": '{"deep":[1.0,{"é":null}],"":"\\u0000"}',
    "metadata": '{"k":"v"}',
    "user": "null",
}


@pytest.mark.parametrize("feature", FEATURES)
async def test_an_openai_answer_is_the_upstreams_byte_for_byte(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, feature: str
) -> None:
    """The body of a JSON answer is what the upstream sent, its odd numbers, escapes and blanks included."""
    async with serving(upstream.base_url) as gateway:
        reply = await ask(http, gateway.url, OPENAI_JSON, **FEATURES[feature])
    assert (reply.status, reply.body) == (200, upstream.last_body)
    assert b"H\\u0065llo" in reply.body or feature in ("json", "tools")


@pytest.mark.parametrize("feature", FEATURES)
async def test_an_openai_stream_is_the_upstreams_byte_for_byte(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, feature: str
) -> None:
    """All chunks in their order, then [DONE]; only the usage chunk is left out where nobody asked for it."""
    async with serving(upstream.base_url) as gateway:
        reply = await ask(http, gateway.url, OPENAI_EVENTS, **FEATURES[feature])
    sent = payloads(upstream.last_body)
    assert any('"choices":[]' in data for data in sent)
    assert payloads(reply.body) == [data for data in sent if feature == "usage" or '"choices":[]' not in data]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_openai_request_reaches_the_upstream_as_it_was_written(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, stream: bool
) -> None:
    """Every member arrives byte for byte, known or not; model, cap and the wish for usage are all that is set."""
    wish = {"stream": "true", "stream_options": '{"include_obfuscation":false}'} if stream else {}
    body = "{" + " ,\n".join(f'"{name}" : {raw}' for name, raw in {**WRITTEN, **wish}.items()) + "}"
    async with serving(upstream.base_url) as gateway:
        reply = await send(http, gateway.url, OPENAI_EVENTS if stream else OPENAI_JSON, body.encode())
    assert reply.status == 200
    arrived = members(upstream.requests[-1].body)
    options = json.loads(arrived.pop("stream_options", "null"))
    assert options == ({"include_obfuscation": False, "include_usage": True} if stream else None)
    assert arrived.pop("model") == '"m"'
    assert arrived.pop("max_completion_tokens") == "4096"
    assert arrived.pop("stream", None) == ("true" if stream else None)
    assert arrived == WRITTEN


@pytest.mark.parametrize(
    ("asked", "arrives"),
    [
        ({}, {"max_completion_tokens": "4096"}),
        ({"max_tokens": 7}, {"max_tokens": "7"}),
        ({"max_completion_tokens": 7}, {"max_completion_tokens": "7"}),
        ({"max_tokens": None}, {"max_completion_tokens": "4096"}),
    ],
)
async def test_there_is_always_one_cap(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, asked: dict[str, Any], arrives: dict[str, str]
) -> None:
    """The caller's own cap arrives as it was named; without one there is the configured cap."""
    async with serving(upstream.base_url) as gateway:
        await ask(http, gateway.url, OPENAI_JSON, **asked)
    caps = {name: raw for name, raw in members(upstream.requests[-1].body).items() if name.startswith("max_")}
    assert {name: raw for name, raw in caps.items() if raw != "null"} == arrives


async def test_a_member_that_comes_twice_goes_up_once(http: aiohttp.ClientSession, upstream: BreakingUpstream) -> None:
    """Two readers of the same text must not see two requests: the last one counts, as in all JSON parsers."""
    body = b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":9,"max_tokens":5,"model":"m"}'
    async with serving(upstream.base_url) as gateway:
        await send(http, gateway.url, OPENAI_JSON, body)
    assert upstream.requests[-1].body.count(b'"max_tokens"') == 1
    assert members(upstream.requests[-1].body)["max_tokens"] == "5"


@pytest.mark.parametrize("way", [BRAIN_JSON, BRAIN_EVENTS], ids=str)
async def test_a_brain_request_goes_up_without_what_is_the_gateways_own(
    http: aiohttp.ClientSession, upstream: BreakingUpstream, way: Any
) -> None:
    """Session and metadata stay here, the cap has the vendor's name, a stream asks for a stream with usage."""
    more: dict[str, Any] = {
        "session_id": "s1",
        "metadata": {"a": 1},
        "max_tokens": 7,
        "temperature": 0.5,
        "stop": ["x"],
        "tools": TOOLS,
    }
    async with serving(upstream.base_url) as gateway:
        await ask(http, gateway.url, way, **more)
    sent = upstream.requests[-1].json
    assert sent.pop("messages") == [{"role": "user", "content": "hi"}]
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if way.stream else {}
    assert sent == {
        "model": "m",
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "stop": ["x"],
        "tools": TOOLS,
        **streamed,
    }


async def test_content_parts_of_a_brain_request_go_up_byte_for_byte(
    http: aiohttp.ClientSession, upstream: BreakingUpstream
) -> None:
    """Images and unknown parts are the provider's to judge."""
    messages = r'[{"role":"user","content":[{"type":"text","text":"caf\u00e9"}, {"type":"x_new","size":1.0}]}]'
    async with serving(upstream.base_url) as gateway:
        reply = await send(http, gateway.url, BRAIN_JSON, f'{{"messages": {messages}}}'.encode())
    assert reply.status == 200
    assert members(upstream.requests[-1].body)["messages"] == messages


async def test_the_trace_goes_up_and_the_callers_headers_do_not(
    http: aiohttp.ClientSession, upstream: BreakingUpstream
) -> None:
    """Upstream sees the trace id and our key; a caller's credentials, cookies and headers stay here."""
    callers = {"Authorization": "Bearer theirs", "Cookie": "a=b", "X-Api-Key": "theirs", "X-Other": "theirs"}
    async with serving(upstream.base_url) as gateway:
        for way in WAYS:
            reply = await send(
                http,
                gateway.url,
                way,
                way.body("hi"),
                {**callers, "X-Trace-Id": f"trace-{way}", "OpenAI-Project": "theirs"},
            )
            assert judge(reply).code is None
            headers = upstream.requests[-1].headers
            assert headers["x-client-request-id"] == reply.headers["X-Trace-Id"] == f"trace-{way}"
            assert headers["authorization"] == f"Bearer {KEY}"
            assert "theirs" not in str(headers)
            assert "cookie" not in headers


async def test_one_connection_serves_many_requests(http: aiohttp.ClientSession, upstream: BreakingUpstream) -> None:
    """Connections to upstream are kept and used again, after streams too."""
    async with serving(upstream.base_url) as gateway:
        for way in (*WAYS, *WAYS):
            await ask(http, gateway.url, way)
            await gateway.idle()
    assert upstream.connections == 1


def members(body: bytes) -> dict[str, str]:
    """The members of a JSON object, each as it is written."""
    return {name: bytes(raw).decode() for name, raw in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items()}
