"""What a caller was shown of a stream, piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, Final

import msgspec

from shared.continuation import added
from shared.models import Usage
from tests.simulation.caller import Caller, arguments
from tests.simulation.provider import Call, request_id

_TOKEN: Final = re.compile(r"(p\d+\.\d+)\.(\d+) ")


def piece_problems(caller: Caller, calls: Sequence[Call], *, whole: bool) -> Iterable[str]:
    """What was shown is the beginning of one answer, or several put together where each but the last broke off."""
    by_name = {call.name: call for call in calls}
    pieces = _TOKEN.findall(caller.shown)
    names = [name for position, (name, _) in enumerate(pieces) if not position or pieces[position - 1][0] != name]
    if len(set(names)) != len(names):
        yield f"was shown a mixture: {names}"
        return
    numbers = {name: [int(number) for source, number in pieces if source == name] for name in names}
    for name, those in numbers.items():
        if those != list(range(len(those))):
            yield f"was shown {those} of {name}"
    if whole:  # who went on may have had nothing to add
        names += [name for name, call in by_name.items() if call.whole and not call.said and name not in names][:1]
    sources = [by_name[name] for name in names]
    for source in sources[: None if whole else -1]:
        if len(source.said) != len(numbers.get(source.name, ())):
            yield f"was not shown all that {source.name} said"
    yield from _told(caller, sources, whole=whole)
    yield from _bytes(caller, sources, whole=whole)


def _told(caller: Caller, sources: Sequence[Call], *, whole: bool) -> Iterable[str]:
    """What the exchange says of the stream."""
    exchange = caller.exchange
    continued_by = [source.provider for source in sources[1:]]
    if caller.outcomes[0] in ("whole", "error") and exchange.continued_by != continued_by:
        yield f"was continued by {continued_by}, and {exchange.continued_by} are named"
    if sources and caller.first_s not in (None, sources[0].answered_s):
        yield f"got the first of {sources[0].answered_s} at {caller.first_s}"
    if sources and (exchange.provider, exchange.model) != sources[0].target:
        yield f"was answered by {sources[0].target}, and {exchange.provider}, {exchange.model} are named"
    if whole != (exchange.finish_reason == "stop"):
        yield f"has the finish reason {exchange.finish_reason}"
    if whole and (not sources or not sources[-1].whole):
        yield "was shown as whole, and no provider has said it whole"
    elif whole:
        yield from _told_at_the_end(caller, sources)


def _told_at_the_end(caller: Caller, sources: Sequence[Call]) -> Iterable[str]:
    exchange = caller.exchange
    if exchange.usage != _used(sources):
        yield f"was told {exchange.usage} instead of {_used(sources)}"
    if exchange.upstream_request_id != request_id(sources[0]):
        yield f"names {exchange.upstream_request_id} instead of {request_id(sources[0])}"
    if [chunk.ending is not None for chunk in caller.chunks] != [False] * (len(caller.chunks) - 1) + [True]:
        yield "has not one ending, at its end"


def _used(sources: Sequence[Call]) -> Usage | None:
    """What all have used together, as far as they have told; nothing where the last has not."""
    if sources[-1].told is None:
        return None
    return reduce(added, [source.told for source in sources if source.told is not None])


def _bytes(caller: Caller, sources: Sequence[Call], *, whole: bool) -> Iterable[str]:
    """The bytes are those of one stream: one id, one role, one end, the last usage that of all."""
    events = [json.loads(line[6:]) for chunk in caller.chunks for line in chunk.data.split(b"\n\n") if line]
    choices = [choice for event in events for choice in event["choices"]]
    text = "".join(_text(choice["delta"]) for choice in choices)
    if text != caller.shown:
        yield f"read {text} and was shown {caller.shown}"
    if {event["id"] for event in events} != {source.name for source in sources[:1]} and events:
        yield f"read the ids {[event['id'] for event in events]}"
    roles = [number for number, choice in enumerate(choices) if "role" in choice["delta"]]
    if roles != [0][: len(choices)]:
        yield f"read a role in the chunks {roles}"
    ends = [number for number, choice in enumerate(choices) if choice["finish_reason"] is not None]
    if ends != [len(choices) - 1] * whole:
        yield f"read an end in the chunks {ends} of {len(choices)}"
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    if whole and caller.exchange.usage is not None and usage != msgspec.to_builtins(caller.exchange.usage):
        yield f"read the usage {usage} instead of {caller.exchange.usage}"


def _text(delta: dict[str, Any]) -> str:
    return delta.get("content") or arguments(delta.get("tool_calls"))
