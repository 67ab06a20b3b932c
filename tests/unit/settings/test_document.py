"""Files that cannot be read: what is said of them, with line and column, and nothing of what may be a key in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.settings import SettingsError
from shared.settings.document import MAX_BYTES, MAX_DEPTH, MAX_VALUES, Mistakes, Unreadable, named, parsed, shown
from shared.settings.file import read_config
from tests.unit.settings.configs import ENVIRONMENT, KEY, complaint, serving

GOOD = "providers:\n  a: {type: stub}\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
UNREADABLE: list[tuple[str | bytes, str]] = [
    ("", "is empty; it needs at least providers:"),
    ("# all is commented out\n", "is empty"),
    ("---\n...\n", "must be a mapping with at least the key providers, not nothing"),
    ("~", "must be a mapping with at least the key providers, not nothing"),
    ("[]", "must be a mapping with at least the key providers, not a list"),
    ("- a\n- b", "must be a mapping with at least the key providers, not a list"),
    ("providers", "must be a mapping with at least the key providers, not providers"),
    ("{}", "has no providers; write at least one"),
    ("providers:\n\ta:\n", "line 2, column 1: "),
    ("providers:\n\ta:\n", "; indent with spaces, not with tabs (YAML syntax)"),
    ("providers:\n  a: {type: stub\nroutes:\n", "line 3, column 7: did not find expected ',' or '}' (YAML syntax)"),
    ("providers:\n  a: type: stub\n", "line 2, column 10: mapping values are not allowed"),
    ("providers:\n  a:\n    type: stub\n   model: m\n", "line 4, column 4: "),
    ("providers:\n  a: 'x\n", "line 3, column 1: found unexpected end of stream (YAML syntax)"),
    ("providers: @a", "line 1, column 12: "),
    ("providers: %a", "line 1, column 12: "),
    ("routes: {x: {targets: [{model: *}]}}", 'put the * in quotes: "*" (YAML syntax)'),
    ("routes:\n  *:\n    targets: []", 'put the * in quotes: "*" (YAML syntax)'),
    ("providers: *nowhere", "line 1, column 12: found undefined alias (YAML syntax)"),
    (f"{GOOD}---\n{GOOD}", "line 3, column 1: but found another document (YAML syntax)"),
    ("a: 1\n\x07b: 2", "line 2: has a character that YAML does not allow"),
    ("a: 1\n\x00", "line 2: has a character that YAML does not allow"),
    (GOOD.encode("utf-16"), "line 1: is not UTF-8; save the file in that encoding"),
    (b"# all right\n# caf\xe9\n" + GOOD.encode(), "line 2: is not UTF-8"),
    (b"\x89PNG\r\n\x1a\n", "line 1: is not UTF-8"),
    (b"#" * (MAX_BYTES + 1), "has more than 1,000,000 bytes; that is no configuration file"),
    ("providers: !!python/object/apply:os.getcwd []", "line 1: has a tag (a word after !), which has no meaning here"),
    ("providers:\n  a: !env KEY\n", "line 2: has a tag"),
    ("providers:\n  a: ! x\n", "line 2: has a tag"),
    ("[" * 100_000, f"line 1: is nested deeper than {MAX_DEPTH} levels"),
    ("- " * 100_000, f"line 1: is nested deeper than {MAX_DEPTH} levels"),
    ("{a: " * 100_000, f"line 1: is nested deeper than {MAX_DEPTH} levels"),
    (BOMB, "aliases (*) make the file endless or far too large"),
    ("providers: &a\n  b: *a\n", "line 2: aliases (*) make the file endless or far too large"),
    ("providers: &a {<<: *a}", "aliases (*) make the file endless or far too large"),
    ("providers: {a: {<<: 3, type: stub}}", "line 1: providers.a.<<: must be an alias of a mapping, such as *name"),
    ("providers: {a: {<<: [{type: stub}, x]}}", "line 1: providers.a.<<: must be an alias of a mapping"),
    ("providers: {a: &a {type: stub}, b: {<<: *a, <<: *a}}", "line 1: providers.b.<<: is there twice, first in line 1"),
    ("providers: {[a]: {type: stub}}", "line 1: providers.?: a key must be a text"),
    (f"{GOOD}{{a: b}}: 1\n", "line 3: ?: a key must be a text"),
    (f"{GOOD}? {{a: b}}\n: 1\n", "line 3: ?: a key must be a text"),
    ("{'': 1}", "line 1: \"\": unknown key; known: providers, routes, load_shedding"),
    (f"{GOOD}{GOOD}", "line 3: providers: is there twice, first in line 1; only one can count"),
    ('{"providers": {"a": {"type": "stub"}, "a": {"type": "mock"}}}', "line 1: providers.a: is there twice"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), UNREADABLE)
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str | bytes, expected: str) -> None:
    """In one line where it can be, with the place in the file."""
    assert expected in complaint(tmp_path, text)


@pytest.mark.parametrize("text", [text for text, _ in UNREADABLE if isinstance(text, str)])
def test_without_libyaml_the_same_is_refused(text: str) -> None:
    """PyYAML may come without its C library; its own words may differ."""
    fast, slow = noted(text, yaml.CSafeLoader), noted(text, yaml.SafeLoader)
    assert len(fast) == len(slow)
    assert fast == slow or "YAML syntax" in slow[0]


def noted(text: str, loader: type[Any]) -> list[str]:
    """What reading the text finds wrong with it."""
    mistakes = Mistakes()
    try:
        parsed(text, mistakes, loader)
    except Unreadable as error:
        return [str(error)]
    return mistakes.lines()


@pytest.mark.parametrize("loader", [yaml.CSafeLoader, yaml.SafeLoader])
@pytest.mark.parametrize(
    "text", [f"a: *{KEY}", f"a: &{KEY} 1\nb: &{KEY} 2\n c", f"a: !{KEY}!x y", f"a: '{KEY}' '{KEY}'"]
)
def test_the_parsers_own_words_show_no_key(text: str, loader: type[Any]) -> None:
    """PyYAML's slow parser quotes names of anchors and tags."""
    (line,) = noted(text, loader)
    assert line.endswith("(YAML syntax)")
    assert "canary" not in line


