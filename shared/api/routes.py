"""Which path of which function answers what: the table of the house's doors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Route:
    """One path: the only method it takes, the dialect it speaks, the name of its handler in `Endpoints`."""

    method: str
    dialect: str
    handler: str


Routes = Mapping[str, Route]

_BRAIN_CHAT: Final = Route("POST", "brain", "brain_chat")
_BRAIN_STREAM: Final = Route("POST", "brain", "brain_stream")
_BRAIN_HEALTH: Final = Route("GET", "brain", "brain_health")
_COMPLETIONS: Final = Route("POST", "openai", "completions")
_PROBES: Final[Routes] = {
    "/health": Route("GET", "brain", "liveness"),
    "/version": Route("GET", "brain", "version"),
}
CHAT: Final[Routes] = {
    "/": _BRAIN_CHAT,
    "/v1/brain/chat": _BRAIN_CHAT,
    "/v1/chat/completions": _COMPLETIONS,
    "/v1/models": Route("GET", "openai", "models"),
    **_PROBES,
}
STREAM: Final[Routes] = {
    "/": _BRAIN_STREAM,
    "/v1/brain/chat/stream": _BRAIN_STREAM,
    "/v1/chat/completions": _COMPLETIONS,
    **_PROBES,
}
HEALTH: Final[Routes] = {"/": _BRAIN_HEALTH, "/v1/brain/health": _BRAIN_HEALTH, **_PROBES}
EVERYTHING: Final[Routes] = {**HEALTH, **STREAM, **CHAT}


def dialect_of(path: str) -> str:
    """The dialect in which an unknown path is refused: what follows /v1/ and is not ours is an OpenAI client's."""
    return "openai" if path.startswith("/v1/") and not path.startswith("/v1/brain/") else "brain"
