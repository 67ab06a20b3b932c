"""Vendor rows: each is complete, and every provider that settings can choose has what it needs."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from shared.providers.vendors import VENDORS, Vendor
from shared.settings import PROVIDERS


@pytest.mark.parametrize("name", VENDORS)
def test_a_row_is_well_formed(name: str) -> None:
    """An address with the version and no slash at its end, a known cap, a header, a path."""
    row = VENDORS[name]
    address = urlsplit(row.base_url)
    assert address.scheme in ("http", "https")
    assert address.hostname
    assert not row.base_url.endswith("/")
    assert row.max_tokens_field in ("max_tokens", "max_completion_tokens")
    assert row.auth_header.isascii()
    assert row.auth_scheme == "" or row.auth_scheme.endswith(" ")
    assert row.health_path.startswith("/")


def test_every_provider_that_calls_out_has_a_row() -> None:
    """The stub and the mock need none."""
    assert set(PROVIDERS) - {"stub", "mock"} <= set(VENDORS)


def test_openais_row() -> None:
    """OpenAI's own API, whose newer models refuse `max_tokens`."""
    assert VENDORS["openai"] == Vendor(
        base_url="https://api.openai.com/v1",
        max_tokens_field="max_completion_tokens",
        auth_header="Authorization",
        auth_scheme="Bearer ",
        health_path="/models",
    )
