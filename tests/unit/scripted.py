"""Providers that play scripts on a clock that jumps, and the courses, streams and log lines to try them with."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, ParamSpec

import msgspec

from shared.course import Attempt, Course
from shared.errors import EchoBrainError
from shared.models import Answer, AnswerMessage, ChatRequest, Chunk, Ending, ProviderHealth, Target, Usage
from shared.providers.events import EventReader
from shared.resilience.retry import RetryBudget
from shared.resilience.shedding import Load
from shared.settings import BreakerPolicy, Limits, ProviderSettings, RetryPolicy
from shared.upstream import Upstream, upstream
from tests.simulation.virtual_time import VirtualLoop, run
from tests.unit.fakes import chat_request, exchange, seeded

P = ParamSpec("P")
NEVER: Final = float("inf")
EVEN: Final = RetryPolicy(3, 1.0, 1.0)  # every backoff takes one second
PATIENT: Final = BreakerPolicy(threshold=1_000_000)

Step = float | BaseException | Answer | Chunk | asyncio.Event
Turn = Sequence[Step]


def virtually(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs the test on a clock that jumps; a minute later no task and no timer may be left, and no complaint."""

    @functools.wraps(test)
    def on_virtual_time(*args: P.args, **kwargs: P.kwargs) -> None:
        loop = VirtualLoop()
        run(_leaving_nothing(test(*args, **kwargs), loop), loop)
        assert loop.complaints == []

    return on_virtual_time


async def _leaving_nothing(test: Coroutine[Any, Any, None], loop: VirtualLoop) -> None:
    await test
    await asyncio.sleep(60.0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert loop.timers() == []


def now_s() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


@dataclass
class Scripted:
    """A provider that plays one turn a call: it waits for numbers (s) and events, raises errors, gives the rest.

    `tidying_s` is how long it takes to let go of a call that was cancelled or closed.
    """

    name: str
    turns: list[Turn] = field(default_factory=list)
    model: str | None = None
    tidying_s: float = 0.0
    asked: list[ChatRequest] = field(default_factory=list)
    asked_at_s: list[float] = field(default_factory=list)
    open: int = 0

    async def complete(self, request: ChatRequest) -> Answer:
        """The first answer of the turn."""
        async for step in self._play(request):
            if isinstance(step, Answer):
                return step
        raise AssertionError("the turn has no answer")

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """The chunks of the turn."""
        turn = self._play(request)
        try:
            async for step in turn:
                assert isinstance(step, Chunk)
                yield step
        finally:
            await turn.aclose()

    async def _play(self, request: ChatRequest) -> AsyncGenerator[Answer | Chunk]:
        self.asked.append(request)
        self.asked_at_s.append(now_s())
        self.open += 1
        try:
            for step in self.turns.pop(0):
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, (Answer, Chunk)):
                    yield step
                else:
                    await _wait(step)
        except (asyncio.CancelledError, GeneratorExit):
            if self.tidying_s:
                await asyncio.sleep(self.tidying_s)
            raise
        finally:
            self.open -= 1

    async def health(self) -> ProviderHealth:
        """Always well."""
        return ProviderHealth(healthy=True, latency_ms=1.0)

    async def aclose(self) -> None:
        """Nothing is open between calls."""


async def _wait(step: float | asyncio.Event) -> None:
    if isinstance(step, asyncio.Event):
        await step.wait()
    elif step == NEVER:
        await asyncio.get_running_loop().create_future()
    else:
        await asyncio.sleep(step)


def answer(text: str = "hi") -> Answer:
    """A whole answer."""
    return Answer(text.encode(), AnswerMessage(text), Ending("stop", Usage(1, 2, 3), f"model-of-{text}", f"req-{text}"))


def sse(*events: dict[str, Any]) -> bytes:
    """Server-sent events as a vendor writes them."""
    return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)


def event(content: str | None = None, *, of: str = "a", finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk object with a piece of text."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": f"id-{of}", "created": 7, "model": f"model-{of}", "choices": [choice], **more}


