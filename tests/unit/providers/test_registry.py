"""The registry: all providers asked at once, each for a time, and what goes wrong with one told as a code."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from shared.errors import ConnectionFailed, NotReady
from shared.models import ProviderHealth
from shared.providers.registry import Registry
from tests.unit.fakes import FakeProvider, until

WELL = ProviderHealth(healthy=True, latency_ms=1.0)
LONG_S = 3600.0


@dataclass
class Unwell(FakeProvider):
    """A provider whose health, or whose end, is an exception."""

    trouble: BaseException = field(default_factory=lambda: ValueError("sk-secret"))

    async def health(self) -> ProviderHealth:
        """Raises."""
        raise self.trouble

    async def aclose(self) -> None:
        """Notes that it was to be closed, and raises."""
        await super().aclose()
        raise self.trouble


@dataclass
class Meeting(FakeProvider):
    """A provider that is well once all others are being asked, too."""

    barrier: asyncio.Barrier = field(default_factory=lambda: asyncio.Barrier(1))

    async def health(self) -> ProviderHealth:
        """Waits for the others."""
        await self.barrier.wait()
        return WELL


def well(name: str) -> FakeProvider:
    """A provider that is well."""
    return FakeProvider(name=name, healths=[WELL])


def test_the_providers_are_there_by_name_in_their_order() -> None:
    """As the configuration has them."""
    providers = {name: well(name) for name in ("b", "a", "c")}
    registry = Registry(providers)
    assert registry.names() == ["b", "a", "c"]
    assert all(registry.get(name) is provider for name, provider in providers.items())
    with pytest.raises(KeyError):
        registry.get("d")


def test_it_is_not_changed_from_outside() -> None:
    """What it was given is copied."""
    providers = {"a": well("a")}
    registry = Registry(providers)
    providers.clear()
    assert registry.names() == ["a"]


async def test_all_are_asked_at_the_same_time() -> None:
    """Ten providers take as long as the slowest one."""
    barrier = asyncio.Barrier(10)
    registry = Registry({f"p{n}": Meeting(name=f"p{n}", barrier=barrier) for n in range(10)})
    assert await registry.health_check_all(30.0) == {f"p{n}": WELL for n in range(10)}


async def test_one_that_does_not_answer_is_given_up() -> None:
    """The others' health is there all the same; the time is the one that was waited."""
    slow = FakeProvider(name="slow", healths=[WELL], pause_s=LONG_S)
    healths = await Registry({"slow": slow, "quick": well("quick")}).health_check_all(0.05)
    assert healths["quick"] == WELL
    assert (healths["slow"].healthy, healths["slow"].error) == (False, "timeout")
    assert healths["slow"].latency_ms >= 49


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (ConnectionFailed(), "connection_error"),
        (NotReady(), "not_ready"),
        (TimeoutError(), "timeout"),
        (ValueError("sk-secret"), "internal_error"),
        (OSError("https://user:sk-secret@host"), "internal_error"),
    ],
)
async def test_one_that_raises_is_not_well(trouble: BaseException, code: str, caplog: pytest.LogCaptureFixture) -> None:
    """By its code; no text of an exception is shown or logged."""
    caplog.set_level(logging.DEBUG)
    registry = Registry({"bad": Unwell(name="bad", trouble=trouble), "good": well("good")})
    healths = await registry.health_check_all()
    assert (healths["bad"].healthy, healths["bad"].error, healths["good"]) == (False, code, WELL)
    assert "sk-secret" not in caplog.text


async def test_the_caller_can_still_be_cancelled() -> None:
    """A health check that nobody waits for ends."""
    slow = FakeProvider(name="slow", healths=[WELL], pause_s=LONG_S)
    asking = asyncio.ensure_future(Registry({"slow": slow}).health_check_all(LONG_S))
    await until(lambda: slow.health_asked)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_nobody_to_ask_is_nobody() -> None:
    """No providers, no health."""
    assert await Registry({}).health_check_all() == {}


async def test_all_are_closed_even_when_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The failure is logged without its text."""
    providers = {"a": well("a"), "bad": Unwell(name="bad"), "c": well("c")}
    await Registry(providers).aclose()
    assert all(provider.closed for provider in providers.values())
    assert "bad" in caplog.text
    assert "sk-secret" not in caplog.text
