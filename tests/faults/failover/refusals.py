"""Scenarios 1 to 5, 12 and 13: the upstream refuses, fails, or resets the connection."""

from __future__ import annotations

from typing import Final

from tests.ways import STREAM_WAYS

from .cases import Times, at_most, case, failed, whole
from .stand import Seen, Stand, gaps

RETRIES: Final = 3  # the default of max_retries
EARLY_S: Final = 0.01  # what clocks may differ by


@case("1", "429 with Retry-After", "whole, from the first, never asked again sooner than Retry-After")
async def limited_once(stand: Stand, times: Times) -> str:
    """One 429 that says when to come back."""
    refused = f"fault:turns:status:429:rate_limit_exceeded:{times.retry_after}/ok"
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask(refused)
    whole(seen, by="first")
    waited_at_least(times.retry_after, stand, seen)
    assert stand.counts() == [2, 0, 0], stand.counts()
    assert seen.early or seen.header("X-Attempts") == "2"
    assert seen.header("X-Failed-Providers") is None
    return stand.report(seen)


@case("1b", "429 with Retry-After beyond the deadline", "whole, from the second, at once")
async def limited_for_long(stand: Stand, times: Times) -> str:
    """A wait that would pass the deadline is not slept."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:status:429:rate_limit_exceeded:600")
    whole(seen, by="second")
    at_most(0, seen)
    assert stand.counts() == [1, 1, 0], stand.counts()
    return stand.report(seen)


@case("2", "429 for good, another target", "whole, from the second, after at most 4 attempts at the first")
async def limited_for_good(stand: Stand, times: Times) -> str:
    """Every retry is refused."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask(f"fault:status:429:rate_limit_exceeded:{times.retry_after}")
    whole(seen, by="second")
    waited_at_least(times.retry_after, stand, seen)
    first, second, _ = stand.counts()
    assert (first, second) == (1 + RETRIES, 1), stand.counts()
    assert seen.early or seen.header("X-Failed-Providers") == "first"
    return stand.report(seen)


@case("2b", "429 for good, no other target", "429 and its Retry-After, after at most 4 attempts")
async def limited_alone(stand: Stand, times: Times) -> str:
    """The caller is told when to come back."""
    async with stand.serving({}):
        seen = await stand.ask(f"fault:status:429:rate_limit_exceeded:{times.retry_after}")
    failed(seen, "rate_limit", 429)
    waited_at_least(times.retry_after, stand, seen)
    assert stand.counts() == [1 + RETRIES, 0, 0], stand.counts()
    assert seen.reply.streamed or int(seen.header("Retry-After") or 0) >= times.retry_after
    return stand.report(seen)


@case("3", "one 500", "whole, from the first, at its second attempt")
async def one_500(stand: Stand, times: Times) -> str:
    """A single failure is not worth leaving a provider for."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:flaky:1")
    whole(seen, by="first")
    assert stand.counts() == [2, 0, 0], stand.counts()
    return stand.report(seen)


@case(
    "4",
    "503 for good, another target",
    "whole, from the second, after at most 4 attempts, none sooner than the backoff",
)
async def unavailable(stand: Stand, times: Times) -> str:
    """Every retry is refused, without a word about when to come back."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:status:503")
    whole(seen, by="second")
    waited_at_least(times.backoff_min_s, stand, seen)
    assert stand.counts() == [1 + RETRIES, 1, 0], stand.counts()
    return stand.report(seen)


@case("4b", "503 for good, no other target", "502 upstream_error, after at most 4 attempts")
async def unavailable_alone(stand: Stand, times: Times) -> str:
    """The caller gets a clear error in bounded time."""
    async with stand.serving({}):
        seen = await stand.ask("fault:status:503")
    failed(seen, "upstream_error", 502)
    waited_at_least(times.backoff_min_s, stand, seen)
    assert stand.counts() == [1 + RETRIES, 0, 0], stand.counts()
    return stand.report(seen)


@case("5", "reset before headers, once", "whole, from the first, at its second attempt")
async def reset_once(stand: Stand, times: Times) -> str:
    """A connection that was reset is tried once more."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:turns:reset/ok")
    whole(seen, by="first")
    assert stand.counts() == [2, 0, 0], stand.counts()
    return stand.report(seen)


@case("5b", "reset before headers, for good", "whole, from the second, after 2 attempts at the first")
async def reset_for_good(stand: Stand, times: Times) -> str:
    """Once more, then on."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:reset")
    whole(seen, by="second")
    assert stand.counts() == [2, 1, 0], stand.counts()
    return stand.report(seen)


@case("12", "context length, another target", "whole, from the second, after one attempt at the first")
async def too_long(stand: Stand, times: Times) -> str:
    """Another model may have a longer context."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:status:400:context_length_exceeded")
    whole(seen, by="second")
    at_most(0, seen)
    assert stand.counts() == [1, 1, 0], stand.counts()
    return stand.report(seen)


@case("12b", "context length everywhere", "400 context_length_exceeded, one attempt each, x-should-retry: false")
async def too_long_everywhere(stand: Stand, times: Times) -> str:
    """The caller's own error, once every target has said so."""
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:status:400:context_length_exceeded")
    failed(seen, "context_length_exceeded", 400)
    assert stand.counts() == [1, 1, 0], stand.counts()
    assert seen.reply.streamed or seen.header("x-should-retry") == "false"
    return stand.report(seen)


@case("13", "content filter", "400 content_filter at once, one attempt, not routed around")
async def filtered(stand: Stand, times: Times) -> str:
    """What one provider refuses to say is not taken to the next."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:status:400:content_filter")
    failed(seen, "content_filter", 400)
    at_most(0, seen)
    assert stand.counts() == [1, 0, 0], stand.counts()
    assert seen.reply.streamed or seen.header("x-should-retry") == "false"
    return stand.report(seen)


@case(
    "13b", "content filter in the stream", "an error event or an honest finish_reason, not routed around", STREAM_WAYS
)
async def filtered_in_stream(stand: Stand, times: Times) -> str:
    """An answer that the filter ended says so by its finish_reason."""
    stand.second.force("ok")
    async with stand.serving({}, {}):
        seen = await stand.ask("fault:finish:content_filter")
    assert stand.counts() == [1, 0, 0], stand.counts()
    if seen.verdict.code is None:
        assert seen.reply.way.dialect == "brain" or b'"finish_reason":"content_filter"' in seen.reply.body
    else:
        assert seen.verdict.code == "content_filter", seen.verdict
    return stand.report(seen)


def waited_at_least(wait_s: float, stand: Stand, seen: Seen) -> None:
    """AssertionError if the first was asked again sooner than that."""
    waits = gaps(stand.asked(stand.first, seen.text))
    assert waits, "it was not asked again"
    assert min(waits) >= wait_s - EARLY_S, f"waits of {waits}"
