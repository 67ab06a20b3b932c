"""The vendors' rows: sound, complete, and each where its documentation says (docs/providers.md names the pages)."""

from __future__ import annotations

import pytest

from shared.providers.vendors import VENDORS, Vendor
from shared.settings import ProviderSettings, SettingsError
from shared.settings.values import KEYLESS
from shared.settings.values import VENDORS as TYPES

PROJECT = "https://{}/v1/projects/p-1/locations/{}/endpoints/openapi"


def settings(vendor: str, **more: str) -> ProviderSettings:
    """A provider of this vendor."""
    return ProviderSettings(name="mine", vendor=vendor, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VENDORS)
def test_a_row_is_sound(name: str) -> None:
    """Its parts fit together when an address and a header are made of them."""
    row = VENDORS[name]
    assert row.base_url == "" or row.base_url.startswith(("https://", "http://127.0.0.1:"))
    assert not row.base_url.endswith("/")
    assert row.max_tokens_field in ("max_tokens", "max_completion_tokens")
    assert row.auth_header.isascii()
    assert row.auth_scheme == "" or row.auth_scheme.endswith(" ")
    assert row.health_path == "" or row.health_path.startswith("/")
    assert row.base_url.endswith(row.health_drops)


def test_every_type_that_calls_out_has_a_row() -> None:
    """The stub and the mock need none."""
    assert set(TYPES) - set(KEYLESS) == set(VENDORS)


@pytest.mark.parametrize(
    ("vendor", "more", "address"),
    [
        ("openai", {}, "https://api.openai.com/v1"),
        ("anthropic", {}, "https://api.anthropic.com/v1"),
        ("vllm", {}, "http://127.0.0.1:8000/v1"),
        ("ollama", {}, "http://127.0.0.1:11434/v1"),
        (
            "vertex",
            {"project": "p-1", "location": "europe-west4"},
            PROJECT.format("europe-west4-aiplatform.googleapis.com", "europe-west4"),
        ),
        ("vertex", {"project": "p-1", "location": "global"}, PROJECT.format("aiplatform.googleapis.com", "global")),
        *((name, {"base_url": "https://own.example/{v}"}, "https://own.example/{v}") for name in VENDORS),
    ],
)
def test_the_address_is_the_settings_or_the_vendors(vendor: str, more: dict[str, str], address: str) -> None:
    """The address that was set is taken as it is; the vendor's is completed."""
    assert VENDORS[vendor].address(settings(vendor, **more)) == address


@pytest.mark.parametrize(
    ("vendor", "more", "missing"),
    [
        ("azure", {}, "mine: base_url missing"),
        ("openai-compatible", {}, "mine: base_url missing"),
        ("vertex", {}, "mine: project and location missing"),
        ("vertex", {"project": "p-1"}, "mine: location missing"),
        ("vertex", {"location": "global"}, "mine: project missing"),
    ],
)
def test_what_is_missing_of_an_address_is_named(vendor: str, more: dict[str, str], missing: str) -> None:
    """A provider is never built with half an address."""
    with pytest.raises(SettingsError, match=f"^{missing}; type {vendor} "):
        VENDORS[vendor].address(settings(vendor, **more))


def test_vertex_is_asked_for_the_location_whether_it_is_well() -> None:
    """Its endpoint lists no models; also behind another host."""
    row = VENDORS["vertex"]
    address = row.address(settings("vertex", project="p-1", location="us-central1"))
    own = "http://127.0.0.1:9/v1/projects/p/locations/l"
    assert row.health_address(address) == (
        "https://us-central1-aiplatform.googleapis.com/v1/projects/p-1/locations/us-central1"
    )
    assert row.health_address(f"{own}/endpoints/openapi") == own


def test_openais_row() -> None:
    """OpenAI's own API, whose newer models refuse `max_tokens`."""
    assert VENDORS["openai"] == Vendor(
        base_url="https://api.openai.com/v1",
        max_tokens_field="max_completion_tokens",
        auth_header="Authorization",
        auth_scheme="Bearer ",
        health_path="/models",
    )
