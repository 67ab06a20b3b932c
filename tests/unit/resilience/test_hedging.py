"""The same question to several at once: who wins, what becomes of the others, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import BadRequest, ContentFilter, EchoBrainError, RateLimited, UpstreamError
from shared.resilience.hedging import first_of
from tests.simulation.virtual_time import VirtualLoop, run
from tests.unit.scripted import NEVER, now_s, virtually

Run = Callable[[], Coroutine[Any, Any, str]]


@dataclass
class Patience:
    """Waits as long as each of `waits_s` before another is started; `refuses` are those that it then does not start."""

    waits_s: list[float]
    refuses: int = 0
    looked: int = 0
    next_s: float = field(default_factory=now_s)

    def wait_s(self) -> float | None:
        """Until the next start."""
        self.looked += 1
        return max(0.0, self.next_s + self.waits_s[0] - now_s()) if self.waits_s else None

    def start_another(self) -> bool:
        """Whether the next shall start."""
        self.waits_s.pop(0)
        self.next_s = now_s()
        self.refuses -= 1
        return self.refuses < 0


@dataclass
class Runs:
    """Runs that end after so many seconds with a text or an error; notes which of them were cancelled and gone when."""

    plans: Sequence[tuple[float, str | BaseException]]
    tidying_s: float = 0.0
    started_s: list[float] = field(default_factory=list)
    cancelled_s: dict[int, float] = field(default_factory=dict)
    gone_s: dict[int, float] = field(default_factory=dict)
    discarded: list[str] = field(default_factory=list)

    async def __call__(self) -> str:
        """The next run."""
        number = len(self.started_s)
        self.started_s.append(now_s())
        length_s, result = self.plans[number]
        try:
            if length_s == NEVER:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(length_s)
        except asyncio.CancelledError:
            self.cancelled_s[number] = now_s()
            if self.tidying_s:
                await asyncio.sleep(self.tidying_s)
            raise
        finally:
            self.gone_s[number] = now_s()
        if isinstance(result, BaseException):
            raise result
        return result

    async def discard(self, result: str) -> None:
        """Takes what came too late."""
        self.discarded.append(result)

    async def race(self, *waits_s: float, refuses: int = 0) -> str:
        """The first of them."""
        return await first_of(self, Patience(list(waits_s), refuses), self.discard)


@virtually
async def test_a_quick_one_runs_alone() -> None:
    """Nobody is started beside it."""
    runs = Runs([(1.0, "first")])
    assert await runs.race(2.0) == "first"
    assert len(runs.started_s) == 1


@pytest.mark.parametrize(("lengths", "winner", "loser"), [((5.0, 1.0), "b", 0), ((3.0, 5.0), "a", 1)])
@virtually
async def test_the_first_result_wins(lengths: tuple[float, float], winner: str, loser: int) -> None:
    """Whoever brings it; the other is cancelled at that moment."""
    runs, began_s = Runs([(lengths[0], "a"), (lengths[1], "b")]), now_s()
    assert await runs.race(2.0) == winner
    won_s = now_s()
    await asyncio.sleep(60.0)
    assert won_s - began_s == 3.0
    assert (runs.cancelled_s, runs.gone_s, runs.discarded) == ({loser: won_s}, {0: won_s, 1: won_s}, [])


@virtually
async def test_nobody_waits_for_the_losers() -> None:
    """All are cancelled at once, and what takes its time to close does so while the result goes out."""
    runs, began_s = Runs([(NEVER, "a"), (NEVER, "b"), (1.0, "c")], tidying_s=30.0), now_s()
    assert await runs.race(1.0, 1.0) == "c"
    assert now_s() - began_s == 3.0
    await asyncio.sleep(31.0)
    assert runs.cancelled_s == {0: began_s + 3.0, 1: began_s + 3.0}
    assert runs.gone_s == {0: began_s + 33.0, 1: began_s + 33.0, 2: began_s + 3.0}


@virtually
async def test_starts_come_as_patience_has_it() -> None:
    """One after the other, each after its own wait; what it refuses is not started."""
    runs, began_s = Runs([(NEVER, "a"), (NEVER, "b"), (1.0, "c")]), now_s()
    assert await runs.race(2.0, 0.5, 3.0, refuses=1) == "c"
    assert [at_s - began_s for at_s in runs.started_s] == [0.0, 2.5, 5.5]


@virtually
async def test_two_results_at_the_same_moment_are_one_and_one_discarded() -> None:
    """Neither is lost: what is not handed out may hold something open."""
    runs = Runs([(3.0, "a"), (1.0, "b")])
    won = await runs.race(2.0)
    assert sorted([won, *runs.discarded]) == ["a", "b"]


@pytest.mark.parametrize("end", ["quick", ContentFilter()])
@virtually
async def test_a_result_in_spite_of_the_cancellation_is_discarded(end: str | BaseException) -> None:
    """A run may be done the moment it is cancelled, whether another has won or all is over."""

    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60.0)
        return "late"

    discarded: list[str] = []
    answers: Iterator[Run] = iter([stubborn, Runs([(1.0, end)])])

    async def discard(result: str) -> None:
        discarded.append(result)

    race = first_of(lambda: next(answers)(), Patience([1.0]), discard)
    (outcome,) = await asyncio.gather(race, return_exceptions=True)
    assert outcome is end
    await asyncio.sleep(0)
    assert discarded == ["late"]


@pytest.mark.parametrize(
    ("plans", "result", "after_s"),
    [
        ([(3.0, UpstreamError()), (4.0, "b")], "b", 6.0),
        ([(9.0, "a"), (1.0, UpstreamError())], "a", 9.0),
        ([(3.0, UpstreamError()), (4.0, RateLimited())], RateLimited, 6.0),
        ([(9.0, RateLimited()), (1.0, UpstreamError())], RateLimited, 9.0),
        ([(1.0, RateLimited())], RateLimited, 1.0),
    ],
)
@virtually
async def test_a_failure_waits_for_the_others(
    plans: list[tuple[float, str | BaseException]], result: str | type[BaseException], after_s: float
) -> None:
    """While another may still answer; when all have failed, the last failure is raised, and at once."""
    runs, began_s = Runs(plans), now_s()
    if isinstance(result, str):
        assert await runs.race(2.0) == result
    else:
        with pytest.raises(result):
            await runs.race(2.0)
    assert now_s() - began_s == after_s


@virtually
async def test_what_one_finds_wrong_another_may_answer() -> None:
    """One target may lack the model that the other is answering with; if that fails too, the refusal is told."""
    assert await Runs([(4.0, "a"), (1.0, BadRequest())]).race(2.0) == "a"
    with pytest.raises(BadRequest):
        await Runs([(4.0, UpstreamError()), (1.0, BadRequest())]).race(2.0)


@pytest.mark.parametrize("error", [ContentFilter(), ZeroDivisionError()])
@virtually
async def test_what_is_the_same_everywhere_ends_all(error: BaseException) -> None:
    """A refusal of the content, or a bug: the others are cancelled at once."""
    runs, began_s = Runs([(NEVER, "a"), (1.0, error)]), now_s()
    with pytest.raises(type(error)):
        await runs.race(2.0)
    await asyncio.sleep(60.0)
    assert runs.cancelled_s == {0: began_s + 3.0}


@pytest.mark.parametrize("plans", [[(3.0, "a"), (1.0, BadRequest())], [(3.0, BadRequest()), (1.0, "a")]])
@virtually
async def test_a_result_goes_before_a_failure_of_the_same_moment(
    plans: list[tuple[float, str | BaseException]],
) -> None:
    """There is an answer: nobody is told that the request was refused. In either order, for sets have none."""
    assert await Runs(plans).race(2.0) == "a"


@virtually
async def test_a_cancellation_cancels_all() -> None:
    """The caller left: each run is cancelled at once, and may tidy up."""
    runs, began_s = Runs([(NEVER, "a"), (NEVER, "b")], tidying_s=0.5), now_s()
    task = asyncio.create_task(runs.race(1.0))
    await asyncio.sleep(2.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(1.0)
    assert runs.cancelled_s == {0: began_s + 2.0, 1: began_s + 2.0}
    assert runs.gone_s == {0: began_s + 2.5, 1: began_s + 2.5}


@virtually
async def test_a_caller_that_leaves_as_the_race_is_won_does_not_lose_the_winner() -> None:
    """What has won is discarded like any result that nobody takes, whatever the loser does meanwhile."""
    gate = asyncio.get_running_loop().create_future()
    discarded: list[str] = []

    async def discard(result: str) -> None:
        discarded.append(result)

    async def gated() -> str:
        await gate
        return "b"

    answers: Iterator[Run] = iter([Runs([(NEVER, "a")], tidying_s=5.0), gated])
    task = asyncio.create_task(first_of(lambda: next(answers)(), Patience([1.0]), discard))
    await asyncio.sleep(2.0)
    gate.set_result(None)
    await asyncio.sleep(0)  # b has won, and nobody has looked yet
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert discarded == ["b"]


@virtually
async def test_it_does_not_turn_in_circles() -> None:
    """While it waits it sleeps: patience is asked once a start and once an end."""
    patience = Patience([10.0, 10.0, 10.0])
    runs = Runs([(25.0, UpstreamError()), (60.0, "b"), (60.0, "c"), (60.0, "d")])
    assert await first_of(runs, patience, runs.discard) == "b"
    assert patience.looked <= 6


ENDS = st.one_of(st.sampled_from(["result"]), st.sampled_from([UpstreamError, RateLimited, BadRequest]))
PLANS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]), ENDS), min_size=1, max_size=4)
LEAVES_S = st.sampled_from([None, 0.0, 0.5, 0.7, 1.0, 1.3, 2.5, 4.0])


@settings(max_examples=300)
@given(PLANS, st.lists(st.sampled_from([0.5, 1.0, 2.0]), max_size=3), LEAVES_S, st.sampled_from([0.0, 1.1]))
def test_under_any_schedule_nothing_is_lost(
    plans: list[tuple[float, str | type[EchoBrainError]]],
    waits_s: list[float],
    leaves_s: float | None,
    tidying_s: float,
) -> None:
    """Whoever ends when, and whether the caller leaves: each result is handed out or discarded, no run goes on."""
    ends = [(at_s, f"{number}" if isinstance(end, str) else end()) for number, (at_s, end) in enumerate(plans)]
    runs = Runs(ends, tidying_s)
    loop = VirtualLoop()
    taken = run(_tried(runs, waits_s[: len(plans) - 1], leaves_s), loop)
    results = [n for n in runs.gone_s if n not in runs.cancelled_s and isinstance(plans[n][1], str)]
    assert sorted([*taken, *runs.discarded]) == sorted(map(str, results))
    assert sorted(runs.gone_s) == list(range(len(runs.started_s)))
    assert loop.complaints == []


async def _tried(runs: Runs, waits_s: Iterable[float], leaves_s: float | None) -> list[str]:
    """What the caller got."""
    race: Awaitable[str] = runs.race(*waits_s)
    task = asyncio.ensure_future(race)
    if leaves_s is not None:
        await asyncio.sleep(leaves_s)
        task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(60.0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return [outcome] if isinstance(outcome, str) else []
