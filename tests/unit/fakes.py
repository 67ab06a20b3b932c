"""Fakes of the product's own protocols, a clock to turn by hand, and requests to ask with."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import msgspec

from shared.models import Answer, ChatRequest, Chunk, Event, Exchange, ProviderHealth


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def pass_s(self, length_s: float) -> None:
        """Lets time pass."""
        self.now_s += length_s


@dataclass
class FakeProvider:
    """A provider that is asked for nothing but its health; `tests.unit.scripted` has those that answer."""

    name: str = "fake"
    model: str | None = "fake-1"
    pause_s: float = 0.0
    healths: list[ProviderHealth] = field(default_factory=list)
    health_asked: int = 0
    closed: bool = False

    async def complete(self, request: ChatRequest) -> Answer:
        """Nobody asks."""
        raise NotImplementedError

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """Nobody asks."""
        raise NotImplementedError

    async def health(self) -> ProviderHealth:
        """The next health in line; the last one is given again and again."""
        self.health_asked += 1
        await asyncio.sleep(self.pause_s)
        return self.healths.pop(0) if len(self.healths) > 1 else self.healths[0]

    async def aclose(self) -> None:
        """Notes that it was closed."""
        self.closed = True


@dataclass
class FakeSecret:
    """A secret source with a fixed value, or an error instead."""

    value: str | BaseException = "sk-fake"

    async def get(self) -> str:
        """The value."""
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value

    async def refresh(self, rejected: str) -> str:  # noqa: ARG002 - the protocol's
        """The value again."""
        return await self.get()


class FakeReader:
    """A blocking read of a secret: the next of `answers`, the last one again and again; held while `gate` is shut."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.reads = 0
        self.timeouts_s: list[float] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, timeout_s: float) -> str:
        self.reads += 1
        self.timeouts_s.append(timeout_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        assert self.gate.wait(30), "nobody opened the gate"
        if isinstance(answer, Exception):
            raise answer
        return answer


def chat_request(
    content: object = "Hello", *, model: str | None = None, stream: bool = False, usage: bool = False, n: int = 1
) -> ChatRequest:
    """A question with one message, as a dialect would decode it."""
    members: dict[str, object] = {"messages": [{"role": "user", "content": content}]}
    members |= {"model": model} if model else {}
    members |= {"stream": True} if stream else {}
    members |= {"n": n} if n != 1 else {}
    members |= {"stream_options": {"include_usage": True}} if usage else {}
    return ChatRequest(
        parameters={name: msgspec.Raw(msgspec.json.encode(value)) for name, value in members.items()},
        model=model,
        stream=stream,
        include_usage=usage,
        cap=None,
        choices=n,
        trace_id="trace-1",
    )


def exchange(**known: object) -> Exchange:
    """An exchange that has just begun."""
    row = Exchange(trace_id="trace-1", started_s=1000.0, method="POST", path="/v1/brain/chat")
    for name, value in known.items():
        setattr(row, name, value)
    return row


def token(text: str = "hi") -> Chunk:
    """A chunk with content."""
    return Chunk(b"data: " + text.encode() + b"\n\n", [Event()], has_content=True)


def seeded(seed: int = 0) -> random.Random:
    """A source of chance that is the same every time."""
    return random.Random(seed)


async def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    """Returns when the condition holds; AssertionError after `limit_s`."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)
