"""Access tokens of the Google credentials that the process finds where it runs: for Vertex AI, which takes no key."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from shared.secrets import Lease

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
EARLY_S: Final = 225.0  # the metadata server hands out the same token until some four minutes before its end
SHORTEST_S: Final = 10.0  # a token that is nearly over is not asked for anew with every request
BETWEEN_S: Final = 60.0  # nor one that upstream refuses because a permission is missing


class GoogleTokenReader:
    """Reads an access token, blocking: for `CachedSecret`, which calls it in a thread and one call at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._credentials: Credentials | None = None
        self._read: tuple[Lease, float] | None = None  # the last one, and since when

    def __call__(self, timeout_s: float) -> Lease:
        """A token and how long it holds; raises what google-auth raises. Each exchange may take `timeout_s`."""
        now_s = self._clock()
        if self._read is not None and now_s < self._read[1] + min(BETWEEN_S, self._read[0].lasts_s):
            return self._read[0]
        self._read = (self._mint(timeout_s), now_s)
        return self._read[0]

    def _mint(self, timeout_s: float) -> Lease:
        import google.auth  # loaded by those who have a Vertex provider, with their first request
        from google.auth.transport.requests import Request

        if self._credentials is None:
            self._credentials = google.auth.default(scopes=[SCOPE])[0]
        asking = functools.partial(Request(), timeout=timeout_s)
        self._credentials.refresh(asking)  # type: ignore[no-untyped-call]
        return Lease(str(self._credentials.token), _lasts_s(self._credentials.expiry))


def _lasts_s(expiry: datetime | None) -> float:
    """How long a token is believed; google-auth's times are UTC without saying so."""
    if expiry is None:
        return BETWEEN_S
    left_s = (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    return max(SHORTEST_S, left_s - EARLY_S)
