"""The text of the configuration file as a tree in which every value knows its place and is still text.

What a plain `no`, `4.10` or `012` means is decided by the setting that it is for, not guessed by YAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import yaml  # loaded only where there is a file to read: it is no part of a cold start without one

MAX_BYTES: Final = 1_000_000
MAX_VALUES: Final = 20_000  # with aliases written out: a few lines of them can mean billions
MAX_DEPTH: Final = 20
SHOWN: Final = 80  # characters of a value in a message

_NOTHING: Final = ("", "~", "null", "Null", "NULL")
_KEY_LIKE: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|ebk|gsk|xai|hf|ghp|pplx)[-_]|AIza|AKIA|eyJ|ya29|(?i:bearer)\b)"  # known beginnings
    r"|(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{20,}|[A-Za-z0-9]{32,}"  # random letters and digits
    r"|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-"  # a UUID
    r"|:.*[@?#=]"  # an address with a password or a query
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the file something is: the path of keys to it, and its line."""

    path: str
    line: int

    def under(self, name: str, line: int) -> Place:
        """The place of a key or, by `[0]`, of an item."""
        joint = "." if self.path and not name.startswith("[") else ""
        return Place(f"{self.path}{joint}{name}", line)


@dataclass(slots=True)
class Mistakes:
    """What is wrong with the file, all of it: the operator should have to start it again only once."""

    found: list[tuple[int, str]] = field(default_factory=list)  # lines, 0 for the whole file, and what is wrong there

    def note(self, place: Place, text: str) -> None:
        """Keeps what is wrong with a place."""
        self.found.append((place.line, f"{place.path}: {text}" if place.path else text))

    def lines(self) -> list[str]:
        """One line a mistake, in the order of the file."""
        in_order = sorted(dict.fromkeys(self.found), key=lambda found: found[0])
        return [f"line {line}: {text}" if line else text for line, text in in_order]


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file: a text, or one of the two below."""

    place: Place
    text: str = ""
    plain: bool = False  # written without quotes: may mean a number, true or false, or nothing

    @property
    def nothing(self) -> bool:
        """A key without a value."""
        return self.plain and self.text in _NOTHING

    def shown(self) -> str:
        """The value as a message may show it; what stood in quotes has them there, too."""
        bare = self.plain and re.fullmatch(r"[!-~]{1,80}", self.text)
        return shown(self.text).strip('"') if bare else shown(self.text)


@dataclass(frozen=True, slots=True)
class ListNode(Node):
    """A list of values."""

    items: tuple[Node, ...] = ()

    def shown(self) -> str:
        """Its kind; what is in it may be long."""
        return "a list"


@dataclass(frozen=True, slots=True)
class MapNode(Node):
    """Keys and their values, in the order of the file."""

    entries: Mapping[str, Node] = field(default_factory=dict)

    def shown(self) -> str:
        """Its kind; what is in it may be long."""
        return "a mapping"


def shown(text: str) -> str:
    """A text as a message may show it: quoted and on one line; not at all where it may be a key or a password."""
    if _KEY_LIKE.search(text):
        return "what is there (not shown: it may be a key)"
    if len(text) > SHOWN or not text.isprintable():
        return f"a text of {len(text)} characters"
    return f'"{text}"'


def named(text: str) -> str:
    """A key of a mapping as it is shown in a path."""
    if _KEY_LIKE.search(text):
        return "(a name that may be a key)"
    return text if re.fullmatch(r"[!-~]{1,80}", text) else shown(text)


class Unreadable(ValueError):
    """The file cannot be read at all; the message says why, without its path."""


def read_document(path: str, mistakes: Mistakes) -> Node:
    """The tree of the file at `path`; raises `Unreadable`, notes what can be said beside other mistakes."""
    return parsed(_text(Path(path)), mistakes)


def _text(path: Path) -> str:
    try:
        if path.is_dir():
            raise Unreadable("is a directory; name the file in it")
        if path.exists() and not path.is_file():  # a pipe could be read once only, and a device for ever
            raise Unreadable("is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise Unreadable(f"has more than {MAX_BYTES:,} bytes; that is no configuration file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"line {line}: is not UTF-8; save the file in that encoding") from None


def parsed(text: str, mistakes: Mistakes, loader: type[Any] | None = None) -> Node:
    """The tree of a text, read by libyaml where it is there, which is ten times as fast; raises as above."""
    import yaml

    chosen: Any = loader or getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(text, chosen))
        root = chosen(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise Unreadable(_syntax(error, text)) from None
    except yaml.YAMLError as error:
        at = getattr(error, "position", None)
        line = f"line {text.count(chr(10), 0, at) + 1}: " if isinstance(at, int) else ""
        raise Unreadable(f"{line}has a character that YAML does not allow") from None
    if root is None:
        raise Unreadable("is empty; it needs at least providers:")
    return _Tree(mistakes).node(root, Place("", 0), 0)


def _check_events(events: Iterator[Any]) -> None:
    """Before anything recursive reads the file: libyaml's composer overflows the stack of the process on `[[[[…`."""
    depth = 0
    for event in events:
        kind = type(event).__name__
        depth += kind in ("SequenceStartEvent", "MappingStartEvent")
        depth -= kind in ("SequenceEndEvent", "MappingEndEvent")
        where = f"line {event.start_mark.line + 1}: "
        if depth > MAX_DEPTH:
            raise Unreadable(f"{where}is nested deeper than {MAX_DEPTH} levels")
        if getattr(event, "tag", None) is not None:
            raise Unreadable(f"{where}has a tag (a word after !), which has no meaning here; put the value in quotes")


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    """What the parser says, without what it quotes of the file: that may be a key."""
    problem = re.sub(r"\s*'([^']*)'", _if_short, error.problem or "is not YAML")
    mark = error.problem_mark
    if mark is None:
        return problem
    lines = text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    hint = "; indent with spaces, not with tabs" if "\t" in line[: len(line) - len(line.lstrip())] else ""
    if "alias" not in problem and re.search(r"(?:^|[\s{\[,])\*(?:[\s:,}\]]|$)", line[: mark.column + 1]):
        hint = '; put the * in quotes: "*"'
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}{hint} (YAML syntax)"


