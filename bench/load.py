"""The load generator: one phase of questions on keep-alive connections, every answer verified afterwards.

A process of its own, raw asyncio protocol on uvloop: it keeps what it receives and looks at it only when the
measured time is over. It reads the CPU time of the process tree that it loads at both ends of that time.

    python -m bench.load '{"port": 8080, "kind": "burst", …}'      prints one line of JSON
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import cast

import uvloop

from bench import tree, verify, wire

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HELD_NS = re.compile(rb"held:(\d{12})")
_TAIL = len(wire.WHOLE_CHUNKED_BODY)


@dataclass(frozen=True, slots=True)
class Phase:
    """What to ask, how often, and whose CPU to count."""

    port: int
    kind: str  # chat | burst | paced
    connections: int
    seconds: float = 0.0  # ask on for so long; 0: ask `rounds` questions on each connection
    rounds: int = 1
    chunks: int = 0
    interval_ms: int = 0
    warmup_s: float = 0.0
    path: str = "/v1/chat/completions"
    check: str = "same_bytes"
    pid: int = 0  # root of the tree whose CPU is counted; 0: none
    core: int = 0  # the core on which that tree runs

    def request(self) -> bytes:
        """The question as it goes over the wire."""
        pace = f":{self.interval_ms}" if self.kind == "paced" else ""
        directive = "bench:chat" if self.kind == "chat" else f"bench:{self.kind}:{self.chunks}{pace}"
        brain = self.check == "brain"
        return wire.http_request(self.path, wire.request_body(directive, stream=self.kind != "chat", brain=brain))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a phase came to; `added_ms` has the added time to the first token of each paced stream."""

    answers: int
    chunks: int
    elapsed_s: float
    cpu_s: float
    others_s: float  # CPU seconds that others took of the core of the tree meanwhile
    added_ms: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Answer:
    """One response as it came in, and when."""

    sent_ns: int
    parts: list[bytes] = field(default_factory=list)
    first_token_ns: int = 0

    def added_ms(self) -> float:
        """Milliseconds from asking to the first token, less those for which the upstream held the request."""
        held = _HELD_NS.search(b"".join(self.parts))
        if held is None or not self.first_token_ns:
            raise verify.NotWholeError("no first token was seen")
        return (self.first_token_ns - self.sent_ns - int(held[1])) / 1e6


class Connection(asyncio.Protocol):
    """A keep-alive connection that asks one question at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._answer = Answer(0)
        self._missing = -1  # bytes still to come; -1: no headers yet; -2: chunked, until the last chunk
        self._tail = b""
        self._done: asyncio.Future[Answer] | None = None
        self._timed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not its subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            got = b"".join(self._answer.parts)[-200:]
            self._done.set_exception(verify.NotWholeError(f"connection lost ({exc}) after {got!r}"))

    def ask(self, request: bytes, *, timed: bool) -> asyncio.Future[Answer]:
        """Sends a request; the future has the whole response. `timed` notes when the first token came."""
        self._missing, self._tail, self._timed = -1, b"", timed
        self._done = asyncio.get_running_loop().create_future()
        self._answer = Answer(time.monotonic_ns())
        self._transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        self._answer.parts.append(data)
        if self._timed and b"held:" in data:
            self._answer.first_token_ns = time.monotonic_ns()
            self._timed = False
        if self._missing == -1:
            self._begin()
        elif self._missing >= 0:
            self._missing -= len(data)
        else:
            self._tail = (self._tail + data)[-_TAIL:] if len(data) < _TAIL else data[-_TAIL:]
        if self._missing == 0 or self._tail == wire.WHOLE_CHUNKED_BODY:
            assert self._done is not None
            self._done.set_result(self._answer)

    def _begin(self) -> None:
        so_far = b"".join(self._answer.parts)
        end = so_far.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _CONTENT_LENGTH.search(so_far, 0, end + 2)
        if length is not None:
            self._missing = int(length[1]) - (len(so_far) - end - 4)
        else:
            self._missing, self._tail = -2, so_far[-_TAIL:]


async def run(phase: Phase) -> Outcome:
    """Runs the phase, then verifies every answer of it."""
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(Connection, "127.0.0.1", phase.port) for _ in range(phase.connections)]
    clients = [client for _, client in opened]
    if phase.warmup_s:
        # Paced streams are warmed up with short ones: every connection has been used, upstream too.
        warmup = replace(phase, rounds=2, chunks=3) if phase.kind == "paced" else phase
        await _together(clients, warmup, seconds=phase.warmup_s if phase.seconds else 0)
    gc.collect()
    cpu_s, busy_s, began = _cpu_s(phase), tree.core_busy_s(phase.core), time.perf_counter()
    answers = await _together(clients, phase, seconds=phase.seconds)
    elapsed_s = time.perf_counter() - began
    cpu_s, busy_s = _cpu_s(phase) - cpu_s, tree.core_busy_s(phase.core) - busy_s
    added = [answer.added_ms() for answer in answers] if phase.kind == "paced" else []
    _verify(phase, answers)
    chunks = len(answers) * phase.chunks
    return Outcome(len(answers), chunks, elapsed_s, cpu_s, max(0.0, busy_s - cpu_s), added)


def _cpu_s(phase: Phase) -> float:
    return tree.cpu_s(phase.pid) if phase.pid else 0.0


async def _together(clients: list[Connection], phase: Phase, *, seconds: float) -> list[Answer]:
    until = time.perf_counter() + seconds if seconds else None
    driven = (_drive(client, phase, until, delay) for client, delay in zip(clients, _delays(phase), strict=True))
    return [answer for answers in await asyncio.gather(*driven) for answer in answers]


def _delays(phase: Phase) -> Iterator[float]:
    # Paced streams begin evenly over one and a bit intervals, so that their chunks do not all come at once.
    for index in range(phase.connections):
        yield index / phase.connections * phase.interval_ms / 1000 * 13.37


async def _drive(client: Connection, phase: Phase, until: float | None, delay_s: float) -> list[Answer]:
    await asyncio.sleep(delay_s)
    request, timed = phase.request(), phase.kind == "paced"
    answers: list[Answer] = []
    while time.perf_counter() < until if until is not None else len(answers) < phase.rounds:
        answers.append(await client.ask(request, timed=timed))
    return answers


def _verify(phase: Phase, answers: list[Answer]) -> None:
    check = verify.CHECKS[phase.check]
    for answer in answers:
        check(verify.http_body(b"".join(answer.parts)), phase.chunks, phase.kind == "paced")


if __name__ == "__main__":
    gc.disable()
    try:
        outcome = uvloop.run(run(Phase(**json.loads(sys.argv[1]))))
    except (verify.NotWholeError, OSError, ValueError, KeyError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps(asdict(outcome)))
