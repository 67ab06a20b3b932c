"""Server-sent events: however the bytes are split, the same events and the same truth about how they ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import BrokenAnswer, ContextLengthExceeded, EchoBrainError, RateLimited
from shared.models import Ending, Usage
from shared.providers.events import MAX_EVENT_BYTES, EventReader

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


def event(*choices: dict[str, Any], **more: Any) -> bytes:
    """One chunk as an upstream sends it."""
    body = {"id": "c", "object": "chat.completion.chunk", "model": "gpt-x", "choices": list(choices), **more}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def says(text: str | None = "hi", index: int = 0, finish: Any = None, **delta: Any) -> dict[str, Any]:
    """One choice of a chunk."""
    content = {} if text is None else {"content": text}
    return {"index": index, "delta": {**content, **delta}, "finish_reason": finish}


def finish(index: int = 0, reason: Any = "stop") -> dict[str, Any]:
    """The choice of a chunk that finishes it."""
    return says(None, index, reason)


USAGE_EVENT = event(usage=USAGE)
ERROR_EVENT = b'data: {"error":{"message":"no","type":"server_error","code":null}}\n\n'
GOOD = [event(says("Hel")), event(says("lo")), event(finish()), USAGE_EVENT, DONE]


@dataclass(frozen=True)
class Outcome:
    """What a stream came to: all that was passed on, and its ending or its failure."""

    payload: bytes
    content: bool
    ending: Ending | None
    failure: type[EchoBrainError] | None


def read(pieces: Iterable[bytes], *, choices: int = 1, usage: bool = False) -> Outcome:
    """Feeds the pieces as the adapter does: to an ending, a failure, or the end of the connection."""
    reader = EventReader(choices=choices, pass_usage=usage, upstream_request_id="req_1")
    payload, content = b"", False
    try:
        for piece in pieces:
            chunk = reader.feed(piece)
            if chunk is not None:
                payload, content = payload + chunk.data, content or chunk.has_content
                if chunk.ending is not None:
                    return Outcome(payload, content, chunk.ending, None)
            if reader.failure is not None:
                raise reader.failure
        chunk = reader.closed()
    except EchoBrainError as error:
        return Outcome(payload, content, None, type(error))
    assert chunk.ending is not None
    return Outcome(payload + chunk.data, content or chunk.has_content, chunk.ending, None)


def split(whole: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`whole` cut at these places."""
    places = [0, *sorted({cut % (len(whole) + 1) for cut in cuts}), len(whole)]
    return [whole[start:end] for start, end in pairwise(places) if end > start]


def restyled(whole: bytes, line_end: bytes) -> bytes:
    """The same events with other line ends."""
    return whole.replace(b"\n", line_end)


TEXTS = st.one_of(
    st.none(), st.sampled_from(["", "data: ", "\n\n", "\r\n", "é🌍", "\u2028", '"', "\\"]), st.text(max_size=5)
)
CHOICES = st.builds(says, TEXTS, st.integers(0, 2), st.sampled_from([None, None, None, "stop", "length"]))
NOISE = [
    b": ping\n\n",
    b"\n",
    b"event: chunk\nid: 7\nretry: 10\n",
    b'data: {"broken\n\n',
    b"data: null\n\n",
    b"data:\n\n",
    b"data: \xff\n\n",
    b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n',
    b'data:{"choices":\ndata: [{"index":0,"delta":{"content":"two lines"}}]}\n\n',
    b'event: x\ndata: {"choices":[]}\n: comment\n\n',
    ERROR_EVENT,
    DONE,
    USAGE_EVENT,
]
EVENTS = st.one_of(st.lists(CHOICES, min_size=1, max_size=2).map(lambda rows: event(*rows)), st.sampled_from(NOISE))
STREAMS = st.lists(EVENTS, max_size=8).map(b"".join)
CUTS = st.lists(st.integers(0, 10_000), max_size=12)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@settings(max_examples=300)
@given(STREAMS, CUTS, LINE_ENDS, st.integers(1, 3), st.booleans())
def test_any_splitting_gives_what_one_piece_gives(
    stream: bytes, cuts: list[int], line_end: bytes, choices: int, usage: bool
) -> None:
    """What is passed on, and how the stream ends, does not depend on how the network cut it."""
    whole = restyled(stream, line_end)
    assert read(split(whole, cuts), choices=choices, usage=usage) == read([whole], choices=choices, usage=usage)


