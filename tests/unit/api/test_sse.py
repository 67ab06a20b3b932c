"""A response of events: what goes out in which order, and that it ends in a way that tells whole from broken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from shared.api.brain import BrainDialect, BrainStream
from shared.api.dialect import Dialect
from shared.api.inflight import Drain
from shared.api.openai import OpenAIDialect
from shared.api.sse import EventStream, leave
from shared.errors import ConnectionReset, EchoBrainError, UpstreamError
from shared.models import Chunk, Exchange
from shared.resilience.shedding import Load
from shared.settings import Deployment, RetryPolicy
from shared.streaming import AnswerStream
from tests.unit.fakes import Clock
from tests.unit.scripted import NEVER, Scripted, Turn, course, idle, spoken, up

OPENAI = OpenAIDialect()
BRAIN = BrainDialect(Deployment(), "a")
LIMIT_S = 600.0


@dataclass
class Sent:
    """A response over one provider's turn, and what it has sent to a caller that stays until `gone`."""

    turn: Turn
    dialect: Dialect
    messages: list[MutableMapping[str, Any]] = field(default_factory=list)
    ended: list[EchoBrainError | None] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.up = up(Scripted("a", [self.turn]), retries=RetryPolicy(0))
        self.course = course(self.up, stream=True)
        self.load = Load(None)
        self.drain = Drain()
        self.chunks = AnswerStream(self.course, self.load, Clock())

    async def run(self, *, content_first: bool) -> None:
        """Runs it, from where the first content is there or from the beginning."""
        begun = asyncio.create_task(self.chunks.begin())
        if content_first:
            await asyncio.wait({begun})
        else:
            self.course.exchange.provider = "a"  # as admission notes it
        response = EventStream(
            begun,
            self.chunks,
            self.dialect.encoder(self.course.exchange),
            headers=[("x-extra", "1")],
            limit_s=LIMIT_S,
            drain=self.drain,
            ended=self.ended.append,
        )
        await response({}, self._receive, self._send)

    async def _receive(self) -> MutableMapping[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.messages.append(message)

    @property
    def bodies(self) -> list[str]:
        """What went out behind the headers, piece by piece."""
        return [message["body"].decode() for message in self.messages[1:]]

    @property
    def over(self) -> bool:
        """Whether the transfer ended as HTTP has it, once."""
        return [message.get("more_body") for message in self.messages[1:]].count(False) == 1

    def nothing_open(self) -> bool:
        """Whether no count is left."""
        return self.load.under_way == 0 and idle(self.up)


def names(text: str) -> list[str]:
    """The names of Brain events."""
    return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]


@pytest.mark.parametrize("content_first", [True, False])
async def test_an_openai_stream_is_the_upstreams_and_done(content_first: bool) -> None:
    """The bytes, then [DONE], and the caller of the gateway is told once that it has ended well."""
    of = Sent(spoken("Hel|lo"), OPENAI)
    await of.run(content_first=content_first)
    upstream = b"".join(chunk.data for chunk in spoken("Hel|lo")).decode()
    assert "".join(of.bodies) == upstream + "data: [DONE]\n\n"
    assert (of.ended, of.over, of.nothing_open()) == ([None], True, True)
    headers = dict(of.messages[0]["headers"])
    assert (headers[b"x-extra"], headers[b"x-accel-buffering"]) == (b"1", b"no")


async def test_a_brain_stream_opens_with_its_first_content_where_that_is_there() -> None:
    """One write for both: `meta` names who has answered."""
    of = Sent(spoken("Hel|lo"), BRAIN)
    await of.run(content_first=True)
    assert names(of.bodies[0]) == ["meta", "token"]
    assert names("".join(of.bodies)) == ["meta", "token", "token", "final"]
    assert (of.ended, of.over) == ([None], True)


async def test_a_brain_stream_opens_alone_where_no_content_is_there() -> None:
    """The caller sees that it has begun."""
    spoken_to = asyncio.Event()
    of = Sent([spoken_to, *spoken("Hel|lo")], BRAIN)
    running = asyncio.create_task(of.run(content_first=False))
    while not of.bodies:  # noqa: ASYNC110 - until it has opened
        await asyncio.sleep(0)
    assert names("".join(of.bodies)) == ["meta"]
    spoken_to.set()
    await running
    assert names("".join(of.bodies)) == ["meta", "token", "token", "final"]


