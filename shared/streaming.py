"""One streamed answer, from whichever targets it takes to make it whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Final

from shared.continuation import Joint, Shown, continuable, continued, merged
from shared.course import Attempt, Course
from shared.errors import BadRequest, BrokenAnswer, EchoBrainError, Overloaded, PrefillRefused
from shared.models import ChatRequest, Chunk
from shared.resilience.deadline import Watch
from shared.resilience.shedding import Load

MAX_BEFORE_CONTENT_BYTES: Final = 1024 * 1024  # what is kept back of a stream that has said nothing yet


class Line:
    """The stream of one attempt, watched."""

    __slots__ = ("_chunks", "_watch", "attempt")

    def __init__(self, attempt: Attempt, request: ChatRequest) -> None:
        upstream = attempt.upstream
        self.attempt = attempt
        self._chunks: AsyncGenerator[Chunk] = upstream.provider.stream(upstream.addressed(request))
        self._watch = Watch(upstream.settings.limits, attempt.total)

    async def next(self) -> Chunk:
        """The next chunk; the last one has an ending. Raises what ended the stream before."""
        self._watch.listen()
        try:
            chunk = await self._chunks.__anext__()
        except BaseException as error:
            meant = self._watch.translated(error)
            if isinstance(meant, StopAsyncIteration):  # a provider that stops without an ending has not answered
                raise BrokenAnswer from None
            if meant is error:
                raise
            raise meant from None
        self._watch.heard(token=chunk.has_content)
        return chunk

    async def until_content(self) -> Chunk:
        """All up to the first content, or to the end of an answer without any, as one chunk."""
        chunks: list[Chunk] = []
        size = 0
        while True:
            chunk = await self.next()
            chunks.append(chunk)
            if chunk.upstream_request_id is not None:
                self.attempt.upstream_request_id = chunk.upstream_request_id
            if chunk.has_content or chunk.ending is not None:
                return merged(chunks)
            size += len(chunk.data)
            if size > MAX_BEFORE_CONTENT_BYTES:
                raise BrokenAnswer

    async def stop(self) -> None:
        """Ends the exchange with the provider at once, where it is still under way."""
        self._watch.close()
        await self._chunks.aclose()

    async def close(self) -> None:
        """The same; an attempt that has neither succeeded nor failed is abandoned."""
        self.attempt.abandoned()
        await self.stop()


class AnswerStream:
    """The chunks of one answer: `begin`, then iterate until a chunk has an ending, and `aclose` in any case.

    Until the first content a failure is another target's business, unseen. After it, a target that continues a text
    may go on; where none does, the failure is raised.
    """

    def __init__(self, course: Course, load: Load, clock: Callable[[], float]) -> None:
        self._course = course
        self._exchange = course.exchange
        self._request = course.request
        self._load = load
        self._clock = clock
        self._entered = False
        self._line: Line | None = None
        self._shown: Shown | None = None  # kept only where somebody could go on
        self._joint: Joint | None = None

    async def begin(self) -> Chunk:
        """The first content with what came before it; raises the failure of all targets, or `Overloaded`."""
        if self._load.full:
            raise Overloaded
        self._load.enter()
        self._entered = True
        line, chunk = await self._course.run(self._open, _close)
        self._line = line
        line.attempt.answering()
        self._exchange.first_token_s = self._clock() if chunk.has_content else None
        if self._course.may_go_on() and continuable(self._request):
            self._shown = Shown()
        return self._passed_on(chunk)

    def __aiter__(self) -> AnswerStream:
        return self

    async def __anext__(self) -> Chunk:
        assert self._line is not None  # noqa: S101 - it has begun
        try:
            chunk = await self._line.next()
        except EchoBrainError as error:
            chunk = await self._go_on(self._line, error)
        if self._joint is not None:
            chunk = self._joint.join(chunk)
        return self._passed_on(chunk)

    async def aclose(self) -> None:
        """Leaves the provider at once where it is still at it."""
        if self._entered:
            self._entered = False
            self._load.leave()
        if self._line is not None:
            await self._line.close()

    def _passed_on(self, chunk: Chunk) -> Chunk:
        if self._shown is not None:
            self._shown.take(chunk)
        if chunk.ending is not None and self._line is not None:
            self._line.attempt.succeeded()
            self._exchange.settle(chunk.ending)
        return chunk

    async def _open(self, attempt: Attempt) -> tuple[Line, Chunk]:
        line = Line(attempt, self._request)
        try:
            return line, await line.until_content()
        except BaseException as error:
            await line.stop()
            if self._request.continues and type(error) is BadRequest:
                raise PrefillRefused from error
            raise

    async def _go_on(self, broken: Line, error: EchoBrainError) -> Chunk:
        """The first content of a target that goes on; raises `error`, what broke the stream, where none does."""
        shown = self._shown
        text = shown.text if shown is not None else None
        further = self._course.broke_off(broken.attempt, error, continuable=text is not None)
        await broken.stop()
        if not further or shown is None:
            raise error
        self._request = continued(self._course.request, shown)
        self._joint = Joint(shown)
        try:
            line, chunk = await self._course.go_on(self._open)
        except EchoBrainError:  # what a target makes of a trailing assistant message is not the caller's concern
            raise error from None
        line.attempt.answering()
        self._line = line
        return chunk


async def _close(opened: tuple[Line, Chunk]) -> None:
    await opened[0].close()