@settings(max_examples=300)
@given(STREAMS, LINE_ENDS)
def test_a_byte_at_a_time_gives_what_one_piece_gives(stream: bytes, line_end: bytes) -> None:
    """The hardest splitting of all."""
    whole = restyled(stream, line_end)
    assert read(whole[place : place + 1] for place in range(len(whole))) == read([whole])


@settings(max_examples=300)
@given(st.one_of(STREAMS, st.binary(max_size=200)), st.binary(max_size=30), CUTS)
def test_nothing_but_an_error_of_ours_ever_comes_out(stream: bytes, rubbish: bytes, cuts: list[int]) -> None:
    """Whatever an upstream sends becomes an ending or an `EchoBrainError`."""
    outcome = read(split(stream + rubbish + b"\n\n" + stream, cuts))
    assert (outcome.ending is None) != (outcome.failure is None)


@settings(max_examples=500)
@given(STREAMS, CUTS, st.integers(1, 3))
def test_an_ending_comes_only_when_every_choice_is_finished(stream: bytes, cuts: list[int], choices: int) -> None:
    """What was passed on, read by a plain JSON parser, has a finish_reason for each choice in it."""
    outcome = read(split(stream, cuts), choices=choices, usage=True)
    if outcome.ending is None:
        return
    seen, finished = set(), set()
    for line in outcome.payload.decode("utf-8", "surrogatepass").split("\n\n")[:-1]:
        for choice in json.loads(line.removeprefix("data: "))["choices"] or ():
            seen.add(choice["index"])
            finished |= {choice["index"]} if choice.get("finish_reason") else set()
    assert finished
    assert seen <= finished


def test_a_good_stream_is_passed_on_byte_for_byte() -> None:
    """All events but the usage chunk that nobody asked for; [DONE] is the dialect's to send."""
    outcome = read(GOOD)
    assert outcome == Outcome(b"".join(GOOD[:3]), True, Ending("stop", Usage(9, 4, 13), "gpt-x", "req_1"), None)


def test_a_usage_chunk_that_was_asked_for_is_passed_on() -> None:
    """With `include_usage` the caller gets it in its place."""
    assert read(GOOD, usage=True).payload == b"".join(GOOD[:4])


def test_usage_on_the_finishing_chunk_is_kept_and_passed_on() -> None:
    """Some vendors have no chunk for it; the finishing chunk must not be lost with it."""
    stream = [event(says()), event(finish(), usage=USAGE), DONE]
    outcome = read(stream)
    assert outcome.payload == b"".join(stream[:2])
    assert outcome.ending is not None
    assert outcome.ending.usage == Usage(9, 4, 13)


def test_usage_on_every_chunk_ends_nothing() -> None:
    """Vendors that count along are read to their end, and the last count is the one that counts."""
    early = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    stream = [event(says(), usage=early), event(says(), usage=early), event(finish(), usage=USAGE), DONE]
    outcome = read(stream)
    assert outcome.payload == b"".join(stream[:3])
    assert outcome.ending is not None
    assert outcome.ending.usage == Usage(9, 4, 13)


@pytest.mark.parametrize("end", [[USAGE_EVENT, DONE], [USAGE_EVENT], [DONE], []], ids=["both", "usage", "done", "none"])
def test_a_finished_answer_is_whole_however_the_stream_ends(end: list[bytes]) -> None:
    """Neither usage nor [DONE] is needed once every choice has its finish_reason."""
    assert read([event(says()), event(finish()), *end]).ending is not None


@pytest.mark.parametrize(
    "end",
    [
        [],
        [DONE],
        [USAGE_EVENT],
        [USAGE_EVENT, DONE],
        [event(finish(reason=None)), DONE],
        [event(finish(reason="")), DONE],
    ],
    ids=["eof", "done", "usage", "usage-done", "null-finish", "empty-finish"],
)
def test_an_answer_without_a_finish_reason_is_broken_however_politely_it_ends(end: list[bytes]) -> None:
    """A clean end, a [DONE] or an empty reason does not make a cut answer whole."""
    outcome = read([event(says("half")), *end])
    assert (outcome.ending, outcome.failure) == (None, BrokenAnswer)