def _if_short(quoted: re.Match[str]) -> str:
    """Signs such as ',' and kinds such as '<scalar>' stay, names go."""
    return quoted[0] if len(quoted[1]) <= 4 or quoted[1].startswith("<") else ""


class _Tree:
    """Turns YAML's nodes into ours, with aliases and merges written out."""

    def __init__(self, mistakes: Mistakes) -> None:
        self._mistakes = mistakes
        self._values = 0

    def node(self, node: Any, place: Place, depth: int) -> Node:
        """The value with all that is under it; raises `Unreadable` where aliases make it too large."""
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise Unreadable(f"line {place.line}: aliases (*) make the file endless or far too large")
        if node.id == "mapping":
            return MapNode(place, entries=self._entries(node, place, depth))
        if node.id == "sequence":
            return ListNode(place, items=self._items(node, place, depth))
        return Node(place, node.value, plain=not getattr(node, "style", None))

    def _items(self, node: Any, place: Place, depth: int) -> tuple[Node, ...]:
        return tuple(
            self.node(item, place.under(f"[{index}]", _line(item)), depth + 1) for index, item in enumerate(node.value)
        )

    def _entries(self, node: Any, place: Place, depth: int) -> dict[str, Node]:
        """The keys and values; what `<<` brings in stands behind what is written here."""
        entries: dict[str, Node] = {}
        merged: list[Any] = []
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = key.value if key.id == "scalar" else ""
            where = place.under(named(name), _line(key))
            if key.id != "scalar":
                self._mistakes.note(place.under("?", _line(key)), "a key must be a text")
            elif name in lines:
                self._mistakes.note(where, f"is there twice, first in line {lines[name]}; only one can count")
            elif key.tag.endswith(":merge"):
                merged += value.value if value.id == "sequence" else [value]
            else:
                entries[name] = self.node(value, where, depth + 1)
            lines.setdefault(name, _line(key))
        for base in merged:
            entries = {**self._merged(base, place, depth), **entries}
        return entries

    def _merged(self, base: Any, place: Place, depth: int) -> Mapping[str, Node]:
        node = self.node(base, place, depth + 1)
        if isinstance(node, MapNode):
            return node.entries
        self._mistakes.note(place.under("<<", _line(base)), "must be an alias of a mapping, such as *name")
        return {}


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
