"""All providers of this process, by name."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final

from shared.errors import EchoBrainError, InternalError, UpstreamTimeout
from shared.models import ProviderHealth
from shared.providers.base import Provider

HEALTH_TIMEOUT_S: Final = 5.0

_log = logging.getLogger("echo_brain.providers")


class Registry:
    """The providers in the order they were given."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = dict(providers)

    def names(self) -> list[str]:
        """The providers' names, in their order."""
        return list(self._providers)

    def get(self, name: str) -> Provider:
        """The provider of that name; raises `KeyError` where there is none."""
        return self._providers[name]

    async def health_check_all(self, timeout_s: float = HEALTH_TIMEOUT_S) -> dict[str, ProviderHealth]:
        """Every provider's health, all asked at the same time and each for `timeout_s` at most; never raises."""
        healths = await asyncio.gather(*(_health(provider, timeout_s) for provider in self._providers.values()))
        return dict(zip(self._providers, healths, strict=True))

    async def aclose(self) -> None:
        """Closes every provider, also those behind one that cannot be closed."""
        closings = (provider.aclose() for provider in self._providers.values())
        for name, outcome in zip(self._providers, await asyncio.gather(*closings, return_exceptions=True), strict=True):
            if isinstance(outcome, BaseException):
                _log.warning("provider %s could not be closed (%s)", name, type(outcome).__name__)


async def _health(provider: Provider, timeout_s: float) -> ProviderHealth:
    """The provider's own word, or the code of what came instead of it."""
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            return await provider.health()
    except TimeoutError:
        code = UpstreamTimeout.code
    except EchoBrainError as error:
        code = error.code
    except Exception as error:  # noqa: BLE001 - one provider's bug must not hide the health of the others
        _log.warning("the health of %s could not be asked (%s)", provider.name, type(error).__name__)
        code = InternalError.code
    return ProviderHealth(healthy=False, latency_ms=(time.monotonic() - started_s) * 1000, error=code)
