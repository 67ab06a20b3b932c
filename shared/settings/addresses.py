"""Addresses of providers: encrypted, unless the host is one of one's own."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from shared.settings import fields

LOCAL_NAMES: Final = (".localhost", ".local", ".internal", ".svc")


def api_address(raw: str) -> str:
    """An address with `https://`; `http://` only where the host is local. Raises `ValueError`."""
    address = fields.url(raw)
    parts = urlsplit(address)
    if parts.scheme != "https" and not is_local(parts.hostname or ""):
        raise ValueError(
            "must begin with https:// unless the host is local (http would send prompts and keys in the clear)"
        )
    return address


def is_local(host: str) -> bool:
    """A lower-case host: loopback, a private address, a name without a dot (a container's) or one of a private zone."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        name = host.removesuffix(".")
        return "." not in name or name.endswith(LOCAL_NAMES)