def role(of: str = "a") -> dict[str, Any]:
    """The chunk object that opens a vendor's stream."""
    return {**event(of=of), "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}


def usage_event(prompt: int, completion: int, *, of: str = "a") -> dict[str, Any]:
    """The chunk object with nothing but the usage."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"id": f"id-{of}", "created": 7, "model": f"model-{of}", "choices": [], "usage": usage}


def read(*blocks: bytes, done: bool = False, usage: bool = True, of: str = "a") -> list[Chunk]:
    """The chunks that the product's own reader makes of a vendor's bytes."""
    reader = EventReader(choices=1, pass_usage=usage, upstream_request_id=f"req-{of}")
    fed = [reader.feed(block) for block in (*blocks, *([b"data: [DONE]\n\n"] if done else []))]
    return [Chunk(b"", [], has_content=False, upstream_request_id=f"req-{of}"), *(c for c in fed if c is not None)]


def spoken(text: str, *, of: str = "a", whole: bool = True, usage: tuple[int, int] | None = None) -> list[Chunk]:
    """A stream of these words; one that is not whole stops in the middle of nowhere."""
    blocks = [sse(role(of)), *(sse(event(word, of=of)) for word in text.split("|"))]
    if whole:
        blocks.append(sse(event(of=of, finish="stop")))
        blocks += [sse(usage_event(*usage, of=of))] if usage else []
    return read(*blocks, done=whole, of=of)


DEFAULTS: Final = ProviderSettings(vendor="mock", retries=EVEN, breaker=PATIENT)


def up(provider: Scripted, *, load: Load | None = None, limits: Limits | None = None, **settings: Any) -> Upstream:
    """A target with retries every second and a circuit that never opens, but for the settings given."""
    of = replace(DEFAULTS, name=provider.name, model=provider.model, limits=limits or Limits(), **settings)
    return upstream(Target(provider.name), provider, of, load or Load(None))


def course(
    *upstreams: Upstream,
    stream: bool = False,
    hedge_after_s: float = NEVER,
    budget: RetryBudget | None = None,
    request: ChatRequest | None = None,
) -> Course:
    """A request that has just been admitted."""
    asked = request or chat_request(stream=stream)
    return Course(asked, exchange(), upstreams, budget or RetryBudget(), seeded(0), hedge_after_s)


async def ask(attempt: Attempt) -> Answer:
    """The whole answer of one target, within the attempt's time."""
    try:
        async with asyncio.timeout_at(attempt.total.at_s):
            whole = await attempt.upstream.provider.complete(chat_request())
    except TimeoutError:
        raise attempt.total.reached() from None
    attempt.succeeded()
    return whole


async def drop(_: Answer) -> None:
    """A whole answer holds nothing open."""


def idle(*upstreams: Upstream) -> bool:
    """Whether nothing is under way to any of them."""
    scripts = [u.provider for u in upstreams]
    return all(u.load.under_way == 0 for u in upstreams) and all(
        isinstance(script, Scripted) and script.open == 0 for script in scripts
    )


class _Fields(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.__dict__["fields"])


@contextmanager
def logged(name: str) -> Iterator[list[dict[str, Any]]]:
    """The fields of each line of the logger `echo_brain.NAME`."""
    logger, handler = logging.getLogger(f"echo_brain.{name}"), _Fields()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def order_of(*ups: Upstream) -> str:
    """The names of the providers in the order in which they were asked."""
    rows = [(at, u.name) for u in ups if isinstance(u.provider, Scripted) for at in u.provider.asked_at_s]
    return "".join(name for _, name in sorted(rows))


def no_budget() -> RetryBudget:
    """A budget that is used up."""
    budget = RetryBudget()
    while budget.spend():
        pass
    return budget


def good(name: str) -> Turn:
    """An answer at once."""
    return [answer(name)]


def error(kind: type[EchoBrainError], **more: Any) -> Turn:
    """A failure at once."""
    return [kind(**more)]
