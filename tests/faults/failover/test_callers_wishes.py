"""What a caller may ask of the routing: a provider by name, and no other target."""

from __future__ import annotations

from typing import Final

import pytest

from tests.ways import WAYS, Way

from .cases import SMALL, whole
from .stand import in_every_way, standing

KEYS: Final = {**SMALL.keys, "max_retries": 1}


@pytest.mark.parametrize("name", ["first", "second", "third"])
async def test_a_provider_can_be_pinned(name: str) -> None:
    """Only the one that is named is asked, whatever its priority or weight."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand, stand.serving({}, {}, {"weight": 0}):
            whole(await stand.ask(headers={"X-Provider": name}), by=name)
            assert stand.counts() == [int(name == other) for other in ("first", "second", "third")]

    await in_every_way(WAYS, play)


async def test_a_pinned_provider_fails_alone() -> None:
    """Its error is the caller's; nobody stands in."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("status:503")
            async with stand.serving({}, {}, {}):
                seen = await stand.ask(headers={"X-Provider": "second"})
            assert seen.verdict.code == "upstream_error"
            assert stand.counts() == [0, 2, 0]
            assert seen.reply.streamed or seen.header("X-Served-By") == "second"

    await in_every_way(WAYS, play)


@pytest.mark.parametrize("name", ["fourth", "First", "first,second", "first second"])
async def test_an_unknown_provider_is_refused(name: str) -> None:
    """400 that names the header; nobody is asked."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand, stand.serving({}, {}, {}):
            seen = await stand.ask(headers={"X-Provider": name})
            assert (seen.status, seen.verdict.code) == (400, "bad_request")
            assert "X-Provider" in seen.verdict.message
            assert stand.counts() == [0, 0, 0]

    await in_every_way(WAYS, play)


@pytest.mark.parametrize("value", ["true", "True", "TRUE"])
async def test_failover_can_be_forbidden(value: str) -> None:
    """The same target may be asked again, but no other one."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.first.force("status:500")
            async with stand.serving({}, {}, {}):
                seen = await stand.ask(headers={"X-No-Failover": value})
            assert seen.verdict.code == "upstream_error"
            assert stand.counts() == [2, 0, 0]

    await in_every_way(WAYS, play)


async def test_forbidden_failover_also_forbids_going_on() -> None:
    """A stream that breaks off ends in an error, though another target could continue it."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand:
            stand.second.force("continue")
            async with stand.serving({}, {"continues_prefill": True}):
                seen = await stand.ask("fault:cut:2", headers={"X-No-Failover": "true"})
            assert seen.verdict.code == "upstream_error"
            assert stand.counts() == [1, 0, 0]

    await in_every_way([way for way in WAYS if way.stream], play)


@pytest.mark.parametrize("value", ["false", "False"])
async def test_failover_can_be_allowed_by_name(value: str) -> None:
    """`false` is the default, said aloud."""
    async with standing(WAYS[0], keys=KEYS) as stand, stand.serving({}, {}):
        stand.first.force("status:500")
        whole(await stand.ask(headers={"X-No-Failover": value}), by="second")


@pytest.mark.parametrize("value", ["maybe", "1", "0", "yes please", "truee", "null"])
async def test_what_is_neither_is_refused(value: str) -> None:
    """400 that names the header; nobody is asked."""

    async def play(way: Way) -> None:
        async with standing(way, keys=KEYS) as stand, stand.serving({}, {}):
            seen = await stand.ask(headers={"X-No-Failover": value})
            assert (seen.status, seen.verdict.code) == (400, "bad_request")
            assert "X-No-Failover" in seen.verdict.message
            assert stand.counts() == [0, 0, 0]

    await in_every_way(WAYS, play)


async def test_both_wishes_together() -> None:
    """A pinned provider without failover is just that provider."""
    async with standing(WAYS[0], keys=KEYS) as stand, stand.serving({}, {}):
        stand.first.force("status:500")
        headers = {"X-Provider": "first", "X-No-Failover": "true"}
        assert (await stand.ask(headers=headers)).verdict.code == "upstream_error"
        assert stand.counts() == [2, 0, 0]
        assert (await stand.ask(headers=headers | {"X-Provider": "second"})).verdict.code is None
