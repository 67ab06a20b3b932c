"""Where a provider's key comes from: the environment, or Secret Manager behind a cache."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from shared.errors import NotReady
from shared.settings import SECRET_NAME, SettingsError

if TYPE_CHECKING:
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient

_log = logging.getLogger("echo_brain.secrets")

COLD_READ_TIMEOUT_S: Final = 5.0  # nothing to serve on with: worth a wait
WARM_READ_TIMEOUT_S: Final = 2.0  # there is an old value to serve on with
RETRY_AFTER_FAILURE_S: Final = 5.0  # how long the old value is believed after a failed re-read


class SecretSource(Protocol):
    """A secret that may change while the process runs."""

    async def get(self) -> str:
        """The value to use now; raises `NotReady` when none could ever be read."""
        ...

    async def refresh(self, rejected: str) -> str:
        """The value to use now that upstream has refused `rejected`; the same again if there is no newer one."""
        ...


class FixedSecret:
    """A secret that was given with the environment, or the empty one of a provider that needs none."""

    def __init__(self, value: str = "") -> None:
        self._value = value

    async def get(self) -> str:
        return self._value

    async def refresh(self, rejected: str) -> str:  # noqa: ARG002 - there is only one value
        return self._value


@dataclass(frozen=True, slots=True)
class Lease:
    """A secret that says itself for how long it may be believed, such as an access token."""

    value: str
    lasts_s: float


class CachedSecret:
    """A secret read through `read(timeout_s)`, a blocking call that runs in a thread.

    Believed for `ttl_s` seconds, or as long as a `Lease` says; read by one caller at a time while the others wait for
    it, and served on when a re-read fails. A value that upstream refuses is re-read at once, but only once within the
    same `ttl_s`.
    """

    def __init__(
        self, read: Callable[[float], str | Lease], ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._ttl_s = ttl_s
        self._clock = clock
        self._value: str | None = None
        self._believed_until_s = 0.0
        self._rejected: tuple[str, float] | None = None  # the value last re-read for, and until when that counts
        self._reading: asyncio.Task[None] | None = None

    async def get(self) -> str:
        if self._value is None or self._clock() >= self._believed_until_s:
            await self._read_once()
        if self._value is None:
            raise NotReady
        return self._value

    async def refresh(self, rejected: str) -> str:
        if self._value == rejected and not self._already_reread(rejected):
            self._rejected = (rejected, self._clock() + self._ttl_s)
            await self._read_once()
        elif self._value == rejected and self._reading is not None:  # another request's 401 has begun the read
            await asyncio.shield(self._reading)
        return await self.get()

    def _already_reread(self, rejected: str) -> bool:
        return self._rejected is not None and self._rejected[0] == rejected and self._clock() < self._rejected[1]

    async def _read_once(self) -> None:
        """Single flight: the first caller starts the read, all wait for it; one that gives up does not end it."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._reread())
        await asyncio.shield(self._reading)

    async def _reread(self) -> None:
        cold = self._value is None
        try:
            read = await asyncio.to_thread(self._read, COLD_READ_TIMEOUT_S if cold else WARM_READ_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - whatever the client raises, its text stays here
            self._believed_until_s = self._clock() + min(self._ttl_s, RETRY_AFTER_FAILURE_S)
            cause = str(error) if isinstance(error, SettingsError) else type(error).__name__
            _log.warning(
                "the provider's key could not be read (%s); %s", cause, "not ready" if cold else "old value kept"
            )
        else:
            lease = read if isinstance(read, Lease) else Lease(read, self._ttl_s)
            self._value = lease.value
            self._believed_until_s = self._clock() + lease.lasts_s


def version_name(name: str, project: str | None) -> str:
    """The full resource name of a secret's version; `name` may leave out the project and the version (latest)."""
    match = SECRET_NAME.fullmatch(name)
    if match is None or not (project := match["project"] or project):
        raise SettingsError(
            "OPENAI_API_KEY_SECRET: names no project; write projects/P/secrets/S or set GOOGLE_CLOUD_PROJECT"
        )
    return f"projects/{project}/secrets/{match['secret']}/versions/{match['version'] or 'latest'}"


class SecretManagerReader:
    """Reads one secret through the real client, blocking, over REST: no channel and no thread before a fork.

    `endpoint` is another address for Secret Manager; a plain http one is asked without credentials.
    """

    def __init__(self, name: str, project: str | None, endpoint: str | None) -> None:
        self._name = name
        self._project = project
        self._endpoint = endpoint
        self._client: SecretManagerServiceClient | None = None

    def __call__(self, timeout_s: float) -> str:
        """The secret's text without surrounding white space; raises what the client raises, or `ValueError`."""
        if self._client is None:
            self._client = _client(self._endpoint)
        answer = self._client.access_secret_version(
            name=version_name(self._name, self._find_project()), timeout=timeout_s, retry=None
        )
        value = answer.payload.data.decode("utf-8").strip()
        if not value or not (value.isascii() and value.isprintable()):
            raise SettingsError("OPENAI_API_KEY_SECRET: the secret's value is empty or not printable text")
        return value

    def _find_project(self) -> str | None:
        if self._project is None and not self._name.startswith("projects/"):
            import google.auth

            self._project = google.auth.default()[1]
        return self._project


def _client(endpoint: str | None) -> SecretManagerServiceClient:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports.rest import (
        SecretManagerServiceRestTransport,
    )

    if endpoint is None:
        return SecretManagerServiceClient(transport="rest")
    scheme, _, host = endpoint.partition("://")
    if scheme == "https":
        return SecretManagerServiceClient(transport="rest", client_options={"api_endpoint": host})
    nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]
    transport = SecretManagerServiceRestTransport(host=host, url_scheme=scheme, credentials=nobody)
    return SecretManagerServiceClient(transport=transport)
