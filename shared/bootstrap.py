"""The composition root: the only place that names concrete classes and reads the environment."""

from __future__ import annotations

import gc
import os
import random
import time
from functools import cache

from shared.api.endpoints import Endpoints
from shared.gateway import Gateway
from shared.providers.base import Provider
from shared.providers.google_credentials import GoogleTokenReader
from shared.providers.mock import Mock
from shared.providers.registry import Registry
from shared.providers.stub import Stub
from shared.providers.vendors import VENDORS
from shared.secrets import CachedSecret, FixedSecret, SecretManagerReader, SecretSource
from shared.settings import ProviderSettings, Settings
from shared.telemetry import logs


def check_settings() -> Settings:
    """The settings of this process; raises `SettingsError` when it starts, so that a wrong deployment never serves."""
    return Settings.from_env(os.environ)


@cache
def endpoints() -> Endpoints:
    """The endpoints of this process, built on first use: after the fork, in the loop that serves."""
    settings = check_settings()
    logs.configure(settings.log_level, settings.project)
    return build(settings)


def build(settings: Settings) -> Endpoints:
    """Puts the parts together; opens nothing."""
    gc.disable()  # a collection while modules load only walks objects that stay
    try:
        keys = {provider.name: _key(provider, settings) for provider in settings.serving.providers}
        registry = Registry({p.name: _provider(p, keys[p.name]) for p in settings.serving.providers})
    finally:
        gc.freeze()  # what is loaded now lives as long as the process: collections need not walk it
        gc.enable()
    gateway = Gateway(registry, settings.serving, keys, random.Random(), time.monotonic)  # noqa: S311 - no secret
    return Endpoints(gateway, settings)


def _key(provider: ProviderSettings, settings: Settings) -> SecretSource:
    if provider.vendor == "vertex":
        return CachedSecret(GoogleTokenReader(), settings.secret_cache_ttl_s)
    name = provider.api_key_secret
    if name is None:
        return FixedSecret(provider.api_key)
    reader = SecretManagerReader(name, settings.project, settings.secret_manager_endpoint)
    return CachedSecret(reader, settings.secret_cache_ttl_s)


def _provider(settings: ProviderSettings, key: SecretSource) -> Provider:
    if settings.vendor == "stub":
        return Stub(settings.name, settings.model)
    if settings.vendor == "mock":
        return Mock(settings.name, settings.model, settings.pace)
    # On the stub none of these modules is needed, and they are most of a cold start.
    from shared.providers.slim_import import defer_sdk_types

    defer_sdk_types()
    from shared.providers.openai_compatible import OpenAICompatible

    return OpenAICompatible(settings, VENDORS[settings.vendor], key)