@pytest.mark.parametrize("content_first", [True, False])
async def test_a_brain_stream_that_never_began_is_meta_and_error(content_first: bool) -> None:
    """`meta` is first in any case, and there is exactly one of each."""
    of = Sent([ConnectionReset()], BRAIN)
    await of.run(content_first=content_first)
    assert names("".join(of.bodies)) == ["meta", "error"]
    (told,) = of.ended
    assert (told.code if told else None, of.over, of.nothing_open()) == ("connection_error", True, True)


async def test_a_stream_that_the_end_of_the_process_meets_is_meta_and_error() -> None:
    """Its content was there, and then the process was told to stop: `meta` is first all the same."""
    of = Sent(spoken("Hel|lo"), BRAIN)
    of.drain.stopping = True
    await of.run(content_first=True)
    assert names("".join(of.bodies)) == ["meta", "error"]
    (told,) = of.ended
    assert (told.code if told else None, of.over, of.nothing_open()) == ("overloaded", True, True)


async def test_what_cannot_be_written_is_told_behind_the_opening() -> None:
    """The first content is there, and the dialect refuses it: the opening has not gone out yet."""

    class Refusing(BrainDialect):
        def encoder(self, exchange: Exchange) -> BrainStream:
            return TooLong(self, exchange)

    class TooLong(BrainStream):
        def chunk(self, chunk: Chunk) -> bytes:  # noqa: ARG002 - the protocol's
            raise UpstreamError

    of = Sent(spoken("Hel|lo"), Refusing(Deployment(), "a"))
    await of.run(content_first=True)
    assert names("".join(of.bodies)) == ["meta", "error"]
    assert (of.over, of.nothing_open()) == (True, True)


@pytest.mark.parametrize(("dialect", "last"), [(BRAIN, "event: error"), (OPENAI, 'data: {"object"')])
async def test_a_broken_stream_ends_with_its_error(dialect: Dialect, last: str) -> None:
    """And without anything that a whole one ends with."""
    of = Sent([*spoken("Hel|lo", whole=False), ConnectionReset()], dialect)
    await of.run(content_first=True)
    assert of.bodies[-1].startswith(last)
    assert "[DONE]" not in "".join(of.bodies)
    assert "event: final" not in "".join(of.bodies)
    assert (len(of.ended), of.over, of.nothing_open()) == (1, True, True)


async def test_a_bug_in_the_middle_is_an_error_of_ours() -> None:
    """No second response, no text of the exception."""
    of = Sent([*spoken("Hel|lo", whole=False), ZeroDivisionError("secret")], OPENAI)
    await of.run(content_first=True)
    (told,) = of.ended
    assert told is not None
    assert json.loads(of.bodies[-1].removeprefix("data: "))["error"]["code"] == told.code == "internal_error"
    assert "secret" not in "".join(of.bodies)
    assert of.nothing_open()


@pytest.mark.parametrize("turn", [[NEVER], [*spoken("Hel", whole=False), NEVER]], ids=["waiting", "reading"])
async def test_a_caller_that_leaves_ends_it(turn: Turn) -> None:
    """Nothing more is sent, upstream is closed, and nobody has failed."""
    of = Sent(turn, OPENAI)
    running = asyncio.create_task(of.run(content_first=len(turn) > 1))
    while not of.messages:  # noqa: ASYNC110 - until the headers are out
        await asyncio.sleep(0)
    of.gone.set()
    await asyncio.wait_for(running, 30.0)
    (told,) = of.ended
    assert told is not None
    assert (told.code, of.over, of.nothing_open()) == ("client_closed_request", False, True)
    assert of.course.exchange.failed_providers == []


@pytest.mark.parametrize("turn", [[NEVER], [ConnectionReset()], spoken("Hi")], ids=["waiting", "failed", "begun"])
@pytest.mark.parametrize("turns", [0, 20])
async def test_a_stream_that_nobody_reads_is_left(turn: Turn, turns: int) -> None:
    """Before it has begun, while it waits, when it has failed, when its content is there: nothing stays open."""
    of = Sent(turn, OPENAI)
    begun = asyncio.create_task(of.chunks.begin())
    for _ in range(turns):
        await asyncio.sleep(0)
    await leave(begun, of.chunks)
    assert of.nothing_open()
    assert begun.done()
