"""`python -m bench`: measures the gateway beside a byte copier, a bare function and peers."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bench import processes, report
from bench.measure import QUICK, Bench, Figures, Plan, show_progress
from bench.processes import Cores
from bench.subjects import SUBJECTS, Subject


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 1 when a subject that could be measured failed."""
    options = _options(arguments)
    plan = QUICK if options.quick else Plan()
    if options.repeat:
        plan = replace(plan, rounds=options.repeat, spawns=max(plan.spawns, options.repeat))
    chosen = [subject for subject in SUBJECTS if not options.only or subject.name in options.only]
    began, cores = time.monotonic(), Cores.available()
    figures = _measure(plan, chosen, cores)
    machine = _machine(cores)
    print(report.text(figures))
    print(f"\n{machine}; {time.monotonic() - began:.0f} s")
    if options.json:
        options.json.write_text(_json(machine, plan, figures))
    absent = {subject.name for subject in chosen if subject.missing()}
    return 1 if figures.unmeasured.keys() - absent else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--quick", action="store_true", help="one short round: a rough look")
    parser.add_argument("--repeat", type=int, metavar="N", help="so many rounds of every measurement")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"of: {', '.join(names)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value of every round there too")
    return parser.parse_args(arguments)


def _measure(plan: Plan, chosen: Sequence[Subject], cores: Cores) -> Figures:
    os.sched_setaffinity(0, {cores.load})  # the load generator inherits it
    port = processes.free_port()
    command = [sys.executable, "-m", "bench.upstream", str(port)]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with processes.running(command, port, folder / "upstream.log", {}, cores.load) as upstream:
            processes.seconds_to_first_answer(upstream, chosen[0].chat_request())
            bench = Bench(plan, cores, folder, port)
            present = [subject for subject in chosen if not subject.missing()]
            bench.figures.unmeasured |= {s.name: s.missing() for s in chosen if s.missing()}
            bench.run(present)
    show_progress("")
    return bench.figures


def _machine(cores: Cores) -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    shared = " (the same: figures are worthless as a limit)" if cores.subject == cores.load else ""
    return f"{model}, {os.cpu_count()} cores{shared}; Python {platform.python_version()}, {platform.release()}"


def _json(machine: str, plan: Plan, figures: Figures) -> str:
    found = [
        {
            **asdict(v.target),
            "median": v.median,
            "lowest": v.lowest,
            "highest": v.highest,
            "reached": v.reached,
        }
        for v in report.verdicts(figures)
    ]
    whole = {"machine": machine, "plan": asdict(plan), "targets": found, **asdict(figures)}
    return json.dumps(whole, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
