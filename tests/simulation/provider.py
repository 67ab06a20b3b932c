"""A provider that does as its scripts say, and keeps a record of each call."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

import msgspec

from shared.errors import BrokenAnswer
from shared.models import Answer, AnswerMessage, ChatRequest, Chunk, Ending, Event, ProviderHealth, Usage
from tests.simulation.scripts import Script, Step
from tests.simulation.virtual_time import turn

_moments: Final = itertools.count()  # that are in an order, though they have the same time


@dataclass(slots=True)
class Call:
    """One call as its provider saw it; times and turns are the loop's, what is `at` is the number of a moment.

    An `answer` is a stream's first content or its whole end, or else the whole answer.
    """

    number: int
    request: ChatRequest
    provider: str
    script: Script
    task: asyncio.Task[Any] | None
    started_s: float
    started_turn: int = field(default_factory=turn)
    asked_at: int = field(default_factory=lambda: next(_moments))
    listened_since_s: float | None = None  # while the gateway waits for it
    silence_s: float = 0.0  # how long it has waited since the last token
    silences_s: list[float] = field(default_factory=list)  # how long it waited for each
    said: list[str] = field(default_factory=list)
    chunks: int = 0
    answered_s: float | None = None
    answered_turn: int = 0
    answered_at: int = 0
    closing_s: float | None = None  # when it was left
    ended_s: float | None = None
    ended_turn: int = 0
    ended_at: int = 0
    error: BaseException | None = None
    answer: Answer | None = None
    whole: bool = False

    @property
    def name(self) -> str:
        """What its tokens begin with, and its id."""
        return f"{self.provider}.{self.number}"

    @property
    def trace(self) -> str:
        """The request that it belongs to."""
        return self.request.trace_id

    @property
    def target(self) -> tuple[str, str]:
        """Provider and model."""
        return self.provider, self.request.model or ""

    @property
    def under_way(self) -> bool:
        """Whether something is still expected of it."""
        leaving = self.task is not None and self.task.cancelling() > 0
        return self.ended_s is None and self.closing_s is None and not self.whole and not leaving

    @property
    def failure(self) -> BaseException | None:
        """What it means that it ended; a stream that just stops is a broken answer."""
        stopped = self.ended_s is not None and self.closing_s is None and not self.whole
        return self.error or (BrokenAnswer() if stopped else None)

    @property
    def over_s(self) -> float:
        """When nothing was expected of it any more; infinite while something is."""
        over_s = self.ended_s if self.closing_s is None else self.closing_s
        return inf if over_s is None else over_s

    @property
    def told(self) -> Usage | None:
        """What it has said of its usage."""
        how = self.script.usage
        if how == "never" or (how == "at the end" and not self.whole) or not self.chunks:
            return None
        return Usage(1, len(self.said), 1 + len(self.said))

    def listen(self, now_s: float) -> None:
        """The gateway waits from now on."""
        self.listened_since_s = now_s

    def speak(self, now_s: float, *, token: bool) -> None:
        """The gateway waits no more."""
        if self.listened_since_s is not None:
            self.silence_s += now_s - self.listened_since_s
        self.listened_since_s = None
        if token:
            self.silences_s.append(self.silence_s)
            self.silence_s = 0.0

    def answers(self) -> None:
        """The gateway has what it waited for."""
        if self.answered_s is None:
            self.answered_s, self.answered_turn, self.answered_at = _now_s(), turn(), next(_moments)


class ScriptedProvider:
    """Plays the `next_script` at each call; tells `watch` of each call that is asked, left or ended."""

    def __init__(
        self, name: str, model: str, next_script: Callable[[], Script], watch: Callable[[str, Call], None]
    ) -> None:
        self.name = name
        self.model = model
        self.calls: list[Call] = []
        self._next_script = next_script
        self._watch = watch

    async def complete(self, request: ChatRequest) -> Answer:
        """The whole answer, or what the script has instead."""
        call = self._begin(request)
        try:
            for step in call.script.steps:
                await _do(call, step)
            call.answer = _answer(call)
        except BaseException as error:
            await self._leave(call, error)
            raise
        else:
            return call.answer
        finally:
            self._end(call)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """The answer, or what the script has instead, as it comes."""
        call = self._begin(request)
        try:
            for step in call.script.steps:
                await _do(call, step)
                if step.what != "ping":
                    call.answers()
                yield _chunk(call, step)
                call.listen(_now_s())
                if call.whole:
                    return
        except BaseException as error:
            await self._leave(call, error)
            raise
        finally:
            self._end(call)

    async def health(self) -> ProviderHealth:
        """Nobody asks."""
        return ProviderHealth(healthy=True, latency_ms=0.0)

    async def aclose(self) -> None:
        """Nothing is shared between calls."""

    def _begin(self, request: ChatRequest) -> Call:
        now_s = _now_s()
        call = Call(len(self.calls), request, self.name, self._next_script(), asyncio.current_task(), now_s)
        call.listen(now_s)
        self.calls.append(call)
        self._watch("asked", call)
        return call

    async def _leave(self, call: Call, error: BaseException) -> None:
        """Closes the connection of a call that has not come to its end, which may take its time."""
        if isinstance(error, Exception):
            call.error = error
            return
        call.closing_s = _now_s()
        call.speak(call.closing_s, token=True)
        self._watch("left", call)
        if call.script.close_s:
            await asyncio.sleep(call.script.close_s)

    def _end(self, call: Call) -> None:
        call.ended_s, call.ended_turn, call.ended_at = _now_s(), turn(), next(_moments)
        self._watch("ended", call)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _wait(length_s: float) -> None:
    if length_s == inf:
        await asyncio.get_running_loop().create_future()
    await asyncio.sleep(length_s)


async def _do(call: Call, step: Step) -> None:
    if step.after_s:
        await _wait(step.after_s)
    call.speak(_now_s(), token=step.what != "ping")
    if step.what == "raise":
        raise step.error()
    if step.what == "end":
        call.whole = True
    elif step.what != "ping":
        call.said.append(f"{call.name}.{len(call.said)} ")


def _answer(call: Call) -> Answer:
    if not call.whole:
        raise BrokenAnswer
    call.answers()
    text = "".join(call.said)
    return Answer(text.encode(), AnswerMessage(text), _ending(call))


def _ending(call: Call) -> Ending:
    return Ending("stop", call.told, call.request.model, request_id(call))


def request_id(call: Call) -> str:
    """What the provider calls the request."""
    return f"req-{call.name}"


def _chunk(call: Call, step: Step) -> Chunk:
    """What a vendor's chunk would have been read as."""
    first, call.chunks = not call.chunks, call.chunks + 1
    delta: dict[str, Any] = {"role": "assistant"} if first else {}
    if step.what == "token":
        delta["content"] = call.said[-1]
    elif step.what == "tool":
        delta["tool_calls"] = [{"index": 0, "function": {"arguments": call.said[-1]}}]
    finish = "stop" if step.what == "end" else None
    bodies: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}]
    if call.told is not None:
        if finish:
            bodies.append({"choices": []})
        bodies[-1]["usage"] = msgspec.to_builtins(call.told)
    identity = {"id": call.name, "created": 0}
    data = b"".join(b"data: " + json.dumps(identity | body).encode() + b"\n\n" for body in bodies)
    ending = _ending(call) if finish else None
    return Chunk(
        data,
        [_event(body) for body in bodies],
        step.what in ("token", "tool"),
        ending,
        request_id(call) if first else None,
    )


def _event(body: dict[str, Any]) -> Event:
    return msgspec.convert(body, Event)
