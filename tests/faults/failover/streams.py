"""Scenarios 6 to 11 and 14: the upstream is silent, late, breaks off, or ends its answer oddly."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.ways import JSON_WAYS, OPENAI_EVENTS, STREAM_WAYS, events

from .cases import Times, at_most, case, failed, whole
from .stand import TEXT, Seen, Stand

TOTAL: Final = 60
CUT: Final = 40
ALL: Final = "".join(f" w{number}" for number in range(TOTAL))
SOME: Final = "".join(f" w{number}" for number in range(CUT))
CONTINUES: Final = {"continues_prefill": True}
EARLY_S: Final = 0.05


@case("6", "no response, another target", "whole, from the second, after the first-token limit; the first asked once")
async def silent(stand: Stand, times: Times) -> str:
    """A provider that takes the request and says nothing."""
    stand.second.force("ok")
    async with stand.serving(dict(times.first_token), {}):
        seen = await stand.ask("fault:silent")
        await stand.left(stand.first)
    whole(seen, by="second")
    assert seen.seconds >= times.first_token_s - EARLY_S
    at_most(times.first_token_s, seen)
    assert stand.counts() == [1, 1, 0], stand.counts()
    return stand.report(seen)


@case("6b", "no response anywhere", "504 timeout in bounded time; each asked once")
async def silent_everywhere(stand: Stand, times: Times) -> str:
    """Two silent providers, one after the other."""
    limits = {**times.first_token, **times.total}
    async with stand.serving(limits, limits):
        seen = await stand.ask("fault:silent")
        await stand.left(stand.first)
        await stand.left(stand.second)
    failed(seen, "timeout", 504)
    at_most(2 * times.first_token_s, seen)
    assert stand.counts() == [1, 1, 0], stand.counts()
    return stand.report(seen)


@case("7", "first token late, within its limit", "whole, from the first, not cut off")
async def late(stand: Stand, times: Times) -> str:
    """Slow is not broken."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask(f"fault:slow-first:{times.late_token}")
    whole(seen, by="first")
    assert seen.seconds >= times.late_token - EARLY_S
    assert stand.counts() == [1, 0, 0], stand.counts()
    return stand.report(seen)


@case("7b", "first token late, beyond its limit", "whole, from the second, once the limit has passed; the first closed")
async def too_late(stand: Stand, times: Times) -> str:
    """Headers and the role chunk are no tokens."""
    stand.second.force("ok")
    async with stand.serving({"first_token_timeout": times.short_first_token}, {}):
        seen = await stand.ask(f"fault:slow-first:{times.very_late_token}")
        await stand.left(stand.first)
    whole(seen, by="second")
    assert seen.seconds >= times.short_first_token - EARLY_S
    at_most(times.short_first_token, seen)
    assert stand.counts() == [1, 1, 0], stand.counts()
    assert stand.first.requests[0].aborted, "the late one was not closed"
    return stand.report(seen)


@case("8", "cut after 40 of 60, continued", "the whole text exactly, one id, one role, one usage", STREAM_WAYS)
async def cut_and_continued(stand: Stand, times: Times) -> str:
    """A target that continues a text goes on where the first broke off."""
    stand.second.force(f"continue:{TOTAL}")
    async with stand.serving({}, CONTINUES):
        seen = await stand.ask(f"fault:cut-of:{CUT}:{TOTAL}", **stand.counted)
        await continued(stand, seen)
    return stand.report(seen)


@case("8b", "cut after 40 of 60, no one continues", "40 tokens, then a clear error; never [DONE] or final", STREAM_WAYS)
async def cut(stand: Stand, times: Times) -> str:
    """A text that broke off is never shown as a whole one."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask(f"fault:cut-of:{CUT}:{TOTAL}")
    failed(seen, "upstream_error", 502, SOME)
    not_shown_as_whole(seen)
    assert stand.counts() == [1, 0, 0], stand.counts()
    return stand.report(seen)


@case("8c", "cut in the middle, not streamed", "whole, from the second", JSON_WAYS)
async def cut_json(stand: Stand, times: Times) -> str:
    """Nothing has been shown yet: the next target answers."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:cut")
    whole(seen, by="second")
    at_most(0, seen)
    return stand.report(seen)


@case("9", "stall mid-stream, continued", "the whole text exactly, once the idle limit has passed", STREAM_WAYS)
async def stalled_and_continued(stand: Stand, times: Times) -> str:
    """A silence is a cut that takes longer to notice."""
    stand.second.force(f"continue:{TOTAL}")
    async with stand.serving(dict(times.idle), CONTINUES):
        seen = await stand.ask(f"fault:pause:{CUT}:{TOTAL}:{times.stall}", **stand.counted)
        await stand.left(stand.first)
        await continued(stand, seen)
    assert seen.seconds >= times.idle_s - EARLY_S
    at_most(times.idle_s, seen)
    return stand.report(seen)


