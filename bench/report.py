"""The figures as text: the raw table, then the ratios with their targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.measure import Figures
from bench.subjects import SUBJECTS

_TITLES = {"direct": "(no gateway: the load generator's limit)", **{s.name: s.title for s in SUBJECTS}}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the raw table: its two-line heading and the figure it shows."""

    heading: tuple[str, str]
    figure: str
    form: str


COLUMNS = (
    Column(("CPU-ms", "a chat"), "chat_cpu_ms", "{:.3f}"),
    Column(("chunks/s", "bursts"), "burst_per_s", "{:,.0f}"),
    Column(("CPU-ms per", "1,000 paced"), "paced_cpu_ms", "{:.1f}"),
    Column(("added TTFT", "median ms"), "added_p50_ms", "{:.2f}"),
    Column(("added TTFT", "p99 ms"), "added_p99_ms", "{:.2f}"),
    Column(("spawn to", "1st chat s"), "spawn_s", "{:.3f}"),
    Column(("idle RSS", "MiB"), "rss_mib", "{:.1f}"),
    Column(("idle PSS", "MiB"), "pss_mib", "{:.1f}"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A promise about one figure of a subject against the same figure of another."""

    title: str
    subject: str
    figure: str
    base: str
    limit: float
    how: str = "at most"  # at most | at least
    apart: bool = False  # a difference, not a ratio


TARGETS = (
    Target("CPU per chat, OpenAI dialect / byte copier", "echo", "chat_cpu_ms", "copier", 6),
    Target("chunks/s in bursts, OpenAI dialect / byte copier", "echo", "burst_per_s", "copier", 0.22, "at least"),
    Target(
        "chunks/s in bursts, Brain dialect / byte copier",
        "echo_stream",
        "burst_per_s",
        "copier",
        0.10,
        "at least",
    ),
    Target("CPU per 1,000 paced chunks, OpenAI / byte copier", "echo", "paced_cpu_ms", "copier", 1.3),
    Target("added time to first token, ms over byte copier", "echo", "added_p50_ms", "copier", 1, apart=True),
    Target("spawn to first chat, stub / bare function", "echo_stub", "spawn_s", "bare", 1.3),
    Target("spawn to first chat, OpenAI / bare function", "echo", "spawn_s", "bare", 3.0),
    Target("idle PSS, OpenAI / framework with aiohttp", "echo", "pss_mib", "framework_aiohttp", 1.6),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a target: the median and the range over the rounds, None where it was not measured."""

    target: Target
    median: float | None
    lowest: float = 0.0
    highest: float = 0.0

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the promise; None when it was not measured."""
        if self.median is None:
            return None
        if self.target.how == "at least":
            return self.median >= self.target.limit
        return self.median <= self.target.limit


def verdicts(figures: Figures) -> list[Verdict]:
    """Every target against the figures, in the order of the targets."""
    return [_verdict(target, figures) for target in TARGETS]


def text(figures: Figures) -> str:
    """The whole report."""
    return "\n".join([*_table(figures), "", *_targets(figures), *_peers(figures), *_left_out(figures)])


def _verdict(target: Target, figures: Figures) -> Verdict:
    ours = figures.values.get(target.subject, {}).get(target.figure, [])
    base = figures.values.get(target.base, {}).get(target.figure, [])
    if not ours or not base:
        return Verdict(target, None)
    against: Callable[[float, float], float] = (lambda a, b: a - b) if target.apart else (lambda a, b: a / b)
    # Round by round: within one round the machine is the same for both, over the rounds it need not be.
    each = [against(a, b) for a, b in zip(ours, base, strict=False)]
    return Verdict(target, statistics.median(each), min(each), max(each))


def _table(figures: Figures) -> Iterator[str]:
    yield "Medians; below each, half the range over the rounds in percent of it, and the number of rounds."
    yield f"Others took up to {_disturbance(figures):.0%} of the measured core meanwhile."
    yield ""
    for line in (0, 1):
        yield f"{'':40}" + "".join(f"{column.heading[line]:>13}" for column in COLUMNS)
    for name, title in _TITLES.items():
        values = figures.values.get(name)
        if values:
            yield f"{title:40}" + "".join(f"{_median(values, column):>13}" for column in COLUMNS)
            yield f"{'':40}" + "".join(f"{_spread(values.get(column.figure, [])):>13}" for column in COLUMNS)


def _disturbance(figures: Figures) -> float:
    return max((max(values.get("others", [0.0])) for values in figures.values.values()), default=0.0)


def _median(values: dict[str, list[float]], column: Column) -> str:
    if column.figure == "added_p99_ms":
        return column.form.format(_p99(values["added_ms"])) if len(values.get("added_ms", ())) > 1 else "-"
    measured = values.get(column.figure)
    if not measured or not any(measured):
        return "-"
    return column.form.format(statistics.median(measured))


def _p99(added_ms: Sequence[float]) -> float:
    """Over the streams of all rounds: those of one are too few."""
    return statistics.quantiles(added_ms, n=100, method="inclusive")[98]


def _spread(measured: Sequence[float]) -> str:
    if len(measured) < 2 or not any(measured):
        return ""
    half = (max(measured) - min(measured)) / 2 / statistics.median(measured)
    return f"±{half:.0%} of {len(measured)}"


def _targets(figures: Figures) -> Iterator[str]:
    yield f"{'':50}{'measured':>10}{'range':>18}{'target':>10}"
    for verdict in verdicts(figures):
        target = verdict.target
        sign = "≥" if target.how == "at least" else "≤"
        goal = f"{sign} {target.limit:g}"
        if verdict.median is None:
            yield f"{target.title:50}{'-':>10}{'':18}{goal:>10}  not measured"
            continue
        spread = f"{verdict.lowest:.2f} … {verdict.highest:.2f}"
        word = "reached" if verdict.reached else "NOT REACHED"
        yield f"{target.title:50}{verdict.median:>10.2f}{spread:>18}{goal:>10}  {word}"


def _peers(figures: Figures) -> Iterator[str]:
    """Whether the product streams faster than LiteLLM, where both were measured."""
    ours, theirs = (figures.values.get(name, {}).get("burst_per_s") for name in ("echo", "litellm"))
    if ours and theirs:
        times = statistics.median(ours) / statistics.median(theirs)
        yield f"{'chunks/s in bursts, OpenAI dialect / LiteLLM':50}{times:>10.1f}{'':18}{'> 1':>10}  " + (
            "reached" if times > 1 else "NOT REACHED"
        )


def _left_out(figures: Figures) -> Iterator[str]:
    for name, reason in figures.unmeasured.items():
        yield ""
        yield f"Not measured: {_TITLES[name]}: {reason}"