def test_a_vendor_that_sends_an_empty_reason_all_along_is_cut_in_the_middle() -> None:
    """An empty finish_reason on every chunk, as some vendors have it, finishes nothing."""
    outcome = read([event(says("half", finish="")), event(says(" an answer", finish=""))])
    assert (outcome.ending, outcome.failure) == (None, BrokenAnswer)


def test_all_choices_must_finish() -> None:
    """With `n` the answer is whole only when the last choice is."""
    both = event(says(index=0), says(index=1))
    assert read([both, event(finish(0))], choices=2).failure is BrokenAnswer
    assert read([both, event(finish(0)), DONE], choices=2).failure is BrokenAnswer
    whole = read([both, event(finish(1, "length")), event(finish(0, "stop"))], choices=2)
    assert whole.ending is not None
    assert whole.ending.finish_reason == "stop"


def test_a_connection_that_ends_before_the_second_choice_began_is_cut() -> None:
    """Of two choices asked for one came, and nothing says that this is all."""
    assert read([event(says(index=0)), event(finish(0))], choices=2).failure is BrokenAnswer


def test_fewer_choices_than_asked_are_whole_when_the_vendor_says_so() -> None:
    """A vendor that does not know `n` and says [DONE] has answered."""
    assert read([event(says(index=0)), event(finish(0)), DONE], choices=2).ending is not None


def test_a_choice_that_nobody_asked_for_must_finish_too() -> None:
    """Once a choice has begun the answer is not whole without its end."""
    assert read([event(says(index=0)), event(says(index=1)), event(finish(0)), DONE]).failure is BrokenAnswer


def test_no_events_at_all_are_no_answer() -> None:
    """Nothing, pings only, or [DONE] only."""
    assert {read(pieces).failure for pieces in ([], [b": ping\n\n"], [DONE], [USAGE_EVENT, DONE])} == {BrokenAnswer}


def test_a_finish_reason_of_error_is_a_failure() -> None:
    """Some vendors say it that way; the chunk itself is not passed on."""
    outcome = read([event(says("half")), event(finish(reason="error")), DONE])
    assert (outcome.payload, outcome.failure) == (event(says("half")), BrokenAnswer)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("server_error", BrokenAnswer),
        ("context_length_exceeded", ContextLengthExceeded),
        ("rate_limit_exceeded", RateLimited),
    ],
)
def test_an_error_in_the_stream_is_that_error(code: str, kind: type[EchoBrainError]) -> None:
    """What came before it is passed on, the error itself and what follows is not."""
    broken = b'data: {"error":{"message":"no","code":"%s"}}\n\n' % code.encode()
    outcome = read([b"".join([event(says("half")), broken, event(finish()), DONE])])
    assert outcome == Outcome(event(says("half")), True, None, kind)


def test_an_error_behind_a_finished_answer_is_an_error() -> None:
    """A stream that ends in an error is not whole, even when it had finished."""
    assert read([event(says()), event(finish()), ERROR_EVENT, DONE]).failure is BrokenAnswer


@pytest.mark.parametrize(
    "broken",
    [
        b'data: {"id":"c","choices":[{"ind\n\n',
        b"data: upstream connect error\n\n",
        b"data: \xff\xfe\n\n",
        b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
        b'data: {"choices":"none"}\n\n',
        b"data: []\n\n",
        b'data: {"choices":[{"index":NaN}]}\n\n',
        b"data: " + b"[" * 5000 + b"\n\n",
    ],
)
def test_a_malformed_chunk_is_skipped_when_the_stream_goes_on_to_finish(broken: bytes) -> None:
    """The answer is whole without it; without the rest it is broken."""
    pieces = [event(says("a")), broken, event(says("b")), event(finish()), DONE]
    assert read(pieces) == read([b"".join(pieces)]) == read([piece for piece in pieces if piece is not broken])
    assert read(pieces[:2]).failure is BrokenAnswer


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("space", [b" ", b""])
def test_every_form_that_the_standard_allows_is_read(line_end: bytes, space: bytes) -> None:
    """Line ends, the space behind the colon, comments and named events make no difference to what is passed on."""
    noisy = [b": ping\n\n", *(b"event: chunk\nid: 7\n" + part for part in GOOD), b": bye\n\n"]
    styled = restyled(b"".join(noisy), line_end).replace(b"data: ", b"data:" + space)
    assert read([styled]) == read(GOOD)


