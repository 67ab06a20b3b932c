"""The body of a request as a vendor wants it: the caller's members as they were written, and few of our own."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from shared.models import ChatRequest
from shared.providers.vendors import Vendor
from shared.settings import ProviderSettings

_CAPS: Final = ("max_tokens", "max_completion_tokens")
_NULL: Final = msgspec.Raw(b"null")
_TRUE: Final = msgspec.Raw(b"true")

_Members = dict[str, msgspec.Raw]


def request_body(request: ChatRequest, settings: ProviderSettings, vendor: Vendor) -> bytes:
    """The request with the model, the cap, the wish for usage and what the vendor needs to continue a text."""
    members = dict(request.parameters)
    model = request.model or settings.model
    if model is not None:
        members["model"] = _raw(model)
    _cap(members, request, settings, vendor)
    if request.stream:
        members["stream"] = _TRUE
        options = msgspec.json.decode(members.get("stream_options", _NULL), type=_Members | None) or {}
        members["stream_options"] = _raw({**options, "include_usage": _TRUE})
    if request.continues:
        members |= {name: _raw(value) for name, value in vendor.prefill_body.items()}
        if vendor.trims_prefill:
            members["messages"] = _trimmed(members["messages"])
    return msgspec.json.encode(members)


def _cap(members: _Members, request: ChatRequest, settings: ProviderSettings, vendor: Vendor) -> None:
    """A completion is always capped, by a parameter that the vendor knows."""
    named = [cap for cap in _CAPS if bytes(members.get(cap, _NULL)) != b"null"]
    if not named:
        members[vendor.max_tokens_field] = _raw(request.cap.tokens if request.cap else settings.max_tokens)
    elif vendor.renames_cap and vendor.max_tokens_field not in named:
        members[vendor.max_tokens_field] = members.pop(named[0])


def _trimmed(messages: msgspec.Raw) -> msgspec.Raw:
    """The messages, the last one's text without white space at its end."""
    *before, last = msgspec.json.decode(messages, type=list[msgspec.Raw])
    message = msgspec.json.decode(last, type=dict[str, Any])
    if isinstance(message.get("content"), str):
        message["content"] = message["content"].rstrip()
    return _raw([*before, message])


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
