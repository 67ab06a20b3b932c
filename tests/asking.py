"""One HTTP request over a real socket, with the standard library, exactly as it is written down."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

JSON: Final = {"Content-Type": "application/json"}
QUESTION: Final[dict[str, Any]] = {"messages": [{"role": "user", "content": "Hello"}]}
TIMEOUT_S: Final = 30


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The error's code, in either dialect."""
        error = self.json().get("error")
        return error["code"] if error else None

    def dialect(self) -> str:
        """Which error envelope this is; AssertionError if it is neither."""
        body = self.json()
        if body.get("ok") is False:
            assert set(body) == {"ok", "error", "runtime"}, body
            assert set(body["error"]) == {"code", "message", "upstream_request_id"}, body
            return "brain"
        assert set(body) == {"error"}, body
        assert set(body["error"]) == {"message", "type", "code", "param"}, body
        return "openai"


def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """The answer; a body given as an iterable is sent chunked, without a Content-Length."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=TIMEOUT_S)
    try:
        # A body that is too large may be refused before all of it is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, path, body, dict(headers or {}), encode_chunked=chunked)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)


def post(url: str, path: str, payload: object = QUESTION, **headers: str) -> Reply:
    """A JSON request; the underscores of header names become hyphens."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return ask(url, "POST", path, body, {**JSON, **{name.replace("_", "-"): text for name, text in headers.items()}})


def get(url: str, path: str, **headers: str) -> Reply:
    """A request without a body."""
    return ask(url, "GET", path, None, {name.replace("_", "-"): text for name, text in headers.items()})


def brain_events(body: bytes) -> list[tuple[str, Any]]:
    """Name and data of each event of a Brain stream; comments are passed over."""
    return [(fields["event"], json.loads(fields["data"])) for fields in _events(body)]


def openai_chunks(body: bytes) -> list[Any]:
    """The chunks of an OpenAI stream, `"[DONE]"` as that text."""
    return [_data(fields["data"]) for fields in _events(body)]


def _data(text: str) -> Any:
    return text if text == "[DONE]" else json.loads(text)


def _events(body: bytes) -> Iterator[dict[str, str]]:
    text = body.decode()
    assert text.endswith("\n\n"), "a stream ends with a whole event"
    for block in text.removesuffix("\n\n").split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        if lines:
            yield dict(line.split(": ", 1) for line in lines)
