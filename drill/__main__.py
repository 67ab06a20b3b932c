"""`python -m drill`, or `make drill`: exits with 0 when no caller noticed, and the circuit opened and closed."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from drill.servers import NotStartedError
from drill.story import Drill, Plan

QUICK = Plan(steady_s=1.0, outage_s=0.1, recovered_s=0.5, cooldown_s=1.0)


def main() -> int:
    """Runs the drill; 1 when it was not passed or could not be run, 130 when it was interrupted."""
    parser = argparse.ArgumentParser("python -m drill", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter acts")
    parser.add_argument("--no-continuation", action="store_true", help="a survivor that cannot go on with a cut stream")
    options = parser.parse_args()
    plan = replace(QUICK if options.quick else Plan(), continues=not options.no_continuation)
    for number in (signal.SIGTERM, signal.SIGHUP):  # they end it as orderly as Ctrl-C does
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        folder = Path(tempfile.mkdtemp(prefix="echo-brain-drill-"))
        drill = Drill(plan, folder, lambda line: print(line, flush=True))
        asyncio.run(drill.run())
    except NotStartedError as error:
        print(f"The drill could not be run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; what was started is stopped.", file=sys.stderr)
        return 130
    complaints = drill.complaints()
    print("", *(f"  {name:34}{value:>6}" for name, value in drill.table().items()), "", sep="\n")
    print("Not passed: " + "; ".join(complaints) if complaints else "Passed: no caller noticed.")
    print(f"The gateway's configuration, and its log with a line for each decision: {folder}/gateway.*")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
