"""What a whole process tree uses: CPU time and memory, from /proc and the process clocks of Linux."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_MIB_PER_KIB = 1 / 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident and proportional set size in MiB, summed over the processes."""

    rss_mib: float
    pss_mib: float


def members(root: int) -> list[int]:
    """The process `root` and all that descend from it."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, ()))
    return found


def cpu_s(root: int) -> float:
    """User and system CPU seconds so far of every living process of the tree, all threads included."""
    # The process clock counts nanoseconds where /proc/PID/stat counts ticks of 10 ms.
    total = 0.0
    for pid in members(root):
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~pid << 3) | 2)
    return total


def core_busy_s(core: int) -> float:
    """CPU seconds so far that a core was not idle, whoever used it."""
    for line in (_PROC / "stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, *interrupts = map(int, ticks[:8])
            return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def memory(root: int) -> Memory:
    """Memory of every process of the tree now."""
    rss = pss = 0
    for pid in members(root):
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                rss += int(rest.split()[0]) if name == "Rss" else 0
                pss += int(rest.split()[0]) if name == "Pss" else 0
    return Memory(rss * _MIB_PER_KIB, pss * _MIB_PER_KIB)


def settled_memory(root: int, limit_s: float = 3.0) -> Memory:
    """Memory of the tree once it has stopped changing by more than half a percent, or after `limit_s`."""
    limit = time.monotonic() + limit_s
    last = memory(root)
    while time.monotonic() < limit:
        time.sleep(0.25)
        now = memory(root)
        if abs(now.pss_mib - last.pss_mib) < last.pss_mib * 0.005:
            return now
        last = now
    return last


def _parents() -> Iterator[tuple[int, int]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name of the command, in brackets, may itself hold spaces and brackets.
                after = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), int(after[1])
