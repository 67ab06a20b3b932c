"""The deadline of a request: never passed by more than 100 ms, whatever its providers do in whichever order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.models import Route, Target, Wishes
from shared.settings import BreakerPolicy, Limits, ProviderSettings, RetryPolicy, Serving
from tests.simulation.ending import check
from tests.simulation.schedule import Schedule, Visit, request
from tests.simulation.scripts import IN_BAND, REFUSALS, Script, Step
from tests.simulation.world import play

LATE_S = 0.1

durations_s = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 10.0]) | st.floats(0.0, 20.0)
limits = st.builds(
    Limits,
    request_s=st.floats(0.5, 10.0),
    streaming_s=st.floats(0.5, 10.0),
    first_token_s=st.floats(0.2, 5.0),
    idle_s=st.floats(0.2, 5.0),
)
policies = st.builds(
    lambda most, least_s, factor: RetryPolicy(most, least_s, least_s * factor),
    st.integers(0, 5),
    st.floats(0.0, 5.0),
    st.sampled_from([1.0, 4.0, 100.0]),
)
told = st.builds(Step, st.sampled_from(["ping", "token", "tool"]), durations_s)
last = (
    st.builds(Step, st.just("raise"), durations_s, st.sampled_from([*REFUSALS, *IN_BAND]))
    | st.builds(Step, st.just("end"), durations_s | st.just(math.inf))
    | st.builds(Step, st.just("ping"), durations_s)
)
scripts = st.builds(lambda steps, end: Script((*steps, end)), st.lists(told, max_size=6), last)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """One request, its providers, and what they do with each of its calls."""
    names = [f"p{number}" for number in range(draw(st.integers(1, 3)))]
    providers = tuple(_provider(name, *draw(st.tuples(limits, policies, st.booleans()))) for name in names)
    hedge_after_s = draw(st.none() | st.floats(0.1, 2.0))
    plays = {name: itertools.cycle(draw(st.lists(scripts, min_size=1, max_size=4))) for name in names}
    route = Route(tuple(Target(name) for name in names), hedge_after_s)
    chat = request(None, "r0", stream=draw(st.booleans()))
    visit = Visit("r0", 0.0, chat, Wishes(), draw(st.sampled_from([None, 1.0])), (0.0,), ())
    return Schedule(0, Serving(providers, {"default": route}), [visit], lambda name, _: next(plays[name]))


def _provider(name: str, own: Limits, policy: RetryPolicy, continues: bool) -> ProviderSettings:
    breaker = BreakerPolicy(threshold=1000)
    return ProviderSettings(
        name, "mock", f"m{name}", limits=own, retries=policy, breaker=breaker, continues_prefill=continues
    )


@settings(max_examples=200, deadline=None)
@given(schedules())
def test_the_deadline_holds_whatever_the_order_of_faults(schedule: Schedule) -> None:
    """The request ends once, at the longest limit of its targets plus 100 ms at the latest, and leaves nothing."""
    world = play(schedule)
    check(world)
    (caller,) = world.callers
    longest_s = _longest_s(schedule.serving.providers, stream=caller.visit.request.stream)
    assert caller.ended_s is not None
    assert caller.ended_s - caller.began_s <= longest_s + LATE_S
    assert world.violations == []


def _longest_s(providers: Sequence[ProviderSettings], *, stream: bool) -> float:
    return max(p.limits.streaming_s if stream else p.limits.request_s for p in providers)
