"""A stream that has been admitted, with all that may be open behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.course import Course
from shared.models import ChatRequest, Chunk
from shared.resilience.shedding import Load
from shared.settings import RetryPolicy
from shared.streaming import AnswerStream
from shared.upstream import Upstream
from tests.unit.fakes import Clock, chat_request
from tests.unit.scripted import (
    Scripted,
    Turn,
    course,
    idle,
    up,
)

AT_ONCE = RetryPolicy(max_retries=0)


@dataclass
class Asked:
    """A stream and all that may be open behind it."""

    stream: AnswerStream
    course: Course
    load: Load
    ups: Sequence[Upstream]

    async def rest(self, chunk: Chunk) -> list[Chunk]:
        """This chunk and all behind it."""
        chunks = [chunk]
        while chunks[-1].ending is None:
            chunks.append(await anext(self.stream))
        return chunks

    async def all(self) -> list[Chunk]:
        """All chunks; closed afterwards, as every reader does."""
        try:
            return await self.rest(await self.stream.begin())
        finally:
            await self.stream.aclose()
            assert self.nothing_open()

    def nothing_open(self) -> bool:
        """Whether no count is left and no provider's stream is open."""
        return self.load.under_way == 0 and idle(*self.ups)


def asked(*ups: Upstream, load: Load | None = None, request: ChatRequest | None = None, **more: Any) -> Asked:
    """A request for a stream that has been admitted."""
    load = load or Load(None)
    of = course(*ups, request=request or chat_request(stream=True), **more)
    return Asked(AnswerStream(of, load, Clock(2000.0)), of, load, ups)


def provider(name: str, *turns: Turn, **settings: Any) -> Upstream:
    """A target that plays these turns; it does not retry, so that each failure goes on to the next."""
    return up(Scripted(name, list(turns)), **{"retries": AT_ONCE, **settings})


def continuing(name: str, *turns: Turn, **settings: Any) -> Upstream:
    """A target that continues a trailing assistant message."""
    return provider(name, *turns, continues_prefill=True, **settings)


def requests(of: Upstream) -> list[ChatRequest]:
    """What the target was asked."""
    assert isinstance(of.provider, Scripted)
    return of.provider.asked


def text_of(chunks: Sequence[Chunk]) -> str:
    """The text that a client reads."""
    rows = [json.loads(line[6:]) for line in b"".join(c.data for c in chunks).decode().split("\n\n")[:-1]]
    return "".join(row["choices"][0]["delta"].get("content") or "" for row in rows if row["choices"])
