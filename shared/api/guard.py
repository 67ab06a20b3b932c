"""What is checked of a request before anybody looks at what it asks: origin, type, size, depth, syntax."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import msgspec
from starlette.requests import ClientDisconnect, Request

from shared.errors import BadRequest, ClientClosedRequest, PayloadTooLarge, UnsupportedMediaType
from shared.models import Wishes

MAX_BODY_BYTES: Final = 10 * 1024 * 1024
MAX_DEPTH: Final = 64
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one deeper, one back
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

MAX_SHOWN_CHARS: Final = 100
_NAMED_FIELD: Final = re.compile(
    r"Object (?:contains unknown|(?P<missing>missing required)) field `(?P<field>.*)`", re.DOTALL
)
_TYPES: Final = re.compile(r"`([^`]*)`")
_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
}
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9\-, ]{1,1000}")
EXPOSED_HEADERS: Final = "X-Trace-Id, X-Served-By, X-Attempts, X-Failed-Providers, Retry-After"
PREFLIGHT_CACHE_S: Final = 600


class AnyObject(msgspec.Struct, gc=False):
    """A JSON object that is only passed on: whatever it has in it is checked to be JSON and skipped."""


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON object as it was sent, and its members, each as raw JSON."""

    raw: bytes
    members: dict[str, msgspec.Raw]


async def read_body(request: Request) -> Body:
    """The JSON object in the body; the error says what is wrong with it."""
    _check_type(request)
    body = await _read_limited(request)
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("The body is not valid UTF-8.") from None
    if is_deeper_than(body, MAX_DEPTH):
        raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
    try:
        return Body(body, _members.decode(body))
    except msgspec.ValidationError:
        raise BadRequest("The body must be a JSON object.") from None
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest(_why_not_json(body)) from None


def _why_not_json(body: bytes) -> str:
    """JSON.stringify writes half of a character that was cut in two; its author should not look for a syntax error."""
    try:
        json.loads(body, parse_constant=_refuse)
    except ValueError:
        return "The body is not valid JSON."
    return "The body holds half a character (a lone surrogate, \\ud800 to \\udfff), as text that was cut in two does."


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def field_error(problem: msgspec.DecodeError) -> BadRequest:
    """msgspec's complaint, such as "Expected `str`, got `int` - at `$.messages[0].content`", led by the field."""
    text, _, place = str(problem).partition(" - at `$")
    path = place.rstrip("`").lstrip(".")
    named = _NAMED_FIELD.fullmatch(text)
    if named:
        text = "is required" if named["missing"] else "unknown field"
        path = ".".join(filter(None, (path, _shown(named["field"]))))
    elif text.startswith("Invalid enum value"):  # it goes on to quote the value
        text = "is not one of the allowed values"
    else:
        text = _TYPES.sub(
            lambda match: _in_words(match[1]), text.replace("Expected", "must be").replace(", got", ", not")
        )
    return BadRequest(f"{path}: {text}" if path else text, param=path or None)


def _in_words(types: str) -> str:
    return " or ".join(_WORDS.get(name, name) for name in types.split(" | "))


def _shown(name: str) -> str:
    """A caller's own name for something, short and on one line."""
    name = name if name.isprintable() else ascii(name)[1:-1]
    return name if len(name) <= MAX_SHOWN_CHARS else name[:MAX_SHOWN_CHARS] + "…"


def read_wishes(headers: Iterable[tuple[bytes, bytes]]) -> Wishes:
    """What the caller asks of the routing in `X-Provider` and `X-No-Failover`; names are in lower case, as in ASGI."""
    provider, no_failover = "", "false"
    for name, value in headers:
        if name == b"x-provider":
            provider = value.decode("latin-1").strip()
        elif name == b"x-no-failover":
            no_failover = value.decode("latin-1").strip().lower()
    if no_failover not in ("true", "false"):
        raise BadRequest("X-No-Failover: must be true or false", param="X-No-Failover")
    return Wishes(provider or None, failover=no_failover != "true")


def cors_headers(origin: str | None, allowed: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The CORS headers of a response to a page of `origin`; none where no origin is configured."""
    if allowed:
        yield "Vary", "Origin"
    if origin in allowed:
        yield "Access-Control-Allow-Origin", str(origin)
        yield "Access-Control-Expose-Headers", EXPOSED_HEADERS


def preflight_headers(
    origin: str | None, allowed: frozenset[str], methods: str, asked: str
) -> Iterator[tuple[str, str]]:
    """What a preflight adds: the methods of the route, and the headers it asked for, whatever they are."""
    if origin in allowed:
        yield "Access-Control-Allow-Methods", methods
        yield "Access-Control-Max-Age", str(PREFLIGHT_CACHE_S)
        if _HEADER_NAMES.fullmatch(asked):
            yield "Access-Control-Allow-Headers", asked


def is_deeper_than(body: bytes, limit: int) -> bool:
    """Whether the JSON text nests arrays and objects deeper than `limit`, at the cost of a few passes in C.

    Text that is not JSON gives either answer: the parser refuses it in any case.
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    outside_strings = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = outside_strings.translate(_STEPS, _NOT_BRACKETS)
    return b"\x01" * (limit + 1) in steps or max(accumulate(array("b", steps)), default=0) > limit


def _check_type(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charsets = [
        value
        for name, _, value in (part.partition("=") for part in parameters.lower().split(";"))
        if name.strip() == "charset"
    ]
    if kind.strip().lower() != "application/json":
        raise UnsupportedMediaType
    if any(charset.strip(' "') not in ("utf-8", "utf8", "us-ascii") for charset in charsets):
        raise UnsupportedMediaType
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType


async def _read_limited(request: Request) -> bytes:
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise PayloadTooLarge
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise PayloadTooLarge
            pieces.append(piece)
    except ClientDisconnect:
        raise ClientClosedRequest from None
    return b"".join(pieces)
