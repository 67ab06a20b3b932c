"""Server-sent events of an OpenAI-compatible stream: looked at once, copied as they are, and held to the truth.

A whole answer is one whose every choice has a finish_reason. Whatever else ends a stream is a broken answer, however
politely the connection was closed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec

from shared.errors import BrokenAnswer, EchoBrainError
from shared.models import Choice, Chunk, Ending, Event, Usage
from shared.providers.faults import in_band_error, printable_token

T = TypeVar("T")

MAX_EVENT_BYTES: Final = 10 * 1024 * 1024
_DONE: Final = b"data: [DONE]\n\n"
_BORDER: Final = re.compile(rb"(?>\r\n|\n|\r)(?:\r\n|\n|\r)")  # atomic: one CRLF is not two line ends

_decoder = msgspec.json.Decoder(Event)


class EventReader:
    """Turns the bytes of one stream, however they are split, into chunks.

    `choices` is how many the caller asked for; `pass_usage` says whether the caller wants the usage chunk. After each
    `feed`, `failure` is the error that the stream carried in itself, if it did.
    """

    def __init__(self, *, choices: int, pass_usage: bool, upstream_request_id: str | None) -> None:
        self.failure: EchoBrainError | None = None
        self.finished = False  # every choice asked for has its finish_reason: only usage and the end can still come
        self._choices = choices
        self._pass_usage = pass_usage
        self._request_id = upstream_request_id
        self._pending = b""
        self._open: set[int] = set()
        self._finished: set[int] = set()
        self._finish_reason = ""
        self._usage: Usage | None = None
        self._model: str | None = None
        self._over = False

    def feed(self, data: bytes) -> Chunk | None:
        """The events that `data` completes, if any."""
        if self._pending or not data.endswith(b"\n\n"):
            data = self._whole_events(data)
            if not data:
                return None
        if data.count(b"\n") == 2 and (event := _read_one(data)) is not None:
            if self._is_token(event):
                return Chunk(data, [event], has_content=True)
            return self._look(data, [event])
        payload, events = self._read_plain(data) or self._read_any(data)
        return self._look(payload, events)

    def closed(self) -> Chunk:
        """The connection is over: the last chunk if the answer is whole, else `BrokenAnswer` (or what it carried)."""
        last = (self.feed(b"\n\n") if self._pending else None) or Chunk(b"", [], has_content=False)
        if self.failure is None and self.finished and not self._open:
            return msgspec.structs.replace(last, ending=self._ending())
        raise self.failure or BrokenAnswer(upstream_request_id=self._request_id)

    def _whole_events(self, data: bytes) -> bytes:
        seen = max(len(self._pending) - 3, 0)
        data = self._pending + data
        end = _last_border(data, seen)
        self._pending = data[end:]
        if len(self._pending) > MAX_EVENT_BYTES:
            raise BrokenAnswer(upstream_request_id=self._request_id)
        return data[:end]

    def _is_token(self, event: Event) -> bool:
        """An ordinary token, as nearly all events are: text of a choice that is known and goes on, and nothing else."""
        choices = event.choices
        if not choices or len(choices) > 1 or event.usage is not None or event.error is not None or self._over:
            return False
        choice = choices[0]
        if choice.finish_reason or choice.index not in self._open or choice.delta is None:
            return False
        return bool(choice.delta.content)

    def _read_plain(self, block: bytes) -> tuple[bytes, list[Event]] | None:
        """The events of a block in the one form that nearly all upstreams use, decoded in one call; else None."""
        done = block.endswith(_DONE)
        payload = block.removesuffix(_DONE)
        inner = payload.count(b"\n\ndata: ")
        if not payload.startswith(b"data: ") or payload.count(b"\n") != 2 * inner + 2 or b"\r" in payload:
            return None
        try:
            events = _decoder.decode_lines(payload[6:-2].replace(b"\n\ndata: ", b"\n"))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if len(events) != inner + 1:
            return None
        self._over = done
        return payload, events

    def _read_any(self, block: bytes) -> tuple[bytes, list[Event]]:
        """The events of a block in any form the standard allows; broken ones are left out.

        A stream that goes on to finish is whole without them, one that does not is broken anyway.
        """
        payload, events = [], []
        for data in _data_of_events(block):
            if data == b"[DONE]":
                self._over = True
                break
            if (event := read_json(_decoder, data)) is not None:
                events.append(event)
                payload.append(b"data: " + data.replace(b"\n", b"") + b"\n\n")
        return b"".join(payload), events

    def _look(self, payload: bytes, events: list[Event]) -> Chunk | None:
        has_content = False
        left_out = 0  # a bit for each event that is not passed on
        for position, event in enumerate(events):
            self._model = self._model or printable_token(event.model)
            for choice in event.choices or ():
                has_content |= self._take_choice(choice)
            if event.error is not None:
                self.failure = in_band_error(event.error, self._request_id)
            if self.failure is not None:
                left_out |= -1 << position  # this event and all behind it
                break
            left_out |= self._left_out(event) << position
            if left_out < 0:
                break
        if left_out:
            payload, events = _without(left_out, payload, events)
        return self._chunk(payload, events, has_content)

    def _left_out(self, event: Event) -> int:
        """A bit for each event from this one on that is not passed on."""
        if event.usage is not None:
            return self._take_usage(event)
        return event.choices is None  # no chunk at all, perhaps an error in a form of its own

    def _take_usage(self, event: Event) -> int:
        """Keeps the usage; a bit for each event from this one on that is not passed on.

        The chunk that has nothing else is passed on where it was asked for; behind the last one nothing is read,
        however the bytes were cut.
        """
        try:
            self._usage = msgspec.convert(event.usage, Usage)
        except msgspec.ValidationError:
            return 0
        if event.choices:
            return 0
        last = self.finished and not self._open
        self._over = self._over or last
        return (-2 if last else 0) | (not self._pass_usage)

    def _take_choice(self, choice: Choice) -> bool:
        """Keeps the state of the choice; True when it brought content."""
        if choice.finish_reason:  # some vendors send an empty one all along
            self._finish(choice)
        elif choice.index not in self._open and choice.index not in self._finished:
            self._open.add(choice.index)
        delta = choice.delta
        return delta is not None and bool(delta.content or delta.says_something())

    def _finish(self, choice: Choice) -> None:
        if choice.finish_reason == "error":
            self.failure = BrokenAnswer(upstream_request_id=self._request_id)
        self._open.discard(choice.index)
        self._finished.add(choice.index)
        self.finished = len(self._finished) >= self._choices and not self._open
        if choice.index == 0 or not self._finish_reason:
            self._finish_reason = printable_token(choice.finish_reason) or "unknown"

    def _chunk(self, payload: bytes, events: list[Event], has_content: bool) -> Chunk | None:
        if self._over and self.failure is None:
            if self._finished and not self._open:
                return Chunk(payload, events, has_content, self._ending())
            self.failure = BrokenAnswer(upstream_request_id=self._request_id)
        return Chunk(payload, events, has_content) if events else None

    def _ending(self) -> Ending:
        return Ending(self._finish_reason, self._usage, self._model, self._request_id)


def _read_one(block: bytes) -> Event | None:
    """The event of a block that is a single one in the usual form; None where it is anything else."""
    if not block.startswith(b"data: {") or b"\r" in block:
        return None
    try:
        return _decoder.decode(block[6:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read_json(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    """`data` as the decoder's type, or None where it is not JSON of that shape."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:  # msgspec refuses half a surrogate pair, which some vendors send and json takes
        return msgspec.convert(json.loads(data, parse_constant=_no_constant), decoder.type)
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _last_border(data: bytes, start: int) -> int:
    """The position behind the last blank line that begins at `start` or later; 0 if there is none."""
    if b"\r" not in data:
        return data.rfind(b"\n\n", start) + 2 if b"\n\n" in data[start:] else 0
    end = 0
    for match in _BORDER.finditer(data, start):
        end = match.end()
    return end


def _data_of_events(block: bytes) -> Iterator[bytes]:
    """The data of each event, its `data:` lines joined; comments and other fields are passed over."""
    text = block.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for event in text.split(b"\n\n"):
        lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
        if lines:
            yield b"\n".join(lines)


def _without(left_out: int, payload: bytes, events: list[Event]) -> tuple[bytes, list[Event]]:
    """The payload and events but for those whose bit is set."""
    kept = [position for position in range(len(events)) if not left_out >> position & 1]
    raw = payload.split(b"\n\n")
    return b"".join(raw[position] + b"\n\n" for position in kept), [events[position] for position in kept]