def test_data_on_several_lines_is_one_event() -> None:
    """JSON spread over `data:` lines comes out on one, as clients that read by lines need it."""
    spread = b'data: {"choices":\ndata:[{"index":0,\ndata: "delta":{"content":"x"},"finish_reason":"stop"}]}\n\n'
    outcome = read([spread, DONE])
    assert outcome.payload.count(b"\n") == 2
    assert json.loads(outcome.payload.removeprefix(b"data: "))["choices"][0]["delta"] == {"content": "x"}


def test_a_byte_order_mark_before_the_stream_is_passed_over() -> None:
    """As the standard says of event streams."""
    assert read([b"\xef\xbb\xbf" + b"".join(GOOD)]) == read(GOOD)


def test_the_last_event_needs_no_blank_line() -> None:
    """A connection that closes right behind the finishing event has given a whole answer, half an event has not."""
    assert read([event(says()), event(finish()).rstrip(b"\n")]).ending is not None
    assert read([event(says()), event(finish())[:-6]]).failure is BrokenAnswer


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "a\\ud800b"])
def test_half_a_surrogate_pair_is_passed_on_as_it_came(half: str) -> None:
    """Vendors cut emoji in two between tokens; the caller puts them together."""
    torn = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % half.encode()
    outcome = read([torn, event(finish()), DONE])
    assert (outcome.payload, outcome.content) == (torn + event(finish()), True)


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"role": "assistant", "content": ""}, False),
        ({"content": None}, False),
        ({}, False),
        ({"tool_calls": []}, False),
        ({"content": " "}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"function_call": {"name": "f"}}, True),
        ({"refusal": "no"}, True),
        ({"reasoning_content": "hm"}, True),
        ({"reasoning": "hm"}, True),
        ({"audio": {"id": "a"}}, True),
    ],
)
def test_what_counts_as_content(delta: dict[str, Any], expected: bool) -> None:
    """A role, an empty text or a null is no first token; everything that a caller can use is."""
    reader = EventReader(choices=1, pass_usage=False, upstream_request_id=None)
    chunk = reader.feed(event(says(None, **delta)))
    assert chunk is not None
    assert chunk.has_content is expected


def test_only_a_printable_model_and_reason_are_kept() -> None:
    """What is logged of an upstream's words is a word."""
    stream = [event(says(), model="two words\n"), event(finish(reason={"why": "x"}), model=None), DONE]
    ending = read(stream).ending
    assert ending is not None
    assert (ending.model, ending.finish_reason) == (None, "unknown")


def test_an_event_may_be_large_but_not_without_end() -> None:
    """Up to 10 MiB an event is waited for, a byte more is an upstream that has gone mad."""
    frame = len(event(says("")))
    large = event(says("x" * (MAX_EVENT_BYTES - frame)))
    piece = 1 << 20
    pieces = [large[start : start + piece] for start in range(0, len(large), piece)]
    assert read([*pieces, event(finish()), DONE]).payload == large + event(finish())
    endless = (b"x" * piece for _ in range(11))
    assert read([b"data: ", *endless]).failure is BrokenAnswer


@pytest.mark.parametrize(
    "form",
    [
        b'data: {"object":"error","message":"secret","type":"InternalServerError","code":500}\n\n',
        b'event: error\ndata: {"message":"secret"}\n\n',
    ],
)
def test_what_is_no_chunk_is_not_passed_on(form: bytes) -> None:
    """An error in a vendor's own form says things that are not for callers; without an end the answer is broken."""
    outcome = read([event(says("hi")), form])
    assert (outcome.payload, outcome.failure) == (event(says("hi")), BrokenAnswer)
    assert read([event(says("hi")), form, event(finish()), DONE]).payload == event(says("hi")) + event(finish())
