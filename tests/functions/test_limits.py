"""What is refused of a request before anybody looks at what it asks: size, type, encoding, syntax, depth."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping

import pytest

from tests.asking import JSON, QUESTION, Reply, ask, get, post
from tests.servers import Server

MAX_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 64
PIECE = b" " * 65536
ROUTES = [
    ("chat", "/v1/brain/chat", "brain"),
    ("chat", "/", "brain"),
    ("chat", "/v1/chat/completions", "openai"),
    ("stream", "/v1/brain/chat/stream", "brain"),
    ("stream", "/v1/chat/completions", "openai"),
]
ON_EVERY_ROUTE = pytest.mark.parametrize(("target", "path", "dialect"), ROUTES)


@pytest.fixture(autouse=True)
def healthy_after(functions: Mapping[str, Server]) -> Iterator[None]:
    """After each test every process that it may have hurt is alive and answers."""
    yield
    for target in ("chat", "stream"):
        assert functions[target].process.poll() is None
        assert get(functions[target].url, "/health").json() == {"status": "ok"}


def sized(size: int) -> bytes:
    """A good question of exactly this many bytes."""
    frame = len(json.dumps({"messages": [{"role": "user", "content": ""}]}))
    body = json.dumps({"messages": [{"role": "user", "content": "x" * (size - frame)}]}).encode()
    assert len(body) == size
    return body


def pieces(body: bytes) -> Iterator[bytes]:
    """The body in pieces, for a request that does not announce its length."""
    for start in range(0, len(body), len(PIECE)):
        yield body[start : start + len(PIECE)]


def content(text: str) -> bytes:
    """A question whose content is this JSON text, unescaped."""
    return f'{{"messages":[{{"role":"user","content":{text}}}]}}'.encode("utf-8", "surrogatepass")


def nested(levels: int) -> bytes:
    """A question that nests this deep, in a member that every route takes."""
    inner = levels - 1  # the body itself is one
    return b'{"messages":[{"role":"user","content":"x"}],"metadata":' + b'{"a":' * inner + b"1" + b"}" * inner + b"}"


def is_refused(reply: Reply, status: int, code: str, dialect: str) -> bool:
    """Whether this is that refusal in that envelope, and says that a retry is of no use."""
    assert reply.dialect() == dialect
    assert reply.headers["x-should-retry"] == "false"
    return (reply.status, reply.code) == (status, code)


@ON_EVERY_ROUTE
def test_a_body_that_announces_too_much_is_refused(
    functions: Mapping[str, Server], target: str, path: str, dialect: str
) -> None:
    """One byte more than 10 MiB."""
    reply = post(functions[target].url, path, sized(MAX_BYTES + 1))
    assert is_refused(reply, 413, "payload_too_large", dialect)


@ON_EVERY_ROUTE
def test_a_body_that_grows_too_large_is_refused(
    functions: Mapping[str, Server], target: str, path: str, dialect: str
) -> None:
    """The same without an announcement, as a chunked body."""
    reply = ask(functions[target].url, "POST", path, pieces(sized(MAX_BYTES + 1)), JSON)
    assert is_refused(reply, 413, "payload_too_large", dialect)


@pytest.mark.parametrize("path", ["/v1/brain/chat", "/v1/chat/completions"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_exactly_the_limit_is_taken(chat_url: str, path: str, chunked: bool) -> None:
    """10 MiB of good JSON is answered, announced or not."""
    body = sized(MAX_BYTES)
    assert ask(chat_url, "POST", path, pieces(body) if chunked else body, JSON).status == 200


def test_a_length_alone_is_enough_to_refuse(chat_url: str) -> None:
    """Nobody waits for a body that is announced too large."""
    reply = ask(chat_url, "POST", "/", b"", {**JSON, "Content-Length": str(10**15), "Connection": "close"})
    assert is_refused(reply, 413, "payload_too_large", "brain")


@ON_EVERY_ROUTE
@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "json",
    ],
)
def test_a_body_that_is_not_called_json_is_refused(
    functions: Mapping[str, Server], target: str, path: str, dialect: str, kind: str | None
) -> None:
    """The type must be JSON in UTF-8; a form could be sent by any page without asking."""
    headers = {} if kind is None else {"Content-Type": kind}
    reply = ask(functions[target].url, "POST", path, json.dumps(QUESTION).encode(), headers)
    assert is_refused(reply, 415, "unsupported_media_type", dialect)


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        'application/json; charset="UTF-8"',
        "application/json; charset=utf-8; x=y",
        "application/json;",
        "application/json ; charset=us-ascii",
    ],
)
def test_every_way_to_write_the_type_is_taken(chat_url: str, kind: str) -> None:
    """Case, blanks, quotes and parameters do not matter."""
    assert ask(chat_url, "POST", "/", json.dumps(QUESTION).encode(), {"Content-Type": kind}).status == 200


@ON_EVERY_ROUTE
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "identity, gzip"])
def test_a_body_that_is_encoded_is_refused(
    functions: Mapping[str, Server], target: str, path: str, dialect: str, encoding: str
) -> None:
    """A few compressed bytes could be a flood."""
    body = gzip.compress(json.dumps(QUESTION).encode())
    reply = ask(functions[target].url, "POST", path, body, {**JSON, "Content-Encoding": encoding})
    assert is_refused(reply, 415, "unsupported_media_type", dialect)


def test_no_encoding_may_be_said(chat_url: str) -> None:
    """`identity` is none."""
    assert post(chat_url, "/", Content_Encoding="identity").status == 200


NOT_JSON = {
    "empty": b"",
    "blank": b" \n",
    "text": b"Hello",
    "cut": b'{"messages":[{"role":"user","content":"x"}]',
    "two": b'{"messages":[]}{"messages":[]}',
    "trailing comma": b'{"messages":[{"role":"user","content":"x"}],}',
    "comment": b'{"messages":[] /* none */}',
    "single quotes": b"{'messages':[]}",
    "NaN": b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    "Infinity": b'{"messages":[{"role":"user","content":"x"}],"temperature":Infinity}',
    "-Infinity": b'{"messages":[{"role":"user","content":"x"}],"temperature":-Infinity}',
    "NaN within": b'{"messages":[{"role":"user","content":"x"}],"metadata":{"a":[NaN]}}',
    "leading zero": b'{"messages":[{"role":"user","content":"x"}],"seed":01}',
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(QUESTION).encode(),
    "UTF-16": json.dumps(QUESTION).encode("utf-16"),
    "invalid UTF-8": b'{"messages":[{"role":"user","content":"\xff"}]}',
    "overlong UTF-8": b'{"messages":[{"role":"user","content":"\xc0\xaf"}]}',
    "raw surrogate": content('"\ud83d"'),
    "half a pair": content('"\\ud83d"'),
    "the other half": content('"\\ude00"'),
    "halves swapped": content('"\\ude00\\ud83d"'),
    "bad escape": content('"\\x41"'),
    "raw control character": content('"a\x01b"'),
    "raw newline": content('"a\nb"'),
    "null byte behind": json.dumps(QUESTION).encode() + b"\x00",
    "brackets only": b"[" * 100_000,
    "array": b"[]",
    "number": b"7",
    "string": b'"messages"',
    "null": b"null",
    "key that is no string": b"{1:2}",
}


@ON_EVERY_ROUTE
@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_not_a_json_object_is_refused(
    functions: Mapping[str, Server], target: str, path: str, dialect: str, name: str
) -> None:
    """400 with a fixed message, whatever it is instead."""
    reply = post(functions[target].url, path, NOT_JSON[name])
    assert is_refused(reply, 400, "bad_request", dialect)
    assert len(reply.body) < 1000


@ON_EVERY_ROUTE
@pytest.mark.parametrize("deep", [MAX_DEPTH + 1, 1000, 100_000])
def test_a_body_that_is_nested_too_deep_is_refused(
    functions: Mapping[str, Server], target: str, path: str, dialect: str, deep: int
) -> None:
    """65 levels and more; the message says how many are allowed."""
    reply = post(functions[target].url, path, nested(deep))
    assert is_refused(reply, 400, "bad_request", dialect)
    assert str(MAX_DEPTH) in reply.json()["error"]["message"]


@ON_EVERY_ROUTE
def test_a_body_of_exactly_the_depth_is_taken(
    functions: Mapping[str, Server], target: str, path: str, dialect: str
) -> None:
    """64 levels are answered."""
    assert post(functions[target].url, path, nested(MAX_DEPTH)).status == 200


@ON_EVERY_ROUTE
@pytest.mark.parametrize("text", ["[" * 1000, "{" * 1000 + '"', '\\" [[[' * 100, "\\\\" + "[{" * 500])
def test_brackets_inside_strings_do_not_count(
    functions: Mapping[str, Server], target: str, path: str, dialect: str, text: str
) -> None:
    """A question about JSON is not nested."""
    body = {"messages": [{"role": "user", "content": text}]}
    assert post(functions[target].url, path, body).status == 200


def test_the_last_of_two_equal_keys_counts(chat_url: str) -> None:
    """Duplicate keys are one request, the same for the gateway and for the provider behind it."""
    twice = b'{"session_id":"first","session_id":"second","messages":[{"role":"user","content":"x"}]}'
    assert post(chat_url, "/v1/brain/chat", twice).json()["session_id"] == "second"
    models = b'{"model":"first","model":"second","messages":[{"role":"user","content":"x"}]}'
    assert post(chat_url, "/v1/chat/completions", models).json()["model"] == "second"


@pytest.mark.parametrize("path", ["/v1/brain/chat", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "text", ['"\\ud83d\\ude00"', '"🌍 ü \\u0000"', '"\\u2028"', '"</script>"', '"' + "é" * 100_000 + '"']
)
def test_every_good_text_is_taken(chat_url: str, path: str, text: str) -> None:
    """Whole surrogate pairs, escaped control characters and all of Unicode."""
    assert post(chat_url, path, content(text)).status == 200


def test_a_field_with_an_endless_name_is_refused_briefly(chat_url: str) -> None:
    """The name is not repeated in all its length."""
    reply = post(chat_url, "/v1/brain/chat", {**QUESTION, "k" * 1_000_000: 1})
    assert is_refused(reply, 400, "bad_request", "brain")
    assert len(reply.body) < 2000


@pytest.mark.parametrize("n", [129, 10**9, 10**30])
def test_more_choices_than_openai_allows_are_refused(chat_url: str, n: int) -> None:
    """A small request must not become a huge answer."""
    reply = post(chat_url, "/v1/chat/completions", {**QUESTION, "n": n})
    assert is_refused(reply, 400, "bad_request", "openai")
    assert reply.json()["error"]["param"] == "n"


@pytest.mark.parametrize("path", ["/v1/brain/chat", "/v1/chat/completions"])
def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(chat_url: str, path: str) -> None:
    """The connection ends before the announced length; the fixture looks after the process."""
    import socket
    from urllib.parse import urlsplit

    address = urlsplit(chat_url)
    with socket.create_connection((str(address.hostname), int(address.port or 0))) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
        connection.sendall(head.encode())
