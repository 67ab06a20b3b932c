"""Configuration files for the tests: written, read, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shared.settings import Serving, SettingsError
from shared.settings.file import read_config

KEY = "sk-canary-0123456789"
ENVIRONMENT = {"OPENAI_API_KEY": KEY, "OTHER_KEY": f" {KEY}-other\n", "EMPTY": " ", "BROKEN": f"{KEY}\nsecond"}


def serving(
    directory: Path, text: str | bytes, environ: Mapping[str, str] = ENVIRONMENT, pinned: str | None = None
) -> Serving:
    """What a file with that text says."""
    path = directory / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(str(path), environ, pinned)


def complaint(directory: Path, text: str | bytes, pinned: str | None = None) -> str:
    """What is said of a file that is wrong, without its path; nothing where it is right. It never has the key."""
    try:
        serving(directory, text, pinned=pinned)
    except SettingsError as error:
        message = str(error)
        start = f"ECHO_BRAIN_CONFIG: {directory / 'config.yaml'}"
        assert message.startswith(start)
        assert "canary" not in message
        return message.removeprefix(start).removeprefix(": ")
    return ""


def provider(text: str) -> str:
    """A file with the provider `a`, whose entry is given in flow style."""
    return f"providers:\n  a: {text}\n"


def mock(text: str) -> str:
    """A file with a mock that has more keys, one a line."""
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    return f"providers:\n  a:\n    type: mock\n{lines}"


def routes(text: str) -> str:
    """A file with the mocks `a` and `b` and these routes, in block style."""
    lines = "".join(f"  {line}\n" for line in text.splitlines())
    return f"providers:\n  a: {{type: mock, model: m}}\n  b: {{type: mock}}\nroutes:\n{lines}"


def target(text: str) -> str:
    """A file with one route to one target, in flow style."""
    return routes(f"fast: {{targets: [{text}]}}")
