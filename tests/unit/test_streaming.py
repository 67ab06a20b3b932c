"""One streamed answer: what is unseen of it, what becomes of it behind its first content, what stays open."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import (
    BadRequest,
    BrokenAnswer,
    ConnectionReset,
    ContentFilter,
    EchoBrainError,
    Overloaded,
    RateLimited,
    UpstreamError,
)
from shared.models import Usage
from shared.resilience.shedding import Load
from shared.settings import BreakerPolicy, Limits
from shared.upstream import Upstream
from tests.unit.scripted import (
    NEVER,
    Scripted,
    Step,
    Turn,
    event,
    now_s,
    read,
    role,
    spoken,
    sse,
    up,
    virtually,
)
from tests.unit.streams import AT_ONCE, asked, provider, requests, text_of


@virtually
async def test_a_stream_is_passed_on_byte_for_byte() -> None:
    """The first content comes with all before it, then chunk by chunk to the ending."""
    chunks = spoken("Hel|lo| world", usage=(9, 3))
    of = asked(provider("a", chunks))
    got = await of.all()
    assert b"".join(chunk.data for chunk in got) == b"".join(chunk.data for chunk in chunks)
    assert [chunk.has_content for chunk in got[:3]] == [True] * 3
    assert b'"role"' in got[0].data
    assert b"Hel" in got[0].data
    row = of.course.exchange
    assert (row.provider, row.attempts, row.failed_providers, row.upstream_request_id) == ("a", 1, [], "req-a")
    assert (row.first_token_s, row.finish_reason, row.usage) == (2000.0, "stop", Usage(9, 3, 12))


@virtually
async def test_an_answer_without_content_is_an_answer() -> None:
    """One chunk with the ending, and no first token."""
    of = asked(provider("a", read(sse(role()), sse(event(finish="stop")), done=True)))
    (only,) = await of.all()
    assert only.ending is not None
    assert (of.course.exchange.first_token_s, of.course.exchange.finish_reason) == (None, "stop")


ROLE = read(sse(role()))
EMPTIES: list[Step] = [ROLE[1], 1.0] * 100
BEFORE_CONTENT: dict[str, Turn] = {
    "refused": [ConnectionReset()],
    "role and reset": [*ROLE, BrokenAnswer()],
    "clean end": [],
    "role and clean end": ROLE,
    "rate limit": [RateLimited()],
    "silent": [NEVER],
    "role and silent": [*ROLE, NEVER],
    "in-band error": [*ROLE, UpstreamError()],
    "for ever empty": EMPTIES,
}


@pytest.mark.parametrize("turn", BEFORE_CONTENT.values(), ids=BEFORE_CONTENT)
@virtually
async def test_a_failure_before_the_first_content_is_unseen(turn: Turn) -> None:
    """The next target's bytes and no other; the failed one is closed and named."""
    first, second = provider("a", list(turn)), provider("b", spoken("Hi", of="b"))
    of, began_s = asked(first, second), now_s()
    got = await of.all()
    assert b"".join(chunk.data for chunk in got) == b"".join(chunk.data for chunk in spoken("Hi", of="b"))
    row = of.course.exchange
    assert (row.provider, row.attempts, row.failed_providers, row.continued_by) == ("b", 2, ["a"], [])
    assert row.upstream_request_id == "req-b"
    assert now_s() - began_s <= Limits().first_token_s + 0.1
    assert requests(second)[0].parameters == requests(first)[0].parameters


@virtually
async def test_before_content_only_so_much_is_kept() -> None:
    """A provider that sends megabytes of nothing has not answered, whatever comes behind it, and fills no memory."""
    padding = [read(sse(event(padding="x" * 100_000)))[1]]
    of = asked(provider("a", [*padding * 11, *spoken("Late")]), provider("b", spoken("Hi", of="b")))
    assert text_of(await of.all()) == "Hi"
    assert of.course.exchange.failed_providers == ["a"]
    within = asked(provider("a", [*padding * 10, *spoken("Late")]))
    assert text_of(await within.all()) == "Late"


@pytest.mark.parametrize("error", [BadRequest(), ContentFilter()])
@virtually
async def test_what_is_the_same_everywhere_is_raised_at_once(error: EchoBrainError) -> None:
    """No other target is asked, and no provider has failed."""
    second = provider("b", spoken("Hi"))
    of = asked(provider("a", [error]), second)
    with pytest.raises(type(error)):
        await of.all()
    assert (requests(second), of.course.exchange.failed_providers) == ([], [])


@virtually
async def test_without_room_nothing_begins() -> None:
    """And no place is given back that was not taken."""
    load = Load(1)
    load.enter()
    only = provider("a", spoken("Hi"))
    of = asked(only, load=load)
    with pytest.raises(Overloaded):
        await of.stream.begin()
    await of.stream.aclose()
    assert (load.under_way, requests(only)) == (1, [])


@virtually
async def test_a_stream_has_its_place_until_it_is_closed() -> None:
    """One of the gateway's and one of its provider's, from the beginning to the end."""
    places = Load(5)
    of = asked(provider("a", [1.0, *spoken("Hel|lo")], load=places), load=Load(5))
    assert (of.load.under_way, places.under_way) == (0, 0)
    beginning = asyncio.create_task(of.stream.begin())
    await asyncio.sleep(0.5)
    assert (of.load.under_way, places.under_way) == (1, 1)
    chunks = await of.rest(await beginning)
    assert (of.load.under_way, places.under_way, len(chunks) > 1) == (1, 0, True)
    await of.stream.aclose()
    await of.stream.aclose()
    assert of.load.under_way == 0