@pytest.mark.parametrize("loader", [yaml.CSafeLoader, yaml.SafeLoader])
def test_nesting_up_to_the_limit_is_read(loader: type[Any]) -> None:
    """Far deeper than any file needs to be."""
    assert noted("x: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1), loader) == []
    assert noted("x: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, loader) == ["line 1: is nested deeper than 20 levels"]


def test_libyaml_reads_the_file_where_it_is_installed(tmp_path: Path) -> None:
    """The wording of the fast parser: the slow one says "not allowed here"."""
    assert yaml.__with_libyaml__
    assert "not allowed in this context" in complaint(tmp_path, "providers:\n  a: b: c\n")


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"key {KEY}",
        "gsk_abc",
        "AIzaSyx",
        "AKIAX",
        "eyJhb",
        "Bearer x",
        "abcdefghij0123456789",
        "ABCDEFGHIJ0123456789",
        "0123456789abcdefghij",
        "a" * 32,
        "3F2504e0-4f89-41d3-9a0c-0305e82c3301",
        "https://u:p@h",
        "u:p@h",
        "https://h?k",
        "https://h#k",
        "a:b=c",
    ],
)
def test_what_may_be_a_key_is_not_shown(text: str) -> None:
    """Known beginnings, long random texts, addresses with a password or a query."""
    assert shown(text) == "what is there (not shown: it may be a key)"
    assert named(text) == "(a name that may be a key)"


@pytest.mark.parametrize(
    ("text", "as_value", "as_name"),
    [
        ("gpt-4.1-mini-2025-04-14", '"gpt-4.1-mini-2025-04-14"', "gpt-4.1-mini-2025-04-14"),
        (
            "meta-llama/Llama-3.3-70B-Instruct",
            '"meta-llama/Llama-3.3-70B-Instruct"',
            "meta-llama/Llama-3.3-70B-Instruct",
        ),
        ("OPENAI_API_KEY", '"OPENAI_API_KEY"', "OPENAI_API_KEY"),
        ("12345678901234567890", '"12345678901234567890"', "12345678901234567890"),
        ("http://127.0.0.1:8000/v1", '"http://127.0.0.1:8000/v1"', "http://127.0.0.1:8000/v1"),
        ("two words", '"two words"', '"two words"'),
        ("", '""', '""'),
        ("a\x1b[31m", "a text of 6 characters", "a text of 6 characters"),
        ("- " * 41, "a text of 82 characters", "a text of 82 characters"),
    ],
)
def test_other_texts_are_shown_on_one_line(text: str, as_value: str, as_name: str) -> None:
    """As they stand, while they are short and printable."""
    assert (shown(text), named(text)) == (as_value, as_name)


def said_of(path: Path | str) -> str:
    """What is said of a path, without it."""
    with pytest.raises(SettingsError) as caught:
        read_config(str(path), ENVIRONMENT, None)
    return str(caught.value).removeprefix(f"ECHO_BRAIN_CONFIG: {path}: ")


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    """Missing, a directory, below a file, a loop of links, unreadable: each in the system's words."""
    (tmp_path / "config.yaml").write_text(GOOD)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert said_of(tmp_path / "other.yaml") == "cannot be read: No such file or directory"
    assert said_of(tmp_path) == "is a directory; name the file in it"
    assert said_of(tmp_path / "config.yaml" / "x") == "cannot be read: Not a directory"
    assert said_of(tmp_path / "loop").startswith("cannot be read: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """The file is read by each process that is forked: a pipe has its text once, and a device for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert said_of(tmp_path / "pipe") == "is not a regular file"
    assert said_of("/dev/zero") == "is not a regular file"


def test_a_link_is_followed(tmp_path: Path) -> None:
    """Mounted secrets and config maps are links."""
    (tmp_path / "data.yaml").write_text(GOOD)
    (tmp_path / "config.yaml").symlink_to(tmp_path / "data.yaml")
    assert read_config(str(tmp_path / "config.yaml"), {}, None).providers[0].name == "a"


def test_a_path_that_may_be_a_key_is_not_shown() -> None:
    """Somebody may paste the key into the wrong variable."""
    assert said_of(f"/{KEY}") == "ECHO_BRAIN_CONFIG: the file that it names: cannot be read: No such file or directory"


def test_a_large_file_is_read(tmp_path: Path) -> None:
    """A thousand routes are no mistake, nor a comment of half a million characters."""
    text = (
        GOOD
        + f"# {'x' * 500_000}\nroutes:\n"
        + "".join(f"  r{n}: {{targets: [{{provider: a}}]}}\n" for n in range(999))
    )
    assert len(serving(tmp_path, text).routes) == 1000
    assert MAX_VALUES > 10 * 999
