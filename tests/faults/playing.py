"""The table of scenarios, and what several of them share: the good answer and the part before a fault."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from . import answers
from .exchange import Exchange

Scenario = Callable[..., Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    """Enters a coroutine in the table."""

    def enter(play: Scenario) -> Scenario:
        SCENARIOS[name] = play
        return play

    return enter


def good_body(x: Exchange) -> bytes:
    """The right answer to a request that is not streamed."""
    if x.request.method == "GET":
        return answers.model_list()
    return answers.odd(answers.completion(x.payload))


async def play(x: Exchange, events: Iterable[bytes]) -> None:
    """A stream of these events with a proper end."""
    await x.open_stream()
    await x.chunks(events)
    await x.end()


async def begin(x: Exchange, count: int) -> None:
    """The part before the fault: `count` tokens, or half of a body whose whole length was declared."""
    if x.streamed:
        await x.open_stream()
        return await x.chunks(answers.script(x.payload).until(count))
    whole = good_body(x)
    await x.start({"Content-Type": "application/json", "Content-Length": len(whole)})
    return await x.body(whole[: len(whole) // 2])


async def half_json(x: Exchange) -> None:
    """Half of a JSON text, well framed."""
    whole = good_body(x)
    await x.whole(whole[: len(whole) // 2])


@scenario("ok")
async def ok(x: Exchange) -> None:
    """A good answer."""
    if x.streamed:
        await play(x, answers.script(x.payload).whole())
    else:
        await x.whole(good_body(x))


@scenario("turns")
async def turns(x: Exchange, *words: str) -> None:
    """`turns:A/B/C`: requests with the same text get A, B, C and from then on the last one; blanks cannot be in it."""
    names = ":".join(words).split("/")
    turn = min(x.seen[x.text], len(names) - 1)
    x.seen[x.text] += 1
    name, *arguments = names[turn].split(":")
    if name not in SCENARIOS:
        raise RuntimeError(f"turns: no such scenario: {name}")
    await SCENARIOS[name](x, *arguments)
