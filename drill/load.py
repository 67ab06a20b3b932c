"""The callers: so many a second whatever the gateway does, each judging its answer as docs/brain_api.md tells it to."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

RATE_PER_S: Final = 20
QUESTION: Final = {"model": "drill", "messages": [{"role": "user", "content": "What if a provider dies?"}]}
WAYS: Final[tuple[tuple[str, dict[str, bool]], ...]] = (  # to ask: in either dialect, streamed or not
    ("/v1/brain/chat", {}),
    ("/v1/brain/chat/stream", {}),
    ("/v1/chat/completions", {}),
    ("/v1/chat/completions", {"stream": True}),
)


@dataclass(slots=True)
class Answer:
    """What one caller got; `error` says what was wrong with it."""

    path: str
    headers: dict[str, str] = field(default_factory=dict)  # those that tell of its way
    error: str | None = None


class Load:
    """Callers of the gateway at `url`, who know that a whole answer says `text`."""

    def __init__(self, url: str, text: str, answered: Callable[[Answer], None]) -> None:
        self.speaking = 0  # streams that have begun and not ended
        self._under_way: list[asyncio.Task[None]] = []
        self._url, self._text, self._answered = url, text, answered

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Asks while the body runs; at its end waits for what was asked."""
        # A connection a question: one that is closed while idle would be a failure of the drill's own making.
        connector, patience = aiohttp.TCPConnector(limit=0, force_close=True), aiohttp.ClientTimeout(60)
        async with aiohttp.ClientSession(connector=connector, timeout=patience) as session:
            asking = asyncio.create_task(self._ask_on(session))
            try:
                yield
            except BaseException:
                for task in self._under_way:  # the drill is over: what they would say now is no finding
                    task.cancel()
                raise
            finally:
                asking.cancel()
            await asyncio.gather(*self._under_way)

    async def _ask_on(self, session: aiohttp.ClientSession) -> None:
        for path, more in itertools.cycle(WAYS):
            self._under_way.append(asyncio.create_task(self._ask(session, Answer(path), {**QUESTION, **more})))
            await asyncio.sleep(1 / RATE_PER_S)

    async def _ask(self, session: aiohttp.ClientSession, answer: Answer, question: dict[str, Any]) -> None:
        try:
            async with session.post(self._url + answer.path, json=question) as response:
                names = ("X-Served-By", "X-Attempts", "X-Failed-Providers")
                answer.headers = {name: response.headers[name] for name in names if name in response.headers}
                body = await self._read(response)
                _check(response.status == 200, f"status {response.status}")
                text = text_of(response.content_type, body)
                _check(text == self._text, f"another text: {text}")
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError, AttributeError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        self._answered(answer)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body, is_stream = b"", response.content_type == "text/event-stream"
        try:
            async for part in response.content.iter_any():
                self.speaking += is_stream and not body
                body += part
        finally:
            self.speaking -= is_stream and bool(body)
        return body


def text_of(content_type: str, body: bytes) -> str:
    """What a whole answer says; ValueError or another for one that is not whole."""
    if content_type != "text/event-stream":
        answer = json.loads(body)
        return _brain_text(answer) if "ok" in answer else _openai_text(answer)
    _check(body.endswith(b"\n\n"), "it breaks off")
    events = [block for block in body.decode()[:-2].split("\n\n") if not block.startswith(":")]
    return _brain_stream_text(events) if events[0].startswith("event: ") else _openai_stream_text(events)


def _brain_text(answer: dict[str, Any]) -> str:
    _check(answer["ok"] is True, "not ok")
    return str(answer["message"]["content"])


def _brain_stream_text(events: list[str]) -> str:
    """`meta`, tokens and `final`, in this order, with nothing after it."""
    names, data = zip(*(event.removeprefix("event: ").split("\ndata: ") for event in events), strict=True)
    _check(names == ("meta", *["token"] * (len(names) - 2), "final"), f"the last event is {names[-1]}")
    text = "".join(json.loads(token)["token"] for token in data[1:-1])
    _check(_brain_text(json.loads(data[-1])) == text, "the final event has another text than the tokens")
    return text


def _openai_text(answer: dict[str, Any]) -> str:
    (choice,) = answer["choices"]
    _check(choice["finish_reason"] == "stop", "no end")
    return str(choice["message"]["content"])


def _openai_stream_text(events: list[str]) -> str:
    """Chunks with one id, one role and one end, then `[DONE]`."""
    _check(events[-1] == "data: [DONE]", "no [DONE]")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    _check(len({chunk["id"] for chunk in chunks}) == 1, "more than one id")
    _check(sum("role" in choice["delta"] for choice in choices) == 1, "not exactly one role")
    _check(
        [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"], "not exactly one end"
    )
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def _check(holds: bool, complaint: str) -> None:
    if not holds:
        raise ValueError(complaint)
