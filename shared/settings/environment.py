"""Settings from the environment: read once, checked whole, and refused loudly by name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from shared.models import Route, Target
from shared.settings import fields
from shared.settings.addresses import api_address
from shared.settings.values import (
    KEYLESS,
    BreakerPolicy,
    Deployment,
    Limits,
    ProviderSettings,
    RetryPolicy,
    Serving,
    SettingsError,
    alone,
)

T = TypeVar("T")

_log = logging.getLogger("echo_brain.settings")

# The mock's faults are asked for by name: they are shown as they are, and nobody is to be spared.
_UNSPARED: Final = (RetryPolicy(max_retries=0), BreakerPolicy(threshold=sys.maxsize))
BUILT_IN: Final = (*KEYLESS, "openai")  # what ECHO_BRAIN_PROVIDER may name without a configuration file


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the process is told from outside."""

    serving: Serving = field(default_factory=alone)
    deployment: Deployment = field(default_factory=Deployment)
    project: str | None = None  # the Google Cloud project, for short secret names and trace links
    secret_manager_endpoint: str | None = None
    secret_cache_ttl_s: float = 300.0
    cors_allow_origins: frozenset[str] = frozenset()
    log_level: str = "INFO"

    @staticmethod
    def from_env(environ: Mapping[str, str]) -> Settings:
        """Reads and checks the environment and the file it names; raises `SettingsError` for what is wrong."""
        read = _Reader(environ)
        return Settings(
            serving=_serving(read, environ),
            deployment=Deployment(
                env=read("APP_ENV", fields.text, "unknown"),
                git_sha=read("GIT_SHA", fields.text, "unknown"),
                build_time=read("BUILD_TIME", fields.text, "unknown"),
            ),
            project=read("GOOGLE_CLOUD_PROJECT", fields.text, None),
            secret_manager_endpoint=read("SECRET_MANAGER_ENDPOINT", fields.url, None),
            secret_cache_ttl_s=read("SECRET_CACHE_TTL", fields.seconds, 300.0),
            cors_allow_origins=read("CORS_ALLOW_ORIGINS", fields.origins, frozenset()),
            log_level=read("LOG_LEVEL", fields.log_level, "INFO"),
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


def _serving(read: _Reader, environ: Mapping[str, str]) -> Serving:
    pinned = read("ECHO_BRAIN_PROVIDER", fields.text, None)
    required = read("ECHO_REQUIRE_OPENAI", fields.boolean, False)
    serving = _chosen(read, environ, pinned)
    if required and all(provider.vendor in KEYLESS for provider in serving.providers):
        raise SettingsError(
            f"ECHO_REQUIRE_OPENAI: refuses to start on '{serving.providers[0].name}'; set OPENAI_API_KEY or "
            "OPENAI_API_KEY_SECRET, and ECHO_BRAIN_PROVIDER to openai or not at all"
        )
    return serving


def _chosen(read: _Reader, environ: Mapping[str, str], pinned: str | None) -> Serving:
    if pinned in KEYLESS:  # to roll back must work, whatever is wrong with the rest
        return alone(ProviderSettings(name=pinned, vendor=pinned, retries=_UNSPARED[0], breaker=_UNSPARED[1]))
    path = read("ECHO_BRAIN_CONFIG", fields.text, None)
    if path is None:
        return alone(_from_environment_only(read, pinned))
    from shared.settings.file import read_config  # YAML is loaded only by those who have a file

    try:
        serving = read_config(path, environ, pinned)
    except SettingsError as error:
        if pinned != "openai" or not _has_key(read):
            raise
        _log.warning("%s; serving with the environment's settings alone", error)
        return alone(_from_environment_only(read, pinned))
    names = [provider.name for provider in serving.providers]
    if pinned is None:
        return serving
    if pinned in names:
        return _only(pinned, serving)
    if pinned == "openai":
        return alone(_from_environment_only(read, pinned))
    known = ", ".join(dict.fromkeys((*names, *BUILT_IN)))
    raise SettingsError(f"ECHO_BRAIN_PROVIDER: must be one of {known}: those of {path}, and the built-in ones")


def _only(name: str, serving: Serving) -> Serving:
    """One provider for every name that was routed before: callers notice nothing of a rollback but the answers."""
    own = (Target(name),)
    routes = {
        alias: Route(tuple(target for target in route.targets if target.provider == name) or own)
        for alias, route in serving.routes.items()
    }
    kept = tuple(p for p in serving.providers if p.name == name)
    set_aside = frozenset(p.name for p in serving.providers if p.name != name)
    return Serving(kept, routes, serving.max_in_flight, set_aside)


def _has_key(read: _Reader) -> bool:
    return bool(read("OPENAI_API_KEY", fields.key, "") or read("OPENAI_API_KEY_SECRET", fields.secret_name, None))


def _from_environment_only(read: _Reader, pinned: str | None) -> ProviderSettings:
    if pinned not in (None, *BUILT_IN):
        raise SettingsError(
            f"ECHO_BRAIN_PROVIDER: must be one of {', '.join(BUILT_IN)}, or a provider of the file that "
            "ECHO_BRAIN_CONFIG names"
        )
    key = read("OPENAI_API_KEY", fields.key, "")
    secret = read("OPENAI_API_KEY_SECRET", fields.secret_name, None)
    if key or secret:
        return _openai(read, key, secret)
    if pinned is not None:
        raise SettingsError("ECHO_BRAIN_PROVIDER: openai needs OPENAI_API_KEY or OPENAI_API_KEY_SECRET")
    return ProviderSettings()


def _openai(read: _Reader, key: str, secret: str | None) -> ProviderSettings:
    limits, retries = Limits(), RetryPolicy()
    return ProviderSettings(
        name="openai",
        vendor="openai",
        model=read("OPENAI_MODEL", fields.model, "gpt-4.1-mini"),
        base_url=read("OPENAI_BASE_URL", api_address, None),
        api_key=key,
        api_key_secret=None if key else secret,
        max_tokens=read("OPENAI_MAX_TOKENS", fields.count, 4096),
        limits=Limits(
            request_s=read("OPENAI_TIMEOUT", fields.seconds, limits.request_s),
            streaming_s=read("OPENAI_STREAMING_TIMEOUT", fields.seconds, limits.streaming_s),
        ),
        retries=RetryPolicy(max_retries=read("OPENAI_MAX_RETRIES", fields.retries, retries.max_retries)),
    )
