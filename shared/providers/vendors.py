"""How the vendors of OpenAI-compatible APIs differ: a row of data each (docs/providers.md says how to add one)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.settings import ProviderSettings, SettingsError


@dataclass(frozen=True, slots=True)
class Vendor:
    """One vendor's differences from the others."""

    base_url: str  # with the version path, no slash at the end; may have {host}, {project}, {location}; "": no default
    max_tokens_field: str  # the parameter that caps the completion
    renames_cap: bool = False  # knows no other parameter for it: a cap under another name is put under this one
    auth_header: str = "Authorization"
    auth_scheme: str = "Bearer "  # what stands before the key, its space included
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/models"  # a GET that costs nothing
    health_drops: str = ""  # what of the base URL the health path does not stand behind
    health_key_header: str | None = None  # where the health path wants the bare key in a header of its own
    prefill_body: Mapping[str, object] = field(default_factory=dict)  # more members of a request that continues
    trims_prefill: bool = False  # refuses white space at the end of the text that it continues
    request_id_header: str = "x-request-id"

    def address(self, settings: ProviderSettings) -> str:
        """The base URL of a provider; raises `SettingsError` where something of it is missing."""
        if settings.base_url is not None:
            return settings.base_url
        if not self.base_url:
            raise SettingsError(f"{settings.name}: base_url missing; type {settings.vendor} has no default")
        parts = {"host": vertex_host(settings.location), "project": settings.project, "location": settings.location}
        missing = [name for name, part in parts.items() if f"{{{name}}}" in self.base_url and not part]
        if missing:
            raise SettingsError(f"{settings.name}: {' and '.join(missing)} missing; type {settings.vendor} needs it")
        return self.base_url.format(**parts)

    def health_address(self, base_url: str) -> str:
        """Where the provider behind `base_url` is asked how it is."""
        return base_url.removesuffix(self.health_drops) + self.health_path


def vertex_host(location: str | None) -> str:
    """Vertex AI's host for a location; `global` has no host of its own."""
    return "aiplatform.googleapis.com" if location == "global" else f"{location}-aiplatform.googleapis.com"


VENDORS: Final[Mapping[str, Vendor]] = {
    "openai": Vendor(base_url="https://api.openai.com/v1", max_tokens_field="max_completion_tokens"),
    "azure": Vendor(
        base_url="",  # https://RESOURCE.openai.azure.com/openai/v1
        max_tokens_field="max_completion_tokens",
        auth_header="api-key",
        auth_scheme="",
    ),
    "vertex": Vendor(
        base_url="https://{host}/v1/projects/{project}/locations/{location}/endpoints/openapi",
        max_tokens_field="max_tokens",
        health_drops="/endpoints/openapi",  # it lists no models: asked for is the location itself
        health_path="",
    ),
    "vllm": Vendor(
        base_url="http://127.0.0.1:8000/v1",
        max_tokens_field="max_tokens",
        prefill_body={"add_generation_prompt": False, "continue_final_message": True},
    ),
    "ollama": Vendor(base_url="http://127.0.0.1:11434/v1", max_tokens_field="max_tokens", renames_cap=True),
    "anthropic": Vendor(
        base_url="https://api.anthropic.com/v1",
        max_tokens_field="max_tokens",
        extra_headers={"anthropic-version": "2023-06-01"},
        health_key_header="x-api-key",  # its list of models is the native API's
        trims_prefill=True,
        request_id_header="request-id",
    ),
    "openai-compatible": Vendor(base_url="", max_tokens_field="max_tokens"),
}
