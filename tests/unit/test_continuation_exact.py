"""Property: whoever shares a text, and however it is cut, the caller reads it exactly, as from one."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.continuation import Joint, Shown, continued
from shared.models import Chunk
from shared.providers.events import EventReader
from tests.unit.fakes import chat_request, seeded
from tests.unit.scripted import event, role
from tests.unit.test_continuation import data_of, members, through

T = TypeVar("T")


def units(text: str) -> list[str]:
    """The text as a vendor has it that counts in UTF-16: characters beyond the first plane are in two halves."""
    raw = text.encode("utf-16-le", "surrogatepass")
    return [raw[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(raw), 2)]


def whole(text: str) -> str:
    """The halves put together again, as a client does that appends."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def cut(of: Sequence[T], rng: random.Random, most: int) -> list[Sequence[T]]:
    """In pieces of which none is empty, at most so many."""
    inner = {rng.randrange(1, max(2, len(of))) for _ in range(rng.randrange(most))} - {len(of)}
    at = [0, *sorted(inner), len(of)]
    return [of[start:end] for start, end in pairwise(at)]


def fed(block: bytes, rng: random.Random) -> list[Chunk]:
    """The chunks of a vendor's bytes that come in some pieces."""
    reader = EventReader(choices=1, pass_usage=True, upstream_request_id=None)
    return [chunk for piece in cut(block, rng, 6) if (chunk := reader.feed(bytes(piece))) is not None]


def vendor(tokens: Sequence[Sequence[str]], name: str, *, last: bool) -> bytes:
    """The bytes of a vendor that says these tokens, each as its halves are."""
    objects = [role(name), *(event("".join(token), of=name) for token in tokens)]
    objects += [event(of=name, finish="stop")] if last else []
    return b"".join(b"data: " + json.dumps(row).encode() + b"\n\n" for row in objects)


TEXT = st.text(st.one_of(st.sampled_from('ab \n\r"\\\u2028é🌍👩\u200d🚀'), st.characters()), min_size=3, max_size=30)


@settings(max_examples=300)
@given(TEXT, st.integers(0, 2**32))
def test_the_text_is_exact_however_it_was_cut(text: str, seed: int) -> None:
    """Up to three vendors share a text, cut anywhere, halves of characters included, and their bytes come in any
    pieces: the caller reads the text, one id, one role, and each next one is asked with exactly what was
    shown, but for half of a character at its end."""
    rng = seeded(seed)
    parts = cut(units(text), rng, 3)
    of, got = Shown(), list[Chunk]()
    for name, part in zip("abc", parts, strict=False):
        chunks = fed(vendor(cut(part, rng, 5), name, last=part is parts[-1]), rng)
        if got:
            shown = "".join(delta_texts(got)).encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
            assert trailing(of) == {"role": "assistant", "content": shown}
            got += through(Joint(of), of, chunks)
        else:
            for chunk in chunks:
                of.take(chunk)
            got += chunks
    assert whole("".join(delta_texts(got))) == whole(text)
    rows = data_of(got)
    assert {row["id"] for row in rows} == {"id-a"}
    assert ["role" in row["choices"][0]["delta"] for row in rows].count(True) == 1
    assert [row["choices"][0].get("finish_reason") for row in rows].count("stop") == 1


def trailing(of: Shown) -> object:
    """The message that the next one shall go on with."""
    return members(continued(chat_request(stream=True), of))["messages"][-1]


def delta_texts(chunks: Sequence[Chunk]) -> list[str]:
    """The pieces of text that a client reads."""
    return [row["choices"][0]["delta"].get("content") or "" for row in data_of(chunks)]
