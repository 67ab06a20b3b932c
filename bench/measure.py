"""Runs the subjects one after the other, in rounds, and collects what each round measured."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from bench import processes, subjects, tree, verify
from bench.load import Outcome, Phase
from bench.processes import Cores, Running
from bench.subjects import Subject

KINDS = ("chat", "burst", "paced")
CONNECTIONS = 8
PACED_STREAMS = 32
PACED_INTERVAL_MS = 10
_LOAD_LIMIT_S = 120.0
_HEAVY_BURST_CHUNKS = 400
_HEAVY_INTERVAL_MS = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a run is. Every figure is the median of its rounds."""

    rounds: int = 5
    spawns: int = 9
    memories: int = 3  # of the spawns, so many go on to the memory of an idle process
    seconds: float = 1.2  # of chats, and of bursts
    warmup_s: float = 0.4
    paced_chunks: int = 200
    burst_chunks: int = 4000


QUICK = Plan(rounds=1, spawns=3, memories=1, seconds=0.7, burst_chunks=2000)


@dataclass(slots=True)
class Figures:
    """Everything measured: subject → figure → one value a round; and why some subject was not."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)

    def add(self, subject: str, figure: str, *values: float) -> None:
        """Adds a round's value (or several values) of a subject's figure."""
        self.values.setdefault(subject, {}).setdefault(figure, []).extend(values)


class Bench:
    """One run: the upstream, the cores, the folder for logs, the figures so far."""

    def __init__(self, plan: Plan, cores: Cores, folder: Path, upstream_port: int) -> None:
        self._plan = plan
        self._cores = cores
        self._folder = folder
        self._upstream = f"http://127.0.0.1:{upstream_port}"
        self._upstream_port = upstream_port
        self.figures = Figures()

    def run(self, chosen: Sequence[Subject]) -> None:
        """Measures the chosen subjects; one that fails is left out from then on, and the reason kept."""
        for kind in KINDS:  # what the load generator and the upstream do with nothing in between
            self._load("direct", self._phase(kind, self._upstream_port, 0))
        self._spawns([subject for subject in chosen if "spawn" in subject.measured])
        light = [subject for subject in chosen if not subject.heavy]
        self._rounds(light, self._plan.rounds)
        for subject in chosen:
            if subject.heavy:
                self._rounds([subject], 1)

    def _spawns(self, chosen: Sequence[Subject]) -> None:
        """Time to the first answer and memory, each subject alone on the machine, taking turns."""
        for number in range(self._plan.spawns + 1):
            for subject in self._still(chosen):
                if subject.heavy and number > 1:
                    continue
                # The first spawn reads files that nobody has read before; it is thrown away.
                with self._blaming(subject, f"spawn {number}"), self._started(subject) as process:
                    seconds = processes.seconds_to_first_answer(process, subject.chat_request())
                    if number:
                        self.figures.add(subject.name, "spawn_s", seconds)
                    if 1 <= number <= self._plan.memories and "memory" in subject.measured:
                        self._memory(subject, process)

    def _rounds(self, chosen: Sequence[Subject], rounds: int) -> None:
        """Chats, bursts and paced streams: all subjects are up, one at a time has work, and they take turns.

        The machine is not equally fast at all times; what is compared is measured within seconds of each other.
        """
        with contextlib.ExitStack() as stack:
            running: dict[str, Running] = {}
            for subject in self._still([subject for subject in chosen if subject.kinds()]):
                with self._blaming(subject, "start"):
                    running[subject.name] = stack.enter_context(self._started(subject))
                    processes.seconds_to_first_answer(running[subject.name], subject.chat_request())
            turns = [(number, kind, each) for number in range(1, rounds + 1) for kind in KINDS for each in chosen]
            for number, kind, subject in turns:
                if kind in subject.kinds() and self._still([subject]):
                    with self._blaming(subject, f"{kind}, round {number}"):
                        process = running[subject.name]
                        phase = self._phase(kind, process.port, process.process.pid)
                        self._load(subject.name, _fitted(phase, subject))

    def _still(self, chosen: Sequence[Subject]) -> list[Subject]:
        return [subject for subject in chosen if subject.name not in self.figures.unmeasured]

    @contextlib.contextmanager
    def _blaming(self, subject: Subject, what: str) -> Iterator[None]:
        """Shows what goes on; notes what went wrong, after which the subject is left out."""
        show_progress(f"{subject.title}: {what}")
        try:
            yield
        except (processes.NotStartedError, verify.NotWholeError, OSError, subprocess.TimeoutExpired) as error:
            self.figures.unmeasured[subject.name] = f"{what}: {type(error).__name__}: {error}"

    def _memory(self, subject: Subject, process: Running) -> None:
        if subject.streams:
            verify.http_body(processes.ask(process.port, subject.stream_request()))
        used = tree.settled_memory(process.process.pid)
        self.figures.add(subject.name, "rss_mib", used.rss_mib)
        self.figures.add(subject.name, "pss_mib", used.pss_mib)

    @contextlib.contextmanager
    def _started(self, subject: Subject) -> Iterator[Running]:
        if subject.heavy:
            subjects.write_litellm_config(self._folder, self._upstream)
        port, log = processes.free_port(), self._folder / f"{subject.name}.log"
        command, environment = subject.command(port, self._folder), subject.environment(self._upstream)
        with processes.running(command, port, log, environment, self._cores.subject) as process:
            yield process

    def _phase(self, kind: str, port: int, pid: int) -> Phase:
        plan = self._plan
        core = self._cores.subject
        phase = Phase(port, kind, CONNECTIONS, plan.seconds, warmup_s=plan.warmup_s, pid=pid, core=core)
        if kind == "burst":
            return replace(phase, chunks=plan.burst_chunks)
        if kind == "paced":
            pace = replace(phase, chunks=plan.paced_chunks, interval_ms=PACED_INTERVAL_MS)
            return replace(pace, connections=PACED_STREAMS, seconds=0, rounds=1)
        return phase

    def _load(self, name: str, phase: Phase) -> None:
        command = [sys.executable, "-m", "bench.load", json.dumps(asdict(phase))]
        done = subprocess.run(command, cwd=processes.ROOT, capture_output=True, timeout=_LOAD_LIMIT_S, check=False)
        if done.returncode:
            raise verify.NotWholeError(done.stderr.decode(errors="replace").strip()[-600:])
        outcome = Outcome(**json.loads(done.stdout))
        for figure, value in _figures(phase.kind, outcome).items():
            self.figures.add(name, figure, value)
        self.figures.add(name, "added_ms", *outcome.added_ms)


def show_progress(what: str) -> None:
    """One line that replaces itself on a terminal; nothing where nobody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def _fitted(phase: Phase, subject: Subject) -> Phase:
    fitted = replace(phase, path=subject.stream_path, check=subject.check)
    if subject.heavy and phase.kind == "burst":
        return replace(fitted, chunks=min(phase.chunks, _HEAVY_BURST_CHUNKS))
    if subject.heavy and phase.kind == "paced":
        return replace(fitted, chunks=phase.chunks // 2, interval_ms=_HEAVY_INTERVAL_MS)
    return fitted


def _figures(kind: str, outcome: Outcome) -> dict[str, float]:
    others = {"others": outcome.others_s / outcome.elapsed_s}
    if kind == "chat":
        rate = outcome.answers / outcome.elapsed_s
        return others | {"chat_cpu_ms": outcome.cpu_s / outcome.answers * 1e3, "chats_per_s": rate}
    if kind == "burst":
        busy = outcome.cpu_s / outcome.elapsed_s
        return others | {"burst_per_s": outcome.chunks / outcome.elapsed_s, "burst_busy": busy}
    paced_cpu_ms = outcome.cpu_s / outcome.chunks * 1e6
    return others | {"paced_cpu_ms": paced_cpu_ms, "added_p50_ms": statistics.median(outcome.added_ms)}
