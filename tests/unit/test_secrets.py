"""Secrets: names, the cache with its single flight, and the real Secret Manager client over a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from google.api_core import exceptions

from shared.errors import NotReady
from shared.secrets import (
    COLD_READ_TIMEOUT_S,
    RETRY_AFTER_FAILURE_S,
    WARM_READ_TIMEOUT_S,
    CachedSecret,
    FixedSecret,
    SecretManagerReader,
    version_name,
)
from shared.settings import SettingsError
from tests.secret_manager import SecretManager, secret_manager
from tests.unit.fakes import Clock, FakeReader, until

TTL_S = 300.0
DOWN = ConnectionError("Secret Manager cannot be reached")


def cached(reader: FakeReader, clock: Clock | None = None) -> CachedSecret:
    """A cached secret over a fake reader."""
    return CachedSecret(reader, TTL_S, clock or Clock())


@pytest.mark.parametrize(
    ("name", "project", "expected"),
    [
        ("projects/p/secrets/k", None, "projects/p/secrets/k/versions/latest"),
        ("projects/p/secrets/k", "other", "projects/p/secrets/k/versions/latest"),
        ("projects/p/secrets/k/versions/7", None, "projects/p/secrets/k/versions/7"),
        ("projects/p/secrets/k/versions/latest", None, "projects/p/secrets/k/versions/latest"),
        ("k", "p-1", "projects/p-1/secrets/k/versions/latest"),
        ("k/versions/3", "p-1", "projects/p-1/secrets/k/versions/3"),
        ("projects/example.com:p/secrets/k_1-2", None, "projects/example.com:p/secrets/k_1-2/versions/latest"),
    ],
)
def test_a_secrets_name_is_completed(name: str, project: str | None, expected: str) -> None:
    """Project and version may be left out; a project in the name goes before the environment's."""
    assert version_name(name, project) == expected


@pytest.mark.parametrize("project", [None, ""])
def test_a_short_name_needs_a_project(project: str | None) -> None:
    """Without one the message says what to set."""
    with pytest.raises(SettingsError, match=r"^OPENAI_API_KEY_SECRET: .*GOOGLE_CLOUD_PROJECT"):
        version_name("k", project)


async def test_a_fixed_secret_is_always_the_same() -> None:
    """A refused key of the environment has no newer one."""
    secret = FixedSecret("sk-1")
    assert (await secret.get(), await secret.refresh("sk-1")) == ("sk-1", "sk-1")


async def test_a_value_is_believed_for_its_time() -> None:
    """One read serves until the time is over, the next one brings the new value."""
    reader, clock = FakeReader("old", "new"), Clock()
    secret = cached(reader, clock)
    assert [await secret.get() for _ in range(3)] == ["old"] * 3
    clock.pass_s(TTL_S - 1)
    assert (await secret.get(), reader.reads) == ("old", 1)
    clock.pass_s(1)
    assert (await secret.get(), reader.reads) == ("new", 2)


async def test_a_hundred_callers_are_one_read() -> None:
    """Callers that come while a read is under way wait for it instead of reading."""
    reader = FakeReader("value")
    reader.gate.clear()
    secret = cached(reader)
    callers = [asyncio.create_task(secret.get()) for _ in range(100)]
    await until(lambda: reader.reads)
    reader.gate.set()
    assert await asyncio.gather(*callers) == ["value"] * 100
    assert reader.reads == 1


async def test_the_loop_is_not_held_up_by_a_read() -> None:
    """The blocking client runs in a thread: other requests go on meanwhile."""
    reader = FakeReader("value")
    reader.gate.clear()
    caller = asyncio.create_task(cached(reader).get())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not caller.done()
    reader.gate.set()
    assert await caller == "value"


async def test_a_refused_value_is_read_anew_once() -> None:
    """Upstream's 401 lets the secret be read at once, and the new value serves everybody."""
    reader = FakeReader("old", "new")
    secret = cached(reader)
    assert await secret.get() == "old"
    assert await secret.refresh("old") == "new"
    assert await secret.get() == "new"
    assert reader.reads == 2


