"""One caller, served as the endpoints serve: admitted, answered whole or as a stream, and left alone in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.api.sse import leave
from shared.course import Course
from shared.errors import EchoBrainError
from shared.gateway import Gateway
from shared.models import Answer, Chunk, Exchange
from shared.streaming import AnswerStream
from tests.simulation.schedule import Visit
from tests.simulation.scripts import Bug

Outcome = Literal["whole", "error", "bug", "left"]


@dataclass(slots=True)
class Caller:
    """What became of a visit; all times are the loop's."""

    visit: Visit
    exchange: Exchange
    began_s: float
    outcomes: list[Outcome] = field(default_factory=list)
    error: EchoBrainError | None = None
    answer: Answer | None = None
    chunks: list[Chunk] = field(default_factory=list)
    pauses_s: list[tuple[float, float]] = field(default_factory=list)  # it did not read from, to
    first_s: float | None = None  # when it was shown the first of a stream
    left_s: float | None = None  # when it was told to leave
    answered_s: float | None = None  # when it knew how it ended
    ended_s: float | None = None
    limit_s: float = 0.0  # the longest that its course may take
    admitted: bool = False
    budget: float = 0.0  # retries that were left all the time that it was served, or more

    @property
    def shown(self) -> str:
        """What it has been told, text and arguments of tools alike."""
        deltas = (
            choice.delta
            for chunk in self.chunks
            for event in chunk.events
            for choice in event.choices or ()
            if choice.delta is not None
        )
        return "".join(delta.content or arguments(delta.tool_calls) for delta in deltas)

    @property
    def is_free_text(self) -> bool:
        """Whether it has asked for text of any form, and no tool was called in what it has been told."""
        form = self.visit.request.parameters.get("response_format")
        free = form is None or b"json_object" not in bytes(form)
        return free and not any(b"tool_calls" in chunk.data for chunk in self.chunks)


def arguments(tool_calls: Any) -> str:
    """Those of all the tools that are called."""
    return "".join(call["function"]["arguments"] for call in tool_calls or ())


async def served(caller: Caller, gateway: Gateway, limit_s: Callable[[Caller], float]) -> None:
    """Runs the visit to its end; `limit_s` knows the limit once it is admitted."""
    loop = asyncio.get_running_loop()
    visit = caller.visit
    try:
        course = gateway.admit(visit.request, caller.exchange, visit.wishes)
        caller.admitted = True
        caller.limit_s = limit_s(caller)
        if visit.request.stream:
            await _stream(caller, gateway.stream(course))
        else:
            await _answer(caller, gateway, course)
    except EchoBrainError as error:
        caller.error = error
        _over(caller, "error")
    except Bug:
        _over(caller, "bug")
    except asyncio.CancelledError:
        if not caller.outcomes:
            _over(caller, "left")
    finally:
        caller.ended_s = loop.time()


async def _answer(caller: Caller, gateway: Gateway, course: Course) -> None:
    caller.answer = await gateway.complete(course)
    _over(caller, "whole")


async def _stream(caller: Caller, chunks: AnswerStream) -> None:
    """As `Endpoints._stream` and `EventStream`."""
    begun = asyncio.create_task(chunks.begin())
    try:
        await asyncio.wait({begun}, timeout=caller.visit.opening_wait_s)
        await _read(caller, begun, chunks)
    except EchoBrainError as error:
        caller.error = error
        _over(caller, "error")
    except Bug:
        _over(caller, "bug")
    except asyncio.CancelledError:
        _over(caller, "left")
        raise
    finally:
        await leave(begun, chunks)


async def _read(caller: Caller, begun: asyncio.Task[Chunk], chunks: AnswerStream) -> None:
    chunk = await begun
    caller.first_s = asyncio.get_running_loop().time()
    while True:
        caller.chunks.append(chunk)
        if chunk.ending is not None:
            _over(caller, "whole")
            return
        await _pause(caller)
        chunk = await chunks.__anext__()


async def _pause(caller: Caller) -> None:
    """A caller that reads slowly."""
    reading_s = caller.visit.reading_s
    length_s = reading_s[len(caller.chunks) % len(reading_s)]
    if length_s:
        now_s = asyncio.get_running_loop().time()
        caller.pauses_s.append((now_s, now_s + length_s))
        await asyncio.sleep(length_s)


def _over(caller: Caller, outcome: Outcome) -> None:
    caller.outcomes.append(outcome)
    if caller.answered_s is None:
        caller.answered_s = asyncio.get_running_loop().time()
