"""The example file and the documentation know every key and tell the truth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.models import Route, Target
from shared.settings import ProviderSettings, Serving
from shared.settings.file import KEYS, ROUTE_KEYS, SHEDDING_KEYS, TARGET_KEYS, read_config
from shared.settings.provider import KEYS as PROVIDER_KEYS
from shared.settings.values import VENDORS
from tests.servers import ROOT
from tests.unit.settings.configs import complaint, serving

EXAMPLE = ROOT / "config.example.yaml"
DOCS = (ROOT / "docs" / "configuration.md").read_text()
TABLES = {
    "provider": tuple(PROVIDER_KEYS),
    "route": ROUTE_KEYS,
    "target": TARGET_KEYS,
    "load_shedding": SHEDDING_KEYS,
}


@pytest.fixture(scope="module")
def example() -> Serving:
    """The example file, with the two variables set that it names."""
    return read_config(str(EXAMPLE), {"OPENAI_API_KEY": "k1", "HOSTED_API_KEY": "k2"}, None)


def test_the_example_is_right(example: Serving) -> None:
    """It has a provider of every type but the stub, its keys, its limit and its routes."""
    assert {provider.vendor for provider in example.providers} == set(VENDORS) - {"stub"}
    assert [p.api_key for p in example.providers if p.api_key] == ["k1", "k2"]
    assert example.max_in_flight == 200
    assert list(example.routes) == ["fast", "careful", "gpt-*", "drill", "default", "*"]
    assert example.routes["fast"] == Route(
        (Target("openai", "gpt-4.1-mini", 1, 9.0), Target("gemini", None, 1, 1.0), Target("ollama", None, 2, 0.0)), 1.5
    )
    assert example.routes["gpt-*"].targets == (Target("openai", "*", 1, 0.7), Target("azure", None, 2, 0.3))
    assert example.routes["*"] == example.routes["default"]


@pytest.mark.parametrize("name", ["openai", "azure", "gemini", "claude", "vllm", "ollama", "hosted", "practice"])
def test_the_example_is_rolled_back_to_any_of_its_providers(name: str) -> None:
    """Without the others' keys."""
    environ = {"OPENAI_API_KEY": "k1"} if name == "openai" else {"HOSTED_API_KEY": "k2"} if name == "hosted" else {}
    assert name in [provider.name for provider in read_config(str(EXAMPLE), environ, name).providers]


def keys_in(data: Any) -> set[str]:
    """Every key of every mapping."""
    if isinstance(data, dict):
        return set(data).union(*(keys_in(value) for value in data.values()))
    return set[str]().union(*(keys_in(item) for item in data)) if isinstance(data, list) else set()


def test_the_example_has_every_key() -> None:
    """What a reader may set is there to be copied."""
    written = keys_in(yaml.safe_load(EXAMPLE.read_text()))
    assert {*KEYS, *PROVIDER_KEYS, *ROUTE_KEYS, *TARGET_KEYS, *SHEDDING_KEYS} - written == set()


def rows(what: str) -> dict[str, str]:
    """The keys of a table of the documentation, and their defaults."""
    table = re.search(rf"\| key of (?:a )?`?{what}`? \|.*?\n\n", DOCS, re.DOTALL)
    assert table
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table[0], re.MULTILINE))


@pytest.mark.parametrize("what", TABLES)
def test_the_documentation_has_every_key(what: str) -> None:
    """A row for each key, and none about another, in the order of the code."""
    assert tuple(rows(what)) == TABLES[what]


def test_the_documentation_names_the_defaults(tmp_path: Path) -> None:
    """A mock with the documented defaults written out is a mock without them."""
    shown = {key: text for key, text in rows("provider").items() if re.fullmatch(r"[\d.]+|false|\[.*\]", text)}
    assert len(shown) == 16
    lines = "".join(f"    {key}: {text}\n" for key, text in shown.items())
    (written,) = serving(tmp_path, f"providers:\n  a:\n    type: mock\n{lines}").providers
    assert written == ProviderSettings(name="a", vendor="mock")


def test_the_documentation_names_every_type() -> None:
    """The row of `type` and the table of the code."""
    (row,) = re.findall(r"^\| `type` \| required \| (.*) \|$", DOCS, re.MULTILINE)
    assert re.findall(r"`([\w-]+)`", row) == list(VENDORS)


def test_the_messages_in_the_documentation_are_real(tmp_path: Path) -> None:
    """The three lines shown there, from a file with those mistakes."""
    text = (
        "# line 1\n# line 2\n"
        "providers:\n  openai-gpt4: {type: mock}\n  openai:\n    type: mock\n"
        "    request_timeout: 60s\n    model: m\n    retries: 3\n"
        "routes:\n  fast:\n    hedge_after_ms: 5\n    targets:\n      - {provider: openai-gtp4}\n"
    )
    said = complaint(tmp_path, text)
    assert said.lstrip() in DOCS
    assert "has 3 mistakes" in said