async def test_a_value_that_is_refused_again_is_not_read_again_within_its_time() -> None:
    """A key that is simply wrong does not hammer Secret Manager; after its time it is read again."""
    reader, clock = FakeReader("wrong"), Clock()
    secret = cached(reader, clock)
    await secret.get()
    assert [await secret.refresh("wrong") for _ in range(5)] == ["wrong"] * 5
    assert reader.reads == 2
    clock.pass_s(TTL_S)
    await secret.refresh("wrong")
    assert reader.reads == 3


async def test_a_refusal_of_a_value_long_replaced_reads_nothing() -> None:
    """A slow request that comes back with an old key's 401 gets the newer key without a read."""
    reader = FakeReader("old", "new", "never")
    secret = cached(reader)
    await secret.get()
    await secret.refresh("old")
    assert await secret.refresh("old") == "new"
    assert reader.reads == 2


async def test_all_callers_refused_at_once_get_the_new_value_from_one_read() -> None:
    """After a rotation every request under way comes back with a 401; none may be left with the old key."""
    reader = FakeReader("old", "new", "never")
    secret = cached(reader)
    await secret.get()
    reader.gate.clear()
    callers = [asyncio.create_task(secret.refresh("old")) for _ in range(20)]
    await until(lambda: reader.reads == 2)
    reader.gate.set()
    assert await asyncio.gather(*callers) == ["new"] * 20
    assert reader.reads == 2


async def test_two_rotations_within_the_time_are_both_followed() -> None:
    """Each newly refused value is read for once, however soon after the last one."""
    reader = FakeReader("one", "two", "three")
    secret = cached(reader)
    await secret.get()
    assert await secret.refresh("one") == "two"
    assert await secret.refresh("two") == "three"


async def test_the_old_value_serves_while_secret_manager_is_down() -> None:
    """A failed read keeps the value, is not repeated before a pause, and repeated after it."""
    reader, clock = FakeReader("old", DOWN, DOWN, "new"), Clock()
    secret = cached(reader, clock)
    await secret.get()
    clock.pass_s(TTL_S)
    assert [await secret.get() for _ in range(3)] == ["old"] * 3
    assert reader.reads == 2
    clock.pass_s(RETRY_AFTER_FAILURE_S)
    assert (await secret.get(), reader.reads) == ("old", 3)
    clock.pass_s(RETRY_AFTER_FAILURE_S)
    assert (await secret.get(), reader.reads) == ("new", 4)


async def test_a_refused_value_is_kept_when_it_cannot_be_read_anew() -> None:
    """A 401 while Secret Manager is down gives the same value again, and a later read heals it."""
    reader, clock = FakeReader("old", DOWN, "new"), Clock()
    secret = cached(reader, clock)
    await secret.get()
    assert await secret.refresh("old") == "old"
    clock.pass_s(RETRY_AFTER_FAILURE_S)
    assert await secret.get() == "new"


async def test_down_at_cold_start_is_not_ready_and_heals_by_itself() -> None:
    """Nothing to serve on with is `NotReady`; the first read that succeeds ends it."""
    reader = FakeReader(DOWN, DOWN, "value")
    secret = cached(reader)
    for _ in range(2):
        with pytest.raises(NotReady):
            await secret.get()
    assert await secret.get() == "value"


async def test_all_callers_of_a_cold_start_share_its_failure() -> None:
    """They wait for one read and are all told the same."""
    reader = FakeReader(DOWN)
    reader.gate.clear()
    secret = cached(reader)
    callers = [asyncio.create_task(secret.get()) for _ in range(10)]
    await until(lambda: reader.reads)
    reader.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(result, NotReady) for result in results)
    assert reader.reads == 1


async def test_a_caller_that_gives_up_does_not_end_the_read_for_the_others() -> None:
    """A client that leaves during the first read takes nobody with it."""
    reader = FakeReader("value")
    reader.gate.clear()
    secret = cached(reader)
    first, second = (asyncio.create_task(secret.get()) for _ in range(2))
    await until(lambda: reader.reads)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    reader.gate.set()
    assert (await second, reader.reads) == ("value", 1)


