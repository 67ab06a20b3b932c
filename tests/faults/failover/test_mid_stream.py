"""After the first content byte: gone on with by a target that continues a text, else an honest error."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Final

import pytest

from tests.ways import OPENAI_EVENTS, STREAM_WAYS, WAYS, Way, events

from .cases import SMALL, failed, whole
from .stand import TEXT, Seen, in_every_way, standing, together
from .streams import ALL, CONTINUES, not_shown_as_whole, one_openai_stream

SOME: Final = "Hello,"
# What breaks a stream after two tokens, and the code of the error where nobody goes on.
BREAKS: Final = {
    "cut:2": "upstream_error",
    "cut-reset:2": "upstream_error",
    "clean-end:2": "upstream_error",
    "in-band-error:2": "upstream_error",
    "in-band-code:429:2": "rate_limit",
    "in-band-code:503:2": "upstream_error",
    "malformed-cut:2": "upstream_error",
    "done-without-finish:2": "upstream_error",
    "stall:2": "timeout",
    "stall-pings:2": "timeout",
}
# And what does so after all of the text.
LATE_BREAKS: Final = ("cut:4", "clean-end:4", "null-finish", "finish-error")
UNABLE: Final = ("status:500", "status:401", "reset", "html", "silent")  # to go on
TOOLS: Final = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
SCHEMA: Final = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


async def test_a_broken_stream_is_gone_on_with() -> None:
    """The text is exact, the stream is one, and the books name both."""

    async def play(fault: str, way: Way) -> None:
        async with standing(way, keys=SMALL.keys) as stand:
            stand.second.force("continue")
            async with stand.serving({"idle_timeout": 0.2}, CONTINUES):
                seen = await stand.ask(f"fault:{fault}")
                await stand.left(stand.first)
                line = await stand.line()
            whole(seen, TEXT, by="first")
            assert stand.counts() == [1, 1, 0]
            assert stand.second.requests[0].json["messages"][-1] == {"role": "assistant", "content": SOME}
            assert (line["provider"], list(line["continued_by"])) == ("first", ["second"])
            assert (line["attempts"], list(line["failed_providers"]), line["error"]) == (2, ["first"], None)

    await together({f"{fault} {way}": partial(play, fault, way) for fault in BREAKS for way in STREAM_WAYS})


async def test_a_broken_stream_that_nobody_goes_on_with_is_an_error() -> None:
    """The second does not continue texts: it is not asked, and what was shown is not called whole."""

    async def play(fault: str, way: Way) -> None:
        async with standing(way, keys=SMALL.keys) as stand:
            stand.second.force("ok")
            async with stand.serving({"idle_timeout": 0.2}, {}):
                seen = await stand.ask(f"fault:{fault}")
                await stand.left(stand.first)
                line = await stand.line()
            failed(seen, BREAKS[fault], 200, SOME)
            not_shown_as_whole(seen)
            assert stand.counts() == [1, 0, 0]
            assert (line["error"], list(line["failed_providers"])) == (BREAKS[fault], ["first"])

    await together({f"{fault} {way}": partial(play, fault, way) for fault in BREAKS for way in STREAM_WAYS})


async def test_a_stream_that_breaks_behind_its_last_token_is_whole_or_broken_but_never_doubled() -> None:
    """The one who goes on has nothing to add; the text is not said twice."""

    async def play(fault: str, way: Way) -> None:
        async with standing(way, keys=SMALL.keys) as stand:
            stand.second.force("continue")
            async with stand.serving({}, CONTINUES):
                seen = await stand.ask(f"fault:{fault}")
            assert seen.verdict.text == TEXT
            assert seen.verdict.code in (None, "upstream_error")

    await together({f"{fault} {way}": partial(play, fault, way) for fault in LATE_BREAKS for way in STREAM_WAYS})


async def test_a_stream_is_handed_on_as_often_as_it_takes() -> None:
    """The second breaks off, too, and the third ends the same text."""

    async def play(way: Way) -> None:
        async with standing(way, keys=SMALL.keys) as stand:
            stand.second.force("continue:60:15")
            stand.third.force("continue:60")
            async with stand.serving({}, CONTINUES, CONTINUES):
                seen = await stand.ask("fault:cut-of:40:60", **stand.counted)
                line = await stand.line()
            whole(seen, ALL, by="first")
            assert stand.counts() == [1, 1, 1]
            prefill = stand.third.requests[0].json["messages"]
            assert [message["role"] for message in prefill] == ["user", "assistant"]
            assert prefill[-1]["content"] == "".join(f" w{number}" for number in range(55))
            assert list(line["continued_by"]) == ["second", "third"]
            assert list(line["failed_providers"]) == ["first", "second"]
            if way is OPENAI_EVENTS:
                one_openai_stream(seen)

    await in_every_way(STREAM_WAYS, play)


async def test_who_cannot_go_on_is_passed_over() -> None:
    """The second fails before it says anything: the third goes on from the same place."""

    async def play(fault: str, way: Way) -> None:
        async with standing(way, keys=SMALL.keys) as stand:
            stand.second.force(fault)
            stand.third.force("continue:60")
            async with stand.serving({}, {**CONTINUES, "first_token_timeout": 0.2}, CONTINUES):
                seen = await stand.ask("fault:cut-of:40:60")
                line = await stand.line()
            whole(seen, ALL, by="first")
            assert list(line["continued_by"]) == ["third"]

    await together({f"{fault} {way}": partial(play, fault, way) for fault in UNABLE for way in STREAM_WAYS})


async def test_a_target_that_does_not_continue_texts_is_passed_over() -> None:
    """Priority says the second, but only the third continues."""

    async def play(way: Way) -> None:
        async with standing(way, keys=SMALL.keys) as stand:
            stand.second.force("ok")
            stand.third.force("continue:60")
            async with stand.serving({}, {}, CONTINUES):
                whole(await stand.ask("fault:cut-of:40:60"), ALL, by="first")
            assert stand.counts() == [1, 0, 1]

    await in_every_way(STREAM_WAYS, play)


NEVER: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "tool calls": ("cut:2", {"tools": TOOLS}),
    "json_object": ("cut:1", {"response_format": {"type": "json_object"}}),
    "json_schema": ("cut:1", {"response_format": SCHEMA}),
}


@pytest.mark.parametrize("what", NEVER)
async def test_structure_is_never_continued(what: str) -> None:
    """Half a tool call or half a document is an error, whoever could go on with a text."""
    fault, more = NEVER[what]

    async def play(way: Way) -> None:
        async with standing(way, keys=SMALL.keys) as stand:
            stand.second.force("continue")
            async with stand.serving({}, CONTINUES):
                seen = await stand.ask(f"fault:{fault}", **more)
            assert seen.verdict.code == "upstream_error"
            not_shown_as_whole(seen)
            assert stand.counts() == [1, 0, 0]

    await in_every_way(STREAM_WAYS, play)


@pytest.mark.parametrize("more", [{"n": 2}, {"logprobs": True}], ids=str)
async def test_several_choices_are_never_continued(more: dict[str, Any]) -> None:
    """One trailing message cannot stand for two answers; with logprobs it may, but then honestly."""
    async with standing(OPENAI_EVENTS, keys=SMALL.keys) as stand:
        stand.second.force("continue")
        async with stand.serving({}, CONTINUES):
            seen = await stand.ask("fault:cut:2", **more)
        if "n" in more:
            assert (seen.verdict.code, stand.counts()) == ("upstream_error", [1, 0, 0])
        else:
            whole(seen, TEXT)


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_structure_that_breaks_before_its_first_byte_goes_to_the_next(way: Way) -> None:
    """Nothing has been shown: tools and documents fail over like any other request."""
    async with standing(way, keys=SMALL.keys) as stand:
        stand.second.force("ok")
        async with stand.serving({}, {}):
            seen = await stand.ask("fault:cut:0", response_format={"type": "json_object"})
        assert json.loads(seen.verdict.text) == {"city": "Paris"}


async def test_the_usage_of_a_continued_stream_is_one() -> None:
    """The counts go out once, and the log has the same."""

    async def play(way: Way) -> None:
        async with standing(way, keys=SMALL.keys) as stand:
            stand.second.force("continue:60")
            async with stand.serving({}, CONTINUES):
                seen = await stand.ask("fault:cut-of:40:60", **stand.counted)
                line = await stand.line()
            usage = usage_of(seen)
            assert usage["completion_tokens"] >= 20
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
            assert {name: line[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")} == {
                name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
            }

    await in_every_way(STREAM_WAYS, play)


def usage_of(seen: Seen) -> dict[str, int]:
    """The only counts in a stream."""
    bodies = [json.loads(data) for _, data in events(seen.reply.body) if data != "[DONE]"]
    (usage,) = [body["usage"] for body in bodies if body.get("usage")]
    found: dict[str, int] = usage
    return found
