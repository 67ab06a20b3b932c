"""Scenarios 15 and 16: many requests through an outage, and the books kept of a failover."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from tests.ways import OPENAI_EVENTS, events

from .cases import SLACK_S, Times, case, whole
from .stand import Seen, Stand

REQUESTS: Final = 20
DOWN: Final = 2  # with which request the first goes down
UP: Final = 12  # with which it is back


@case("15", "flap under 20 requests", "no caller sees an error; the breaker opens, spares the first, closes again")
async def flap(stand: Stand, times: Times) -> str:
    """The first goes down and comes back while requests keep coming."""
    stand.second.force("ok")
    keys = {"circuit_breaker_cooldown": times.cooldown} if times.cooldown < 30 else {}
    async with stand.serving(keys, {}):
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(_later(stand, number, times)) for number in range(REQUESTS)]
        after = await _until_closed(stand, times)
        transitions = [(row["from"], row["to"]) for row in stand.gateway.lines("circuit")]
    for task in asked:
        whole(task.result())
    slowest = max(task.result().seconds for task in asked)
    by_second = sum(task.result().served_by == "second" for task in asked)
    assert transitions[0] == ("closed", "open"), transitions
    assert transitions[-2:] == [("open", "half_open"), ("half_open", "closed")], transitions
    spared = by_second - len([row for row in stand.asked(stand.first) if row.scenario == "status:500"])
    opened = "->".join(["closed", *(to for _, to in transitions)])
    return f"{REQUESTS} whole, {by_second} by second, slowest {slowest:.1f} s, {opened}, {spared} spared, {after} more"


async def _later(stand: Stand, number: int, times: Times) -> Seen:
    await asyncio.sleep(number * times.flap / REQUESTS)
    if number in (DOWN, UP):
        stand.first.force("status:500" if number == DOWN else None)
    return await stand.ask(f"question {number}")


async def _until_closed(stand: Stand, times: Times) -> int:
    """Asks on until the circuit has closed; how often."""
    for number in range(int((times.cooldown + SLACK_S) * 10)):
        if stand.gateway.lines("circuit")[-1]["to"] == "closed":
            return number
        whole(await stand.ask(f"after {number}"))
        await asyncio.sleep(times.cooldown / 10)
    raise AssertionError("the circuit did not close")


@case("16", "failover accounting", "headers, log lines and usage agree with what three upstreams saw")
async def accounting(stand: Stand, times: Times) -> str:
    """The first is overloaded, the second resets, the third answers: every book says so."""
    stand.third.force("ok")
    stand.second.force("reset")
    none = {"max_retries": 0}
    async with stand.serving(none, none, {}):
        seen = await stand.ask("fault:status:503", **stand.counted)
        request = await stand.line()
        decisions = stand.gateway.lines("failover")
    whole(seen, by="third")
    assert stand.counts() == [1, 1, 1], stand.counts()
    if not seen.early:
        assert (seen.header("X-Attempts"), seen.header("X-Failed-Providers")) == ("3", "first,second")
    _log_is_right(request, decisions)
    _usage_is_right(seen, request)
    return stand.report(seen) + f" · attempts {seen.header('X-Attempts')}, failed {seen.header('X-Failed-Providers')}"


def _log_is_right(request: dict[str, Any], decisions: list[dict[str, Any]]) -> None:
    books = (request["provider"], request["attempts"], list(request["failed_providers"]), request["error"])
    assert books == ("third", 3, ["first", "second"], None), books
    rows = [(row["provider"], row["error"], row["decision"]) for row in decisions]
    expected = [("first", "upstream_error", "failover"), ("second", "connection_error", "failover")]
    assert rows == expected, rows


def _usage_is_right(seen: Seen, request: dict[str, Any]) -> None:
    counted = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    assert {name: request[name] for name in counted} == counted
    if not seen.reply.streamed:
        usage = seen.reply.json["usage"]
    elif seen.reply.way is OPENAI_EVENTS:
        usage = json.loads([data for _, data in events(seen.reply.body)][-2])["usage"]
    else:
        usage = json.loads(events(seen.reply.body)[-1][1])["usage"]
    assert {name: usage[name] for name in counted} == counted, usage