@case("9b", "stall mid-stream, no one continues", "40 tokens, then timeout at the idle limit", STREAM_WAYS)
async def stalled(stand: Stand, times: Times) -> str:
    """Given up at the idle limit, not at the total one."""
    stand.second.force("ok")
    async with stand.serving(dict(times.idle), {}):
        seen = await stand.ask(f"fault:pause:{CUT}:{TOTAL}:{times.stall}")
        await stand.left(stand.first)
    failed(seen, "timeout", 504, SOME)
    not_shown_as_whole(seen)
    assert seen.seconds >= times.idle_s - EARLY_S
    at_most(times.idle_s, seen)
    assert stand.counts() == [1, 0, 0], stand.counts()
    return stand.report(seen)


@case("9c", "stall mid-stream, a longer idle limit", "whole, from the first, after the stall", STREAM_WAYS)
async def stalled_but_awaited(stand: Stand, times: Times) -> str:
    """Whoever sets a longer limit waits longer."""
    stand.second.force(f"continue:{TOTAL}")
    async with stand.serving({"idle_timeout": times.long_idle}, CONTINUES):
        seen = await stand.ask(f"fault:pause:{CUT}:{TOTAL}:{times.stall_within_long_idle}")
    whole(seen, ALL, by="first")
    assert seen.seconds >= times.stall_within_long_idle - EARLY_S
    assert stand.counts() == [1, 0, 0], stand.counts()
    return stand.report(seen)


@case("10", "malformed chunk", "whole without it, from the first", STREAM_WAYS)
async def malformed(stand: Stand, times: Times) -> str:
    """One chunk of broken JSON in a stream that goes on to finish."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:malformed:2")
    whole(seen, by="first")
    assert stand.counts() == [1, 0, 0], stand.counts()
    return stand.report(seen)


@case("10b", "malformed body", "whole, from the second", JSON_WAYS)
async def malformed_body(stand: Stand, times: Times) -> str:
    """An answer that is not streamed is broken as a whole."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:invalid-json")
    whole(seen, by="second")
    assert stand.counts() == [1, 1, 0], stand.counts()
    return stand.report(seen)


@case("11", "no [DONE]", "whole and at once, from the first", STREAM_WAYS)
async def no_done(stand: Stand, times: Times) -> str:
    """The finish_reason has come: the answer is whole."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:no-done")
    whole(seen, by="first")
    at_most(0, seen)
    assert stand.counts() == [1, 0, 0], stand.counts()
    return stand.report(seen)


@case("11b", "no [DONE], connection stays open", "whole and at once, from the first", STREAM_WAYS)
async def no_done_open(stand: Stand, times: Times) -> str:
    """A connection that is kept open behind a finished answer is not waited for."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:no-done-open")
        await stand.left(stand.first)
    whole(seen, by="first")
    at_most(0, seen)
    assert stand.counts() == [1, 0, 0], stand.counts()
    return stand.report(seen)


@case("14", "cut, the fallback rejects prefill", "40 tokens, then upstream_error; never the prefill's 400", STREAM_WAYS)
async def cut_and_rejected(stand: Stand, times: Times) -> str:
    """The caller did not write the prefill: its 400 is none of the caller's business."""
    stand.second.force("rejects-prefill")
    async with stand.serving({}, CONTINUES):
        seen = await stand.ask(f"fault:cut-of:{CUT}:{TOTAL}")
    failed(seen, "upstream_error", 502, SOME)
    not_shown_as_whole(seen)
    assert stand.counts() == [1, 1, 0], stand.counts()
    assert "prefill" not in seen.reply.body.decode()
    return stand.report(seen)


def not_shown_as_whole(seen: Seen) -> None:
    """AssertionError for any mark of a whole answer."""
    body = seen.reply.body
    assert b"[DONE]" not in body
    assert b"event: final" not in body
    assert b'"finish_reason":"stop"' not in body


async def continued(stand: Stand, seen: Seen) -> None:
    """AssertionError unless the second went on with the first's text, and the caller read one stream."""
    whole(seen, ALL, by="first")
    assert stand.counts() == [1, 1, 0], stand.counts()
    prefill = stand.second.requests[0].json["messages"][-1]
    assert prefill == {"role": "assistant", "content": SOME}, prefill
    if seen.reply.way is OPENAI_EVENTS:
        one_openai_stream(seen)
    else:
        final = json.loads(events(seen.reply.body)[-1][1])
        assert final["usage"]["completion_tokens"] == TOTAL or final["usage"]["completion_tokens"] == TOTAL - CUT
        assert final["metadata"]["provider"] == "first", final["metadata"]
        assert final["metadata"]["continued_by"] == ["second"], final["metadata"]
    request = await stand.line()
    assert request["continued_by"] == ["second"], request
    assert request["failed_providers"] == ["first"], request


def one_openai_stream(seen: Seen) -> None:
    """AssertionError unless all chunks are of one answer: one id, one role, one finish, one usage."""
    *datas, done = [data for _, data in events(seen.reply.body)]
    chunks = [json.loads(data) for data in datas]
    assert done == "[DONE]"
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-upstream"}, {chunk["id"] for chunk in chunks}
    deltas: list[Any] = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert [delta["role"] for delta in deltas if delta.get("role")] == ["assistant"]
    finishes = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert finishes == ["stop"]
    assert len([chunk for chunk in chunks if chunk.get("usage")]) == 1


__all__ = ["ALL", "CONTINUES", "CUT", "SOME", "TEXT", "TOTAL", "continued", "not_shown_as_whole", "one_openai_stream"]