@pytest.mark.parametrize("tidying_s", [0.0, 0.4])
@pytest.mark.parametrize(
    ("leaves_s", "failed"),
    [(0.0, ""), (0.5, ""), (1.5, "a"), (2.5, "a"), (3.5, "a"), (4.5, "ab"), (5.5, "ab"), (6.5, "ab")],
)
@virtually
async def test_a_reader_that_leaves_leaves_nothing_open(leaves_s: float, failed: str, tidying_s: float) -> None:
    """Before the first target, the second, the content, in the middle, while it is gone on with: all is closed,
    and who had not failed by then has not failed."""
    turns: dict[str, Turn] = {
        "a": [1.0, BrokenAnswer()],
        "b": [1.0, *spoken("Hel", whole=False), 1.0, *spoken("lo", whole=False)[2:], 1.0, BrokenAnswer()],
        "c": [1.0, *spoken(" wor", of="c"), 1.0],
    }
    players = [Scripted(name, [turn], tidying_s=tidying_s) for name, turn in turns.items()]
    of = asked(*(up(player, retries=AT_ONCE, continues_prefill=True) for player in players))

    async def reading() -> None:
        chunk = await of.stream.begin()
        await of.rest(chunk)

    reader = asyncio.create_task(reading())
    await asyncio.sleep(leaves_s)
    reader.cancel()
    await asyncio.wait({reader})
    await of.stream.aclose()
    assert of.nothing_open()
    assert of.course.exchange.failed_providers == list(failed)


@virtually
async def test_leaving_before_it_has_begun_is_leaving() -> None:
    """Nothing was taken, nothing is given back."""
    of = asked(provider("a", spoken("Hi")))
    await of.stream.aclose()
    assert of.load.under_way == 0


def opening(name: str, turn: Turn) -> Upstream:
    """A target whose circuit opens with the first failure."""
    return provider(name, turn, breaker=BreakerPolicy(1, 30.0))


@pytest.mark.parametrize(
    ("turn", "state"),
    [
        ([*spoken("Hel|lo")], "closed"),
        ([*spoken("Hel|lo", whole=False)], "open"),
        ([*spoken("Hel|lo", whole=False), NEVER], "open"),
        ([NEVER], "open"),
        ([RateLimited()], "closed"),
        ([*spoken("Hel|lo", whole=False), RateLimited()], "closed"),
    ],
    ids=["whole", "truncated", "stalled", "silent", "limited", "limited behind"],
)
@virtually
async def test_the_circuit_learns_what_became_of_a_stream(turn: Turn, state: str) -> None:
    """A truncated stream is a failure; a limit of rates says nothing of the health."""
    of = asked(opening("a", turn))
    await asyncio.gather(of.all(), return_exceptions=True)
    assert of.ups[0].breaker.state == state


@pytest.mark.parametrize("read_first", [True, False], ids=["reading", "waiting"])
@virtually
async def test_a_reader_that_leaves_moves_no_circuit(read_first: bool) -> None:
    """In the middle of an answer or before it: nobody has failed."""
    turn: Turn = [*spoken("Hel|lo", whole=False), NEVER] if read_first else [NEVER]
    of = asked(opening("a", turn))
    reader = asyncio.create_task(of.all())
    await asyncio.sleep(1.0)
    reader.cancel()
    await asyncio.wait({reader})
    assert (of.ups[0].breaker.state, of.course.exchange.failed_providers) == ("closed", [])


@virtually
async def test_of_two_that_race_one_is_read_and_the_other_closed() -> None:
    """The hedge's first token wins; the silent one is left at once, and nothing is held against it."""
    slow, quick = opening("a", [NEVER]), provider("b", [0.5, *spoken("Hi", of="b")])
    of, began_s = asked(slow, quick, hedge_after_s=1.0), now_s()
    first = await of.stream.begin()
    await asyncio.sleep(0)
    assert (now_s() - began_s, slow.load.under_way, quick.load.under_way) == (1.5, 0, 1)
    assert text_of(await of.rest(first)) == "Hi"
    await of.stream.aclose()
    row = of.course.exchange
    assert (row.provider, row.attempts, row.failed_providers) == ("b", 2, [])
    assert (slow.breaker.state, of.nothing_open()) == ("closed", True)


@virtually
async def test_of_two_first_tokens_at_the_same_moment_one_stream_is_closed() -> None:
    """Whichever is read, it is the one that is named, and the other's connection is not left open."""
    one, two = provider("a", [3.0, *spoken("A", of="a"), NEVER]), provider("b", [2.0, *spoken("B", of="b"), NEVER])
    of = asked(one, two, hedge_after_s=1.0)
    text = text_of([await of.stream.begin()])
    await asyncio.sleep(0.1)
    assert sorted(u.load.under_way for u in of.ups) == [0, 1]
    assert of.course.exchange.provider == text.lower()
    await of.stream.aclose()
    assert of.nothing_open()
