"""Settings from the environment: read once, checked whole, and refused loudly by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

T = TypeVar("T")

LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PROVIDERS: Final = ("stub", "mock", "openai")
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+\-]{0,199}")
SECRET_NAME: Final = re.compile(
    r"(?:projects/(?P<project>[a-z0-9:.\-]+)/secrets/)?(?P<secret>[A-Za-z0-9_\-]{1,255})"
    r"(?:/versions/(?P<version>[A-Za-z0-9_\-]+))?"
)


class SettingsError(ValueError):
    """A setting is wrong; the message names it and says what is allowed. Its value is not shown: it may be a key."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a provider may take, in seconds. A silent stream is given up long before a slow one."""

    request_s: float = 60.0  # a whole answer that is not streamed
    streaming_s: float = 120.0  # a whole stream
    connect_s: float = 10.0
    first_token_s: float = 30.0  # pings and empty chunks are not tokens
    idle_s: float = 15.0  # between two tokens


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One provider. The key is either here or, by its secret's name, in Secret Manager."""

    name: str = "stub"
    vendor: str = "stub"
    model: str | None = None  # None: any name is served
    base_url: str | None = None  # None: the vendor's
    api_key: str = field(default="", repr=False)
    api_key_secret: str | None = None
    max_tokens: int = 4096
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is shown of the running revision."""

    env: str = "unknown"
    git_sha: str = "unknown"
    build_time: str = "unknown"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the process is told from outside."""

    provider: ProviderSettings = ProviderSettings()
    deployment: Deployment = Deployment()
    project: str | None = None  # the Google Cloud project, for short secret names and trace links
    secret_manager_endpoint: str | None = None
    secret_cache_ttl_s: float = 300.0
    cors_allow_origins: frozenset[str] = frozenset()
    log_level: str = "INFO"

    @staticmethod
    def from_env(environ: Mapping[str, str]) -> Settings:
        """Reads and checks the environment; raises `SettingsError` for the first variable that is wrong."""
        read = _Reader(environ)
        return Settings(
            provider=_provider(read),
            deployment=Deployment(
                env=read("APP_ENV", _text, "unknown"),
                git_sha=read("GIT_SHA", _text, "unknown"),
                build_time=read("BUILD_TIME", _text, "unknown"),
            ),
            project=read("GOOGLE_CLOUD_PROJECT", _text, None),
            secret_manager_endpoint=read("SECRET_MANAGER_ENDPOINT", _url, None),
            secret_cache_ttl_s=read("SECRET_CACHE_TTL", _seconds, 300.0),
            cors_allow_origins=read("CORS_ALLOW_ORIGINS", _origins, frozenset()),
            log_level=read("LOG_LEVEL", _log_level, "INFO"),
        )


class _Reader:
    """Looks variables up; an empty one counts as unset, as Terraform and CI tend to set them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __call__(self, name: str, parse: Callable[[str], T], default: T) -> T:
        raw = self._environ.get(name, "").strip()
        if not raw:
            return default
        try:
            return parse(raw)
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from None


def _provider(read: _Reader) -> ProviderSettings:
    pinned = read("ECHO_BRAIN_PROVIDER", _one_of(PROVIDERS), None)
    required = read("ECHO_REQUIRE_OPENAI", _boolean, False)
    key, secret = "", None
    if pinned in (None, "openai"):  # to roll back must work, whatever is wrong with the rest
        if read("ECHO_BRAIN_CONFIG", _text, None):
            raise SettingsError("ECHO_BRAIN_CONFIG: configuration files are not supported by this version")
        key = read("OPENAI_API_KEY", _key, "")
        secret = read("OPENAI_API_KEY_SECRET", _secret_name, None)
    name = pinned or ("openai" if key or secret else "stub")
    if name != "openai":
        if required:
            raise SettingsError(
                f"ECHO_REQUIRE_OPENAI: refuses to start on '{name}'; set OPENAI_API_KEY or OPENAI_API_KEY_SECRET, "
                "and ECHO_BRAIN_PROVIDER to openai or not at all"
            )
        return ProviderSettings(name=name, vendor=name)
    if not (key or secret):
        raise SettingsError("ECHO_BRAIN_PROVIDER: openai needs OPENAI_API_KEY or OPENAI_API_KEY_SECRET")
    return _openai(read, key, secret)


def _openai(read: _Reader, key: str, secret: str | None) -> ProviderSettings:
    defaults = Limits()
    return ProviderSettings(
        name="openai",
        vendor="openai",
        model=read("OPENAI_MODEL", _model, "gpt-4.1-mini"),
        base_url=read("OPENAI_BASE_URL", _url, None),
        api_key=key,
        api_key_secret=None if key else secret,
        max_tokens=read("OPENAI_MAX_TOKENS", _count, 4096),
        limits=Limits(
            request_s=read("OPENAI_TIMEOUT", _seconds, defaults.request_s),
            streaming_s=read("OPENAI_STREAMING_TIMEOUT", _seconds, defaults.streaming_s),
        ),
    )


def _text(raw: str) -> str:
    if not raw.isprintable():
        raise ValueError("must be printable text on one line")
    return raw


def _model(raw: str) -> str:
    if MODEL_NAME.fullmatch(raw) is None:
        raise ValueError("must be a name of at most 200 letters, digits and . _ : / @ + -")
    return raw


def _key(raw: str) -> str:
    if not (raw.isascii() and raw.isprintable()):
        raise ValueError("must be printable ASCII text on one line")
    return raw


def _secret_name(raw: str) -> str:
    if SECRET_NAME.fullmatch(raw) is None:
        raise ValueError("must be projects/P/secrets/S, projects/P/secrets/S/versions/V, S or S/versions/V")
    return raw


def _one_of(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return raw

    return parse


def _log_level(raw: str) -> str:
    return _one_of(LOG_LEVELS)(raw.upper())


def _boolean(raw: str) -> bool:
    word = raw.lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be true or false")


def _seconds(raw: str) -> float:
    message = "must be a number of seconds greater than 0"
    try:
        value = float(raw)
    except ValueError:
        raise ValueError(message) from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(message)
    return value


def _count(raw: str) -> int:
    if not (raw.isascii() and raw.isdigit() and len(raw) < 10 and int(raw) > 0):
        raise ValueError("must be a whole number greater than 0")
    return int(raw)


def _url(raw: str) -> str:
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


def _origins(raw: str) -> frozenset[str]:
    return frozenset(_origin(part.strip()) for part in raw.split(",") if part.strip())


def _origin(raw: str) -> str:
    parts = _split(raw)
    exact = parts is not None and parts.scheme in ("http", "https") and f"{parts.scheme}://{parts.netloc}" == raw
    if not exact or "@" in raw or "*" in raw:
        raise ValueError("must be exact origins such as https://app.example.com, separated by commas")
    return raw