async def test_a_read_is_waited_for_longer_when_there_is_nothing_to_serve_on_with() -> None:
    """Cold reads have more time than those that an old value can bridge."""
    reader, clock = FakeReader("value"), Clock()
    secret = cached(reader, clock)
    await secret.get()
    clock.pass_s(TTL_S)
    await secret.get()
    assert reader.timeouts_s == [COLD_READ_TIMEOUT_S, WARM_READ_TIMEOUT_S]


async def test_a_failed_read_is_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """The log says that and why by class; what the client says may quote anything."""
    with pytest.raises(NotReady):
        await cached(FakeReader(ValueError("canary-4711"))).get()
    assert "ValueError" in caplog.text
    assert "canary" not in caplog.text


@pytest.fixture
async def manager() -> AsyncIterator[SecretManager]:
    """A stand-in with one secret of two versions."""
    async with secret_manager() as running:
        running.put("key", "sk-old")
        running.put("key", "sk-new")
        yield running


def reader_of(manager: SecretManager, name: str = "projects/p/secrets/key", project: str | None = None) -> str:
    """What the real client reads, within 10 s."""
    return SecretManagerReader(name, project, manager.endpoint)(10.0)


async def test_the_real_client_reads_latest_pinned_and_short_names(manager: SecretManager) -> None:
    """Each form of a name asks Secret Manager for the version it means."""
    assert reader_of(manager) == "sk-new"
    assert reader_of(manager, "projects/p/secrets/key/versions/1") == "sk-old"
    assert reader_of(manager, "key", "my-project") == "sk-new"
    assert manager.accesses == [
        "/v1/projects/p/secrets/key/versions/latest:access",
        "/v1/projects/p/secrets/key/versions/1:access",
        "/v1/projects/my-project/secrets/key/versions/latest:access",
    ]


async def test_one_reader_reads_again_and_again(manager: SecretManager) -> None:
    """The client is kept, and sees a rotation."""
    reader = SecretManagerReader("key", "p", manager.endpoint)
    assert reader(10.0) == "sk-new"
    manager.put("key", "sk-newer")
    assert reader(10.0) == "sk-newer"


async def test_white_space_around_a_key_is_stripped(manager: SecretManager) -> None:
    """A newline at the end, as `echo` leaves it, is not part of a key."""
    manager.put("key", "  sk-with-newline\r\n")
    assert reader_of(manager) == "sk-with-newline"


@pytest.mark.parametrize("value", ["", " \n", "two\nlines", "\x00", "sk-\x1b[31m", "sk-schlüssel"])
async def test_a_secret_that_cannot_be_a_key_is_refused(manager: SecretManager, value: str) -> None:
    """Empty or not printable: the message names the setting and not the value."""
    manager.put("key", value)
    with pytest.raises(SettingsError, match=r"^OPENAI_API_KEY_SECRET: ") as caught:
        reader_of(manager)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, exceptions.Forbidden),
        (404, exceptions.NotFound),
        (429, exceptions.TooManyRequests),
        (500, exceptions.InternalServerError),
        (503, exceptions.ServiceUnavailable),
    ],
)
async def test_a_refusal_is_one_access(manager: SecretManager, status: int, expected: type[Exception]) -> None:
    """The client's own retries are off: whoever waits decides whether to try again."""
    manager.fail_with = status
    with pytest.raises(expected):
        reader_of(manager)
    assert len(manager.accesses) == 1


async def test_an_answer_that_does_not_come_is_given_up(manager: SecretManager) -> None:
    """The read ends by its timeout, long before the answer."""
    manager.delay_s = 3600.0
    started_s = time.monotonic()
    with pytest.raises(Exception, match=r"(?i)timed? ?out|deadline"):
        SecretManagerReader("key", "p", manager.endpoint)(0.2)
    assert time.monotonic() - started_s < manager.delay_s


async def test_the_whole_of_it_recovers_from_a_cold_start_without_secret_manager(manager: SecretManager) -> None:
    """Cache, thread and real client together: refused connection, then the value, without a new client."""
    secret = CachedSecret(SecretManagerReader("key", "p", manager.endpoint), TTL_S)
    manager.down()
    with pytest.raises(NotReady):
        await secret.get()
    manager.up()
    assert await secret.get() == "sk-new"
