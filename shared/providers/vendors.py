"""How the vendors of OpenAI-compatible APIs differ: a row of data each (docs/providers.md says how to add one)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Vendor:
    """One vendor's differences from the others."""

    base_url: str  # with the version path, without a trailing slash
    max_tokens_field: str  # the parameter that caps the completion
    auth_header: str = "Authorization"
    auth_scheme: str = "Bearer "  # what stands before the key, its space included
    health_path: str = "/models"  # a GET that costs nothing


VENDORS: Final = {
    "openai": Vendor(base_url="https://api.openai.com/v1", max_tokens_field="max_completion_tokens"),
}
