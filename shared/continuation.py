"""A broken stream that another target goes on with: what it is asked, and how its chunks join the first one's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from shared.models import ChatRequest, Chunk, Ending, Usage

MAX_TEXT_CHARS: Final = 1024 * 1024  # a longer answer is not kept to be gone on with
_CAPS: Final = ("max_tokens", "max_completion_tokens")


class Shown:
    """What the caller has been shown of an answer, as far as another model could go on with it."""

    def __init__(self) -> None:
        self.pieces = 0  # with content: about as many tokens
        self.opening = b""
        self._usage = self._usage_before = Usage()  # of who shows it now, where it is reported all along; of the others
        self._text: list[str] = []
        self._size = 0
        self._only_text = True

    @property
    def text(self) -> str | None:
        """The text so far; None where it is not all there is, or too long to keep."""
        return "".join(self._text) or None if self._only_text and self._size <= MAX_TEXT_CHARS else None

    def take(self, chunk: Chunk) -> None:
        """The caller is shown this chunk."""
        self.opening = self.opening or chunk.data
        for event in chunk.events:
            self._usage = _usage(event.usage) or self._usage
            for choice in event.choices or ():
                delta = choice.delta
                if delta is None:
                    continue
                if isinstance(delta.content, str):
                    self._add(delta.content)
                if choice.index or delta.tool_calls or delta.function_call or delta.refusal or delta.audio:
                    self._only_text = False

    def broken_off(self) -> Usage:
        """Another goes on; what all before it have used, as far as they have told."""
        self._usage_before, self._usage = added(self._usage_before, self._usage), Usage()
        return self._usage_before

    def _add(self, text: str) -> None:
        self.pieces += bool(text)
        self._size += len(text)
        if self._size <= MAX_TEXT_CHARS:
            self._text.append(text)


def continuable(request: ChatRequest) -> bool:
    """Whether the answer is one free text: structured output that two models write is not what was asked for."""
    if request.choices != 1:
        return False
    form = _decoded(request.parameters.get("response_format"))
    return form is None or (isinstance(form, dict) and form.get("type") == "text")


def continued(request: ChatRequest, shown: Shown) -> ChatRequest:
    """The request for the rest: the text so far as a trailing assistant message, the cap less what is there."""
    parameters = {**request.parameters, "messages": _raw(_with_trailing(request, shown.text or ""))}
    for name in _CAPS:
        if isinstance(cap := _decoded(request.parameters.get(name)), int):
            parameters[name] = _raw(max(1, cap - shown.pieces))
    cap_left = request.cap and replace(request.cap, tokens=max(1, request.cap.tokens - shown.pieces))
    return replace(request, parameters=parameters, cap=cap_left, continues=True)


def _with_trailing(request: ChatRequest, text: str) -> list[Any]:
    """The messages with the text behind them; a caller's own trailing assistant message is made longer."""
    *before, last = msgspec.json.decode(request.parameters["messages"], type=list[msgspec.Raw])
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")  # a stream may break inside a character
    message = msgspec.json.decode(last)
    if message.get("role") == "assistant" and isinstance(message.get("content"), str):
        return [*before, {**message, "content": message["content"] + text}]
    return [*before, last, {"role": "assistant", "content": text}]


class Joint:
    """Makes the chunks of those who go on part of the stream that `shown` began: one id, no second role, one usage."""

    def __init__(self, shown: Shown) -> None:
        first = next((event for event in _objects(shown.opening) if event.get("id")), {})
        self._identity: dict[str, Any] = {name: first[name] for name in ("id", "created") if name in first}
        self._before = shown.broken_off()

    def join(self, chunk: Chunk) -> Chunk:
        """The chunk as the caller gets it."""
        data = b"".join(self._rewritten(event) for event in _objects(chunk.data))
        ending = chunk.ending and self._ending(chunk.ending)
        return Chunk(data, chunk.events, chunk.has_content, ending)

    def _rewritten(self, event: dict[str, Any]) -> bytes:
        event |= self._identity
        says = event.get("usage") is not None
        if usage := _usage(event.get("usage")):
            event["usage"] |= msgspec.to_builtins(added(self._before, usage))
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            delta.pop("role", None)
            says = says or choice.get("finish_reason") is not None or any(delta.values())
        return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n" if says else b""

    def _ending(self, ending: Ending) -> Ending:
        """Model and id of the answer stay those of its beginning."""
        return Ending(ending.finish_reason, ending.usage and added(self._before, ending.usage), None, None)


def added(one: Usage, other: Usage) -> Usage:
    """The usage of both."""
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.total_tokens + other.total_tokens,
    )


def merged(chunks: Sequence[Chunk]) -> Chunk:
    """Chunks that go out together, as one."""
    if len(chunks) == 1:
        return chunks[0]
    return Chunk(
        b"".join(chunk.data for chunk in chunks),
        [event for chunk in chunks for event in chunk.events],
        any(chunk.has_content for chunk in chunks),
        chunks[-1].ending,
    )


def _objects(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.split(b"\n\n"):
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def _usage(reported: Any) -> Usage | None:
    try:
        return msgspec.convert(reported, Usage) if reported is not None else None
    except msgspec.ValidationError:
        return None


def _decoded(raw: msgspec.Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
