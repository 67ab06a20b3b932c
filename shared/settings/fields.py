"""How the text of a setting becomes a value; `ValueError` says what is allowed and never quotes the text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, urlsplit

MAX_RETRIES: Final = 10
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+\-]{0,199}")
SECRET_NAME: Final = re.compile(
    r"(?:projects/(?P<project>[a-z0-9:.\-]+)/secrets/)?(?P<secret>[A-Za-z0-9_\-]{1,255})"
    r"(?:/versions/(?P<version>[A-Za-z0-9_\-]+))?"
)


def text(raw: str) -> str:
    if not raw.isprintable():
        raise ValueError("must be printable text on one line")
    return raw


def model(raw: str) -> str:
    if MODEL_NAME.fullmatch(raw) is None:
        raise ValueError("must be a name of at most 200 letters, digits and . _ : / @ + -")
    return raw


def key(raw: str) -> str:
    if not (raw.isascii() and raw.isprintable()):
        raise ValueError("must be printable ASCII text on one line")
    return raw


def secret_name(raw: str) -> str:
    if SECRET_NAME.fullmatch(raw) is None:
        raise ValueError("must be projects/P/secrets/S, projects/P/secrets/S/versions/V, S or S/versions/V")
    return raw


def one_of(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return raw

    return parse


def log_level(raw: str) -> str:
    return one_of(LOG_LEVELS)(raw.upper())


def boolean(raw: str) -> bool:
    word = raw.lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be true or false")


def seconds(raw: str) -> float:
    message = "must be a number of seconds greater than 0"
    try:
        value = float(raw)
    except ValueError:
        raise ValueError(message) from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(message)
    return value


def count(raw: str) -> int:
    if not (raw.isascii() and raw.isdigit() and len(raw) < 10 and int(raw) > 0):
        raise ValueError("must be a whole number greater than 0")
    return int(raw)


def retries(raw: str) -> int:
    if not (raw.isascii() and raw.isdigit() and len(raw) < 10 and int(raw) <= MAX_RETRIES):
        raise ValueError(f"must be a whole number from 0 to {MAX_RETRIES}")
    return int(raw)


def url(raw: str) -> str:
    parts = _split(raw)
    if parts is None or parts.scheme not in ("http", "https") or not raw.isprintable() or " " in raw:
        raise ValueError("must be an http:// or https:// address")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be an address without user, query or fragment")
    return raw.rstrip("/")


def _split(raw: str) -> SplitResult | None:
    """The parts of an address, or None where host or port is not one; urllib's own complaint would quote it."""
    try:
        parts = urlsplit(raw)
        known = parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if known else None


def origins(raw: str) -> frozenset[str]:
    return frozenset(_origin(part.strip()) for part in raw.split(",") if part.strip())


def _origin(raw: str) -> str:
    parts = _split(raw)
    exact = parts is not None and parts.scheme in ("http", "https") and f"{parts.scheme}://{parts.netloc}" == raw
    if not exact or "@" in raw or "*" in raw:
        raise ValueError("must be exact origins such as https://app.example.com, separated by commas")
    return raw
