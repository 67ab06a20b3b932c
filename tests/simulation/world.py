"""One schedule played from its first arrival until long after its last departure, and all that was seen of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from shared.gateway import Gateway
from shared.models import Exchange, Wishes
from shared.providers.registry import Registry
from tests.simulation import schedule as schedules
from tests.simulation.asking import check_asked
from tests.simulation.availability import targets
from tests.simulation.caller import Caller, served
from tests.simulation.provider import Call, ScriptedProvider
from tests.simulation.schedule import Schedule, Visit
from tests.simulation.scripts import Script, healthy
from tests.simulation.virtual_time import START_S, Stuck, VirtualLoop, run

SETTLED_S: Final = 200.0  # after which nothing may be under way any more
END_S: Final = 2000.0

Key = tuple[str, str]  # provider and model


@dataclass
class World:
    """The gateway, its providers and its callers; `violations` of what was promised are noted as they are seen."""

    schedule: Schedule
    loop: VirtualLoop
    gateway: Gateway
    callers: list[Caller] = field(default_factory=list)
    visitors: dict[str, Caller] = field(default_factory=dict)  # by trace
    healed: list[Caller] = field(default_factory=list)  # those that came when every provider was well again
    calls: list[Call] = field(default_factory=list)
    log: list[tuple[float, str]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    circuits: dict[Key, str] = field(default_factory=dict)
    moved: dict[Key, list[tuple[float, str]]] = field(default_factory=dict)  # when each circuit came to which state
    probes: dict[Key, int] = field(default_factory=dict)  # since the circuit is half open
    probing: dict[tuple[Key, int], Call] = field(default_factory=dict)  # after how many moves of the circuit
    admitted: int = 0
    repeats: int = 0  # retries and hedges that were made
    spent: int = 0  # and those that were decided
    ends_s: dict[str, float] = field(default_factory=dict)  # the deadlines of the requests
    well: bool = False

    def note(self, what: str) -> None:
        """Writes a line of the log."""
        self.log.append((self.loop.time() - START_S, what))

    def violated(self, what: str) -> None:
        """Something happened that must not."""
        self.violations.append(f"{self.loop.time() - START_S:.3f} {what}")
        self.note(f"VIOLATED: {what}")

    def of(self, trace: str) -> list[Call]:
        """The calls that a request made, in their order."""
        return [call for call in self.calls if call.trace == trace]


def play(schedule: Schedule) -> World:
    """The world of this schedule at its end."""
    loop = VirtualLoop(END_S)
    world = _world(schedule, loop)
    with _listening(world), _unraisable(world):
        try:
            run(_play(world), loop)
        except Stuck as stuck:
            world.violated(str(stuck))
        gc.collect()
    world.violations += loop.complaints
    return world


def _world(schedule: Schedule, loop: VirtualLoop) -> World:
    def watch(what: str, call: Call) -> None:
        _seen(world, what, call)

    def next_script(name: str) -> Script:
        return healthy() if world.well else schedule.script(name, loop.time() - START_S)

    serving = schedule.serving
    providers = {
        p.name: ScriptedProvider(p.name, p.model or "", partial(next_script, p.name), watch) for p in serving.providers
    }
    gateway = Gateway(Registry(providers), serving, {}, random.Random(schedule.seed + 1), loop.time)
    world = World(schedule, loop, gateway)
    return world


async def _play(world: World) -> None:
    sys.set_asyncgen_hooks(finalizer=world.loop.never_closed)
    tasks = [asyncio.create_task(_visit(world, visit)) for visit in world.schedule.visits]
    await asyncio.gather(*tasks)
    await asyncio.sleep(SETTLED_S)  # what was cancelled while it was being closed has ended by then
    _check_leftovers(world)
    world.well = True
    for number in range(sum(name.startswith(schedules.ONLY) for name in world.schedule.serving.routes)):
        await _healed(world, number)


async def _visit(world: World, visit: Visit) -> None:
    await asyncio.sleep(visit.at_s)
    world.callers.append(await _served(world, visit))


async def _served(world: World, visit: Visit) -> Caller:
    now_s = world.loop.time()
    exchange = Exchange(visit.trace, now_s, "POST", "/v1/chat/completions")
    caller = world.visitors[visit.trace] = Caller(visit, exchange, now_s)
    world.note(f"{visit.trace} comes, {'streamed' if visit.request.stream else 'whole'}, {visit.request.model}")
    task = asyncio.create_task(served(caller, world.gateway, lambda who: _limit_s(world, who)))
    leaving = [world.loop.call_later(after_s, _leave, world, caller, task) for after_s in visit.leaves_after_s]
    await asyncio.wait({task})
    for handle in leaving:
        handle.cancel()
    task.result()
    caller.budget = 3 + 0.1 * caller.budget - world.spent
    world.note(f"{visit.trace} ends: {caller.outcomes} {caller.error!r} {caller.exchange.failed_providers}")
    return caller


def _leave(world: World, caller: Caller, task: asyncio.Task[None]) -> None:
    world.note(f"{caller.visit.trace} leaves")
    if caller.left_s is None:
        caller.left_s = world.loop.time()
    task.cancel()


def _limit_s(world: World, caller: Caller) -> float:
    """The longest limit of those that the request may go to."""
    world.admitted += 1
    caller.budget = world.admitted
    visit, names = caller.visit, {provider for provider, _ in targets(world, caller.visit)}
    if not visit.wishes.failover:
        names = {caller.exchange.provider or ""}
    limits = [p.limits for p in world.schedule.serving.providers if p.name in names]
    limit_s = max(limit.streaming_s if visit.request.stream else limit.request_s for limit in limits)
    world.ends_s[visit.trace] = caller.began_s + limit_s
    return limit_s


def _seen(world: World, what: str, call: Call) -> None:
    world.note(f"{call.trace} {call.name} {call.request.model}: {what} {call.error!r}")
    if what == "asked":
        world.calls.append(call)
        check_asked(world, call)


async def _healed(world: World, number: int) -> None:
    """Every provider is well again: each target serves, and closes its circuit."""
    request = schedules.request(schedules.only(number), f"healed-{number}", stream=bool(number % 2))
    caller = await _served(world, Visit(request.trace_id, 0, request, Wishes(), None, (0.0,), ()))
    world.healed.append(caller)
    if caller.outcomes != ["whole"]:
        world.violated(f"{request.model} never recovered: {caller.error!r}")
    still = [state for target, state in world.circuits.items() if target == world.calls[-1].target]
    if still not in ([], ["closed"]):
        world.violated(f"the circuit of {request.model} is {still} after a whole answer")


def _check_leftovers(world: World) -> None:
    for call in world.calls:
        if call.ended_s is None:
            world.violated(f"{call.name} of {call.trace} is still open")
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        world.violated(f"tasks are left: {sorted(str(task.get_coro()) for task in tasks)}")
    if timers := world.loop.timers():
        world.violated(f"timers are left: {timers}")
    for name, under_way in _loads(world):
        if under_way:
            world.violated(f"{name} counts {under_way} under way")


def _loads(world: World) -> Iterator[tuple[str, int]]:
    """What is counted as under way, which is nobody else's business; no probe is among it either."""
    gateway: Any = world.gateway
    yield "the gateway", gateway._load.under_way
    for (provider, model), upstream in gateway._upstreams.items():
        yield provider, upstream.load.under_way
        yield f"{provider} {model}, half open,", upstream.breaker.state == "half_open"


@contextmanager
def _listening(world: World) -> Iterator[None]:
    """Takes the decisions and transitions that are logged."""
    handler = _Lines(world)
    loggers = [logging.getLogger(f"echo_brain.{name}") for name in ("failover", "circuit")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


class _Lines(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = getattr(record, "fields", {})
        world = self._world
        world.note(" ".join(f"{name}={value}" for name, value in fields.items()))
        if "decision" in fields:
            hedge = (fields["decision"], fields["reason"]) == ("hedge", "silent")
            world.repeats += hedge
            world.spent += hedge or fields["decision"] == "retry"
        else:
            target = fields["provider"], fields["model"]
            world.circuits[target] = fields["to"]
            world.moved.setdefault(target, []).append((world.loop.time(), fields["to"]))
            world.probes[target] = 0


@contextmanager
def _unraisable(world: World) -> Iterator[None]:
    """Takes what Python can only print, for example that a coroutine was never awaited."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda what: world.violations.append(f"unraisable: {what.exc_value!r} in {what.object!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            yield
        finally:
            sys.unraisablehook = before
