"""What each failure becomes, case by case: sections 4 and 6 of the design as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.errors import (
    BadRequest,
    BrokenAnswer,
    ConnectionFailed,
    ConnectionReset,
    ContentFilter,
    ContextLengthExceeded,
    EchoBrainError,
    NotReady,
    QuotaExceeded,
    RateLimited,
    UpstreamAuthError,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
)
from shared.settings import RetryPolicy
from tests.unit.scripted import (
    NEVER,
    Turn,
    answer,
    error,
    good,
)


@dataclass(frozen=True)
class Case:
    """What each target does when it is asked, and what shall come of it.

    `asked` has a letter for each question; `steps` the decisions with their reasons; `result` is the provider whose
    answer is passed on, or the failure that is raised, after `after_s` seconds.
    """

    turns: dict[str, Sequence[Turn]]
    asked: str
    result: str | type[EchoBrainError]
    after_s: float = 0.0
    steps: Sequence[str] = ()
    failed: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    poor: bool = False


BUSY = error(UpstreamBusy)
LIMITED = error(RateLimited)
REFUSED = error(ConnectionFailed)
RETRY = "retry backoff"
ASKED = "retry retry_after"
MOVED = "failover not_here"
USED = "failover retries_used"

CASES: dict[str, Case] = {
    "good": Case({"a": [good("a")], "b": []}, "a", "a"),
    # 429 and 503
    "429 once, with Retry-After": Case(
        {"a": [error(RateLimited, retry_after_s=7.0), good("a")], "b": []}, "aa", "a", 7.0, ["a " + ASKED]
    ),
    "429 once, without": Case({"a": [LIMITED, good("a")], "b": []}, "aa", "a", 1.0, ["a " + RETRY]),
    "429 for good": Case(
        {"a": [LIMITED] * 4, "b": [good("b")]}, "aaaab", "b", 3.0, ["a " + RETRY] * 3 + ["a " + USED], "a"
    ),
    "503 for good, and nobody else": Case(
        {"a": [BUSY] * 4}, "aaaa", UpstreamBusy, 3.0, ["a " + RETRY] * 3 + ["a give_up retries_used"], "a"
    ),
    "429 with a wait past the deadline": Case(
        {"a": [error(RateLimited, retry_after_s=60.0)], "b": [good("b")]}, "ab", "b", 0.0, ["a failover deadline"], "a"
    ),
    "429 with a wait past the deadline, and nobody else": Case(
        {"a": [error(RateLimited, retry_after_s=60.0)]}, "a", RateLimited, 0.0, ["a give_up deadline"], "a"
    ),
    "503 without budget": Case({"a": [BUSY], "b": [good("b")]}, "ab", "b", 0.0, ["a failover budget"], "a", poor=True),
    "503 where no retries are allowed": Case(
        {"a": [BUSY], "b": [good("b")]}, "ab", "b", 0.0, ["a " + MOVED], "a", {"retries": RetryPolicy(0)}
    ),
    # 5xx and resets
    "500 once": Case({"a": [error(UpstreamError), good("a")], "b": []}, "aa", "a", 1.0, ["a " + RETRY]),
    "500 twice": Case(
        {"a": [error(UpstreamError)] * 2, "b": [good("b")]}, "aab", "b", 1.0, ["a " + RETRY, "a " + USED], "a"
    ),
    "reset, then 500": Case(
        {"a": [error(ConnectionReset), error(UpstreamError)], "b": [good("b")]},
        "aab",
        "b",
        1.0,
        ["a " + RETRY, "a " + USED],
        "a",
    ),
    "500, then 503": Case(
        {"a": [error(UpstreamError), BUSY, BUSY, BUSY], "b": [good("b")]},
        "aaaab",
        "b",
        3.0,
        ["a " + RETRY] * 3 + ["a " + USED],
        "a",
    ),
    # refused, broken, silent
    "refused": Case({"a": [REFUSED], "b": [good("b")]}, "ab", "b", 0.0, ["a " + MOVED], "a"),
    "refused, and nobody else": Case({"a": [REFUSED, good("a")]}, "aa", "a", 1.0, ["a " + RETRY]),
    "refused everywhere": Case(
        {"a": [REFUSED], "b": [REFUSED] * 2},
        "abb",
        ConnectionFailed,
        1.0,
        ["a " + MOVED, "b " + RETRY, "b give_up retries_used"],
        "ab",
    ),
    "broken": Case({"a": [error(BrokenAnswer)], "b": [good("b")]}, "ab", "b", 0.0, ["a " + MOVED], "a"),
    "never answers": Case({"a": [[NEVER]], "b": [good("b")]}, "ab", "b", 30.0, ["a hedge late"], "a", {}),
    "never answers, and nobody else": Case({"a": [[NEVER]]}, "a", UpstreamTimeout, 60.0, ["a give_up deadline"], "a"),
    # what only another target mends, and what none does
    "too long for it": Case(
        {"a": [error(ContextLengthExceeded)], "b": [good("b")]}, "ab", "b", 0.0, ["a " + MOVED], "a"
    ),
    "too long, and nobody else": Case(
        {"a": [error(ContextLengthExceeded)]}, "a", ContextLengthExceeded, 0.0, ["a give_up not_here"]
    ),
    "our key refused": Case({"a": [error(UpstreamAuthError)], "b": [good("b")]}, "ab", "b", 0.0, ["a " + MOVED], "a"),
    "quota": Case({"a": [error(QuotaExceeded)], "b": [good("b")]}, "ab", "b", 0.0, ["a " + MOVED], "a"),
    "no key yet": Case({"a": [error(NotReady)], "b": [good("b")]}, "ab", "b", 0.0, ["a " + MOVED], "a"),
    "no key yet, and nobody else": Case({"a": [error(NotReady)]}, "a", NotReady, 0.0, ["a give_up not_here"]),
    "400": Case({"a": [error(BadRequest)], "b": []}, "a", BadRequest, 0.0, ["a give_up not_retryable"]),
    "content filter": Case(
        {"a": [error(ContentFilter)], "b": []}, "a", ContentFilter, 0.0, ["a give_up not_retryable"]
    ),
    # which failure is told
    "what may pass is told rather than what may not": Case(
        {"a": [LIMITED] * 4, "b": [error(UpstreamAuthError)]},
        "aaaab",
        RateLimited,
        3.0,
        ["a " + RETRY] * 3 + ["a " + USED, "b give_up not_here"],
        "ab",
    ),
    "the last of those that may pass": Case(
        {"a": [error(QuotaExceeded)], "b": [REFUSED], "c": [BUSY] * 4},
        "abcccc",
        UpstreamBusy,
        3.0,
        ["a " + MOVED, "b " + MOVED] + ["c " + RETRY] * 3 + ["c give_up retries_used"],
        "abc",
    ),
    "what is the same everywhere is told in any case": Case(
        {"a": [LIMITED] * 4, "b": [error(BadRequest)]},
        "aaaab",
        BadRequest,
        3.0,
        ["a " + RETRY] * 3 + ["a " + USED, "b give_up not_retryable"],
        "a",
    ),
    "the last where none may pass": Case(
        {"a": [error(UpstreamAuthError)], "b": [error(QuotaExceeded)]},
        "ab",
        QuotaExceeded,
        0.0,
        ["a " + MOVED, "b give_up not_here"],
        "ab",
    ),
    # time
    "a slow failure leaves the rest of the time": Case(
        {"a": [[25.0, UpstreamBusy()], [25.0, UpstreamBusy()]], "b": [[7.0, answer("b")]]},
        "aab",
        "b",
        58.0,
        ["a " + RETRY, "a " + USED],
        "a",
        {"retries": RetryPolicy(1, 1.0, 1.0)},
    ),
    "at the deadline all ends": Case(
        {"a": [[25.0, UpstreamBusy()], [25.0, UpstreamBusy()]], "b": [[9.5, answer("b")]]},
        "aab",
        UpstreamTimeout,
        60.0,
        ["a " + RETRY, "a " + USED, "b give_up deadline"],
        "ab",
        {"retries": RetryPolicy(1, 1.0, 1.0)},
    ),
    "the wait is not slept past the deadline": Case(
        {"a": [[29.0, UpstreamBusy()], [29.5, UpstreamBusy()]]},
        "aa",
        UpstreamBusy,
        59.5,
        ["a " + RETRY, "a give_up deadline"],
        "a",
    ),
}
