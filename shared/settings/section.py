"""A mapping of the configuration file, read key by key: what is wrong is noted, and the default stands in for it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from shared.settings.document import ListNode, MapNode, Mistakes, Node, named, shown

T = TypeVar("T")

_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_SECRETIVE: Final = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)
KEY_HINT: Final = (
    "a key is never in the file: name its environment variable with api_key_env, or its secret with api_key_secret"
)


class Complaint(ValueError):
    """What is wrong with a value, in words that need no value after them."""


class Section:
    """One mapping and the keys that it may have."""

    def __init__(self, node: Node, known: Iterable[str], mistakes: Mistakes) -> None:
        self.place = node.place
        self._mistakes = mistakes
        self._known = tuple(known)
        self._entries: Mapping[str, Node] = {}
        self.given = isinstance(node, MapNode)
        if isinstance(node, MapNode):
            self._entries = node.entries
        else:
            self.complain(f"must be a mapping with at least the key {self._known[0]}, not {described(node)}")
        for key, value in self._entries.items():
            if key not in self._known:
                mistakes.note(value.place, _unknown(key, self._known))

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __call__(self, key: str, parse: Callable[[Node], T], default: T) -> T:
        """The value of a key, or `default` where there is none or a wrong one, which is noted."""
        node = self._entries.get(key)
        if node is None:
            return default
        if node.nothing:
            self.complain("has no value; write one, or leave the key out for its default", key)
            return default
        try:
            return parse(node)
        except Complaint as error:
            self._mistakes.note(node.place, str(error))
        except ValueError as error:
            self._mistakes.note(node.place, f"{error}, not {described(node)}")
        return default

    def node(self, key: str) -> Node | None:
        """What is written at a key; None also for a key without a value."""
        node = self._entries.get(key)
        return None if node is None or node.nothing else node

    def complain(self, text: str, key: str | None = None) -> None:
        """Notes a mistake of the whole, or of what is written at `key`."""
        self._mistakes.note(self._entries[key].place if key else self.place, text)

    def refuse(self, key: str, reason: str) -> None:
        """Notes a key that must not be there, if it is."""
        if key in self._entries:
            self.complain(reason, key)


def described(node: Node) -> str:
    """A value as a message names it."""
    return "nothing" if node.nothing else node.shown()


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at what may have been meant, or at all there is."""
    names = list(known)
    near = (
        difflib.get_close_matches(word, names, n=1, cutoff=0.85)
        or [name for name in names if len(word) > 2 and word.lower() in name.lower()][:4]  # timeout, url
        or difflib.get_close_matches(word, names, n=3)
    )
    if near:
        return f"did you mean {' or '.join(named(name) for name in near)}?"
    return f"known: {', '.join(named(name) for name in names)}"


def _unknown(key: str, known: tuple[str, ...]) -> str:
    hint = KEY_HINT if "api_key_env" in known and _SECRETIVE.search(key) else nearest(key, known)
    return f"unknown key; {hint}"


def words(parse: Callable[[str], T]) -> Callable[[Node], T]:
    """A value that is text, with or without quotes."""

    def read(node: Node) -> T:
        return parse(_text(node))

    return read


def unshown(parse: Callable[[str], T]) -> Callable[[Node], T]:
    """A text in whose place a key may have been pasted: no message shows it."""

    def read(node: Node) -> T:
        try:
            return parse(_text(node))
        except ValueError as error:
            raise Complaint(str(error)) from None

    return read


def number(low: float, high: float, what: str, *, above: bool = False) -> Callable[[Node], float]:
    """A number from `low` (with `above`, more than that) to `high`, both included."""

    def read(node: Node) -> float:
        text = _bare(node, what)
        value = float(text) if _NUMBER.fullmatch(text) else float("nan")
        if not (low <= value <= high) or (above and value == low):
            raise ValueError(f"must be {what}")
        return value

    return read


def whole(low: int, high: int, what: str) -> Callable[[Node], int]:
    """A whole number from `low` to `high`, both included."""

    def read(node: Node) -> int:
        text = _bare(node, what)
        if not re.fullmatch(r"[-+]?[0-9]{1,10}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be {what}")
        return int(text)

    return read


def switch(node: Node) -> bool:
    """True or false, in the words that YAML knows for them."""
    text = _bare(node, "true or false").lower()
    if text not in ("true", "false", "yes", "no", "on", "off"):
        raise ValueError("must be true or false")
    return text in ("true", "yes", "on")


def listed(node: Node) -> tuple[Node, ...]:
    """The items of a list that has some."""
    if not isinstance(node, ListNode):
        raise ValueError("must be a list")  # noqa: TRY004
    if not node.items:
        raise Complaint("must not be empty")
    return node.items


def _text(node: Node) -> str:
    if isinstance(node, ListNode | MapNode):
        raise ValueError("must be a text")  # noqa: TRY004 - a mistake of the file, not of the program
    return node.text


def _bare(node: Node, what: str) -> str:
    """The text of what must not stand in quotes."""
    if isinstance(node, ListNode | MapNode):
        raise ValueError(f"must be {what}")  # noqa: TRY004
    if not node.plain:
        raise Complaint(f"must be {what}, without quotes; it is the text {shown(node.text)}")
    return node.text
