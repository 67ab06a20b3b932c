"""The guard: the depth of a body, and the headers of CORS."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from shared.api.guard import (
    MAX_BODY_BYTES,
    MAX_DEPTH,
    Body,
    cors_headers,
    is_deeper_than,
    preflight_headers,
    read_body,
    read_wishes,
)
from shared.errors import BadRequest
from shared.models import Wishes

ORIGIN = "https://app.example.com"
ALLOWED = frozenset({ORIGIN, "http://localhost:3000"})


def depth_of(text: str) -> int:
    """How deep a JSON text nests, character by character."""
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif in_string:
            escaped, in_string = character == "\\", character != '"'
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


TEXTS = st.one_of(st.text('[]{}"\\,: a\n', max_size=12), st.text(max_size=4))
VALUES = st.recursive(
    st.one_of(TEXTS, st.none(), st.integers()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=25,
)


@settings(max_examples=500)
@given(VALUES, st.integers(0, 6), st.booleans())
def test_the_depth_is_what_a_slow_reading_says(value: Any, limit: int, ascii_only: bool) -> None:
    """Brackets in strings and escaped quotes make no difference, pairs side by side neither."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert is_deeper_than(text.encode("utf-8", "surrogatepass"), limit) is (depth_of(text) > limit)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("wide", [0, 500])
def test_the_limit_itself_is_allowed(opening: str, wide: int) -> None:
    """64 levels pass, 65 do not, whatever stands beside them."""
    closing = "]" if opening == "[" else "}"
    beside = "[],{}," * wide

    def nested(levels: int) -> bytes:
        return f"[{beside}{opening * (levels - 1)}1{closing * (levels - 1)}]".encode()

    assert not is_deeper_than(nested(MAX_DEPTH), MAX_DEPTH)
    assert is_deeper_than(nested(MAX_DEPTH + 1), MAX_DEPTH)


@pytest.mark.parametrize(
    "text",
    [
        '"' + "[" * 100 + '"',
        '["' + "\\\\" * 50 + '","' + "[{" * 99 + '"]',
        '["\\"[[[["' + "]",
        '["\\\\","' + "[" * 99 + '"]',
    ],
)
def test_brackets_inside_strings_do_not_count(text: str) -> None:
    """A prompt about JSON is not nested."""
    assert json.loads(text)
    assert not is_deeper_than(text.encode(), 1)


HALF = MAX_BODY_BYTES // 2


@pytest.mark.parametrize(
    ("body", "deeper"),
    [
        (b"[" * MAX_BODY_BYTES, True),
        (b"[" * HALF + b"]" * HALF, True),
        (b"[]" * HALF, False),
        (b'{"":[' * (MAX_BODY_BYTES // 5), True),
        (b'"' + b"[" * (MAX_BODY_BYTES - 2) + b'"', False),
        (b'"' + b"\\\\" * HALF + b'"', False),
        (b'"\\"' * (MAX_BODY_BYTES // 3), False),
        ((b"[" * 64 + b"]" * 64) * (MAX_BODY_BYTES // 128), False),
    ],
    ids=["open", "pyramid", "flat", "objects", "string", "backslashes", "quotes", "teeth"],
)
def test_the_largest_bodies_are_judged(body: bytes, deeper: bool) -> None:
    """Worst cases of 10 MiB end, with the right answer."""
    assert is_deeper_than(body, MAX_DEPTH) is deeper


def test_an_allowed_origin_gets_its_headers() -> None:
    """The origin itself, never a star; and the headers of ours that a page may read."""
    headers = dict(cors_headers(ORIGIN, ALLOWED))
    assert headers == {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": ORIGIN,
        "Access-Control-Expose-Headers": "X-Trace-Id, X-Served-By, X-Attempts, X-Failed-Providers, Retry-After",
    }


@pytest.mark.parametrize(
    "origin", [None, "", "null", "*", "https://evil.example.com", ORIGIN + "/", ORIGIN.upper(), ORIGIN + ":443"]
)
def test_another_origin_gets_only_vary(origin: str | None) -> None:
    """A cache must know that the answer depends on the origin, a stranger must not be let in."""
    assert list(cors_headers(origin, ALLOWED)) == [("Vary", "Origin")]
    assert list(preflight_headers(origin, ALLOWED, "POST, OPTIONS", "content-type")) == []


def test_without_origins_there_is_no_cors() -> None:
    """Nothing configured, nothing sent."""
    assert list(cors_headers(ORIGIN, frozenset())) == []


def test_a_preflight_allows_the_routes_methods_and_the_headers_asked_for() -> None:
    """Browsers' clients send headers of their own; what they ask for they may send."""
    asked = "authorization,content-type,x-stainless-lang,x-trace-id"
    headers = dict(preflight_headers(ORIGIN, ALLOWED, "POST, OPTIONS", asked))
    assert headers["Access-Control-Allow-Methods"] == "POST, OPTIONS"
    assert headers["Access-Control-Allow-Headers"] == asked
    assert int(headers["Access-Control-Max-Age"]) > 0


@pytest.mark.parametrize("asked", ["", "a\r\nSet-Cookie: x", "<script>", "é", "a" * 2000])
def test_a_preflights_rubbish_is_not_repeated(asked: str) -> None:
    """What is no list of header names is left out."""
    assert "Access-Control-Allow-Headers" not in dict(preflight_headers(ORIGIN, ALLOWED, "POST, OPTIONS", asked))


async def read(body: bytes) -> Body:
    """What `read_body` makes of a request with this body."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    return await read_body(Request(scope, receive))


@pytest.mark.parametrize(("body", "says"), [(rb'{"a":"\ud83d"}', "half a character"), (b'{"a":}', "not valid JSON")])
async def test_half_a_character_is_not_called_a_syntax_error(body: bytes, says: str) -> None:
    """`JSON.stringify` writes it, of a text that was cut in the middle of an emoji."""
    with pytest.raises(BadRequest, match=says):
        await read(body)


@pytest.mark.parametrize(
    ("headers", "wishes"),
    [
        ({}, Wishes()),
        ({"x-provider": "openai-2"}, Wishes("openai-2")),
        ({"x-provider": " openai-2 "}, Wishes("openai-2")),
        ({"x-provider": ""}, Wishes()),
        ({"x-no-failover": "true"}, Wishes(failover=False)),
        ({"x-no-failover": " TRUE "}, Wishes(failover=False)),
        ({"x-no-failover": "false"}, Wishes()),
        ({"x-provider": "a", "x-no-failover": "true"}, Wishes("a", failover=False)),
    ],
)
def test_wishes_are_read_from_their_headers(headers: dict[str, str], wishes: Wishes) -> None:
    """A provider by its name, and whether another may stand in; without headers everything is the routing's."""
    raw = [(b"accept", b"*/*"), *((name.encode(), value.encode()) for name, value in headers.items())]
    assert read_wishes(raw) == wishes


@pytest.mark.parametrize("value", ["1", "yes", "", "no", "truee"])
def test_a_wish_that_is_not_understood_is_refused(value: str) -> None:
    """A comparison that was routed around without notice would be worthless."""
    with pytest.raises(BadRequest) as caught:
        read_wishes([(b"x-no-failover", value.encode())])
    assert caught.value.param == "X-No-Failover"
