"""What an operator gets wrong in the configuration file is said so that it can be mended without the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.settings.values import VENDORS
from tests.unit.settings.configs import KEY, complaint, mock, provider
from tests.unit.settings.mistakes import ADDRESSES, BY_TYPE, NUMBERS, PROVIDERS, ROUTES, SECONDS


@pytest.mark.parametrize(("text", "expected"), [*PROVIDERS, *NUMBERS, *BY_TYPE, *ADDRESSES, *ROUTES])
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    """Line, path, what is wrong with which value, and what is allowed; a key is never shown."""
    assert expected in complaint(tmp_path, text)


def test_one_mistake_is_one_line(tmp_path: Path) -> None:
    """It stands in one line of a log."""
    text = mock("request_timeout: 60s")
    assert complaint(tmp_path, text) == f"line 4: providers.a.request_timeout: {SECONDS}, not 60s"


def test_all_mistakes_are_named_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """The operator starts once more, not once more for each."""
    text = "routes:\n  fast: {targets: [{provider: b}]}\nproviders:\n  a: {type: mock, retries: 3}\n  c: {}\n"
    assert complaint(tmp_path, text).splitlines() == [
        " has 3 mistakes:",
        "  line 2: routes.fast.targets[0].provider: there is no provider b; known: a, c",
        "  line 4: providers.a.retries: unknown key; did you mean max_retries?",
        f"  line 5: providers.c: has no type; it must be one of {', '.join(VENDORS)}",
    ]


def test_a_hopeless_file_does_not_fill_the_screen(tmp_path: Path) -> None:
    """The first twenty, and how many more there are."""
    lines = complaint(tmp_path, mock("\n".join(f"zz{index}: 1" for index in range(33)))).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (22, " has 33 mistakes:", "  and 13 more")


def test_a_wrong_provider_may_still_be_routed_to(tmp_path: Path) -> None:
    """One mistake does not draw others after it."""
    text = "providers: {a: {type: mock, retries: 1}}\nroutes: {x: {targets: [{provider: a}]}}"
    assert complaint(tmp_path, text) == "line 1: providers.a.retries: unknown key; did you mean max_retries?"


@pytest.mark.parametrize(
    "key",
    [KEY, "AIzaSyD-canary_x", "0123456789abcdef0123456789canary", "eyJhbGciOi.canary", "ebk_canary", "Bearer-canary"],
)
@pytest.mark.parametrize(
    "text",
    [
        "{type: %s}",
        "{type: vllm, model: '%s '}",
        "{type: vllm, base_url: '%s'}",
        "{type: vllm, api_key_env: '%s'}",
        "{type: vllm, api_key_secret: '%s/'}",
        "{type: mock, '%s': 1}",
        "{type: mock, weight: '%s'}",
        "{type: mock, weight: %s}",
        "{type: mock, continues_prefill: ['%s']}",
        "{type: vertex, project: '%s'}",
        "'%s'",
        "{type: mock}\n  '%s': {type: nonsense}",
        "{type: mock}\nroutes: {x: {targets: [{provider: '%s'}]}}",
        "{type: mock}\nroutes: {'%s': {targets: [{provider: b}]}}",
        "{type: mock}\n'%s': 1",
        "*%s",
        "!%s x",
        "&%s [",
        "'%s",
        "'%s' '%s'",
        "%s: %s: %s",
    ],
)
def test_a_key_pasted_anywhere_is_not_shown(tmp_path: Path, text: str, key: str) -> None:
    """Wherever it lands, a mistake or not."""
    said = complaint(tmp_path, provider(text.replace("%s", key)))
    assert said or "api_key_env" in text
