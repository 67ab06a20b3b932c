"""The configuration file: several providers and the routes to them, checked whole (docs/configuration.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from shared.models import Route, Target
from shared.settings import fields
from shared.settings.document import MapNode, Mistakes, Node, Unreadable, named, read_document, shown
from shared.settings.provider import Around, positive, priority, read_provider, weight
from shared.settings.section import Complaint, Section, listed, nearest, number, words
from shared.settings.values import KEYLESS, ProviderSettings, Serving, SettingsError, own_routes

KEYS: Final = ("providers", "routes", "load_shedding")
ROUTE_KEYS: Final = ("targets", "hedge_after_ms")
TARGET_KEYS: Final = ("provider", "model", "priority", "weight")
SHEDDING_KEYS: Final = ("max_in_flight",)

MOST_MISTAKES: Final = 20  # in one message
EVERY_NAME: Final = "*"
_GLOB: Final = frozenset("*?")
_ROUTE_NAME: Final = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9._:/@+\-*?]{0,199}")  # a model's name, or a glob of such
_milliseconds: Final = number(0, 3_600_000, "a number of milliseconds greater than 0, at most 3600000", above=True)

_Known = Mapping[str, ProviderSettings]


def read_config(path: str, environ: Mapping[str, str], pinned: str | None) -> Serving:
    """Reads the YAML file at `path`; raises `SettingsError` that names the file, the place in it and what is allowed.

    Keys named by `api_key_env` are looked up in `environ`, for the provider `pinned` alone where there is one.
    """
    mistakes = Mistakes()
    try:
        root = read_document(path, mistakes)
    except Unreadable as error:
        raise SettingsError(f"ECHO_BRAIN_CONFIG: {_path(path)}: {error}") from None
    serving = _serving(root, Around(environ, pinned), mistakes)
    if mistakes.found:
        raise SettingsError(f"ECHO_BRAIN_CONFIG: {_path(path)}{_listed(mistakes.lines())}")
    return serving


def _path(path: str) -> str:
    return path if shown(path) == f'"{path}"' else "the file that it names"


def _listed(lines: Sequence[str]) -> str:
    """One mistake on the line it begins, several on a line each."""
    if len(lines) == 1:
        return f": {lines[0]}"
    rest = len(lines) - MOST_MISTAKES
    more = [f"and {rest} more"] if rest > 0 else []
    return "\n  ".join([f" has {len(lines)} mistakes:", *lines[:MOST_MISTAKES], *more])


def _serving(root: Node, around: Around, mistakes: Mistakes) -> Serving:
    section = Section(root, KEYS, mistakes)
    written = section.node("providers") is not None
    providers: Mapping[str, Node] = section("providers", _some, {}) if written else {}
    if section.given and not written:
        section.complain("has no providers; write at least one")
    known = {name: read_provider(name, node, around, mistakes) for name, node in providers.items()}
    routes = _routes(section, known, mistakes)
    shedding = section.node("load_shedding")
    limit = Section(shedding, SHEDDING_KEYS, mistakes)("max_in_flight", positive, None) if shedding else None
    return Serving(tuple(known.values()), routes, limit)


def _named(node: Node) -> Mapping[str, Node]:
    if not isinstance(node, MapNode):
        raise ValueError("must be a mapping of names to what they stand for")  # noqa: TRY004
    return node.entries


def _some(node: Node) -> Mapping[str, Node]:
    if not _named(node):
        raise Complaint("must not be empty")
    return _named(node)


def _routes(section: Section, known: _Known, mistakes: Mistakes) -> dict[str, Route]:
    """The routes as written; `default` is also the glob that is tried last."""
    entries: Mapping[str, Node] = section("routes", _named, {}) if section.node("routes") else {}
    if not entries:
        return own_routes(tuple(known.values())) if known else {}
    routes = {name: _route(name, value, known, mistakes) for name, value in entries.items()}
    every = routes.pop(EVERY_NAME, routes.get("default"))  # wherever it stands: before others it would hide them
    if "default" not in routes and known:
        routes["default"] = own_routes(tuple(known.values()))["default"]
    return {**routes, EVERY_NAME: every} if every else routes


def _route(name: str, node: Node, known: _Known, mistakes: Mistakes) -> Route:
    section = Section(node, ROUTE_KEYS, mistakes)
    if not _ROUTE_NAME.fullmatch(name):
        section.complain(
            "a route is named like a model, with letters, digits and . _ : / @ + -, or a glob with * and ?"
        )
    if section.given and "targets" not in section:
        section.complain("has no targets; write targets: [{provider: NAME}]")
    items: tuple[Node, ...] = section("targets", listed, ())
    alias = name != "default" and not _GLOB.intersection(name)
    targets = [_target(item, known, mistakes, alias=alias) for item in items]
    _check_twice(items, targets, known, mistakes)
    hedge_ms = section("hedge_after_ms", _milliseconds, None)
    return Route(tuple(targets), None if hedge_ms is None else hedge_ms / 1000)


def _check_twice(items: Sequence[Node], targets: Sequence[Target], known: _Known, mistakes: Mistakes) -> None:
    """The same place twice in a route would be asked again when it has just failed."""
    seen: dict[tuple[str, str | None], int] = {}
    for index, (item, target) in enumerate(zip(items, targets, strict=True)):
        if target.provider in known:
            first = seen.setdefault((target.provider, target.model or known[target.provider].model), index)
            if first != index:
                mistakes.note(item.place, f"is the same provider and model as targets[{first}]; add up their weights")


def _target(node: Node, known: _Known, mistakes: Mistakes, *, alias: bool) -> Target:
    section = Section(node, TARGET_KEYS, mistakes)
    if section.given and "provider" not in section:
        section.complain("has no provider")

    def existing(name: str) -> str:
        if name not in known:
            raise Complaint(f"there is no provider {named(name)}; {nearest(name, known)}")
        return name

    provider = section("provider", words(existing), "")
    own = known.get(provider, ProviderSettings())
    model = section("model", words(_model), None)
    if alias and model is None and own.model is None and own.vendor not in KEYLESS and section.node("model") is None:
        section.complain(f"has no model, and the provider {named(provider)} has none of its own; write model: NAME")
    return Target(
        provider,
        model,
        section("priority", priority, own.priority),
        section("weight", weight, own.weight),
    )


def _model(raw: str) -> str:
    return raw if raw == EVERY_NAME else fields.model(raw)
