"""The stand-in for Secret Manager satisfies the real client, over REST."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceRestTransport,
)

from tests.secret_manager import SecretManager, crc32c, secret_manager


@contextlib.contextmanager
def real_client(endpoint: str) -> Iterator[SecretManagerServiceClient]:
    """Google's own client, pointed at the stand-in."""
    transport = SecretManagerServiceRestTransport(
        host=endpoint.removeprefix("http://"),
        url_scheme="http",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
    )
    with SecretManagerServiceClient(transport=transport) as client:
        yield client


def read(client: SecretManagerServiceClient, secret: str, version: str = "latest") -> tuple[str, str]:
    """Value and resolved name of a secret, in one attempt; verifies the checksum."""
    name = f"projects/p/secrets/{secret}/versions/{version}"
    answer = client.access_secret_version(name=name, retry=None, timeout=5)
    assert answer.payload.data_crc32c == crc32c(answer.payload.data)
    return answer.payload.data.decode(), answer.name


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; fails after 10 s."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not so within 10 s")


@pytest.fixture
async def manager() -> AsyncIterator[SecretManager]:
    """A stand-in without secrets."""
    async with secret_manager() as running:
        yield running


def test_the_checksum_is_castagnoli() -> None:
    """The checksum gives the standard's check value."""
    assert crc32c(b"123456789") == 0xE3069283


async def test_the_real_client_reads_latest_and_pinned_versions(manager: SecretManager) -> None:
    """`latest` is the newest version, and an older one stays readable by number."""
    manager.put("key", "old")
    manager.put("key", "néw")
    with real_client(manager.endpoint) as client:
        assert read(client, "key") == ("néw", "projects/p/secrets/key/versions/2")
        assert read(client, "key", "1") == ("old", "projects/p/secrets/key/versions/1")
    assert manager.accesses == [
        "/v1/projects/p/secrets/key/versions/latest:access",
        "/v1/projects/p/secrets/key/versions/1:access",
    ]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, exceptions.Forbidden),
        (429, exceptions.TooManyRequests),
        (500, exceptions.InternalServerError),
        (503, exceptions.ServiceUnavailable),
    ],
)
async def test_failures_reach_the_real_client_as_its_own_exceptions(
    manager: SecretManager, status: int, expected: type[Exception]
) -> None:
    """An ordered failure is Google-shaped, and ends when it is taken back."""
    manager.put("key", "value")
    manager.fail_with = status
    with real_client(manager.endpoint) as client:
        with pytest.raises(expected, match="as it was told"):
            read(client, "key")
        manager.fail_with = None
        assert read(client, "key")[0] == "value"


async def test_missing_and_disabled_secrets_fail_as_googles_do(manager: SecretManager) -> None:
    """No such secret is NotFound, a disabled version FailedPrecondition (400 over REST)."""
    manager.disable("key", manager.put("key", "value"))
    with real_client(manager.endpoint) as client:
        with pytest.raises(exceptions.NotFound):
            read(client, "other")
        with pytest.raises(exceptions.BadRequest, match="DISABLED"):
            read(client, "key")


async def test_down_refuses_and_up_serves_again_on_the_same_port(manager: SecretManager) -> None:
    """An outage is a refused connection, and the same client recovers after it."""
    manager.put("key", "value")
    with real_client(manager.endpoint) as client:
        assert read(client, "key")[0] == "value"
        manager.down()
        with pytest.raises(OSError, match="refused"):
            read(client, "key")
        manager.up()
        assert read(client, "key")[0] == "value"


async def test_a_delayed_answer_does_not_keep_the_stand_in_from_stopping(manager: SecretManager) -> None:
    """`down()` drops the clients that are waiting for a delayed answer."""
    manager.put("key", "value")
    manager.delay_s = 60
    with real_client(manager.endpoint) as client:
        reading = asyncio.create_task(asyncio.to_thread(read, client, "key"))
        await until(lambda: bool(manager.accesses))
        manager.down()
        with pytest.raises((OSError, exceptions.GoogleAPICallError)):
            await reading
