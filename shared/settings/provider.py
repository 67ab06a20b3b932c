"""One provider of the configuration file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from shared.settings import fields
from shared.settings.addresses import api_address
from shared.settings.document import ListNode, Mistakes, Node, named
from shared.settings.section import KEY_HINT, Complaint, Section, number, switch, unshown, whole, words
from shared.settings.values import (
    KEYLESS,
    VENDORS,
    BreakerPolicy,
    Limits,
    MockPace,
    ProviderSettings,
    RetryPolicy,
)

NETWORKED: Final = tuple(vendor for vendor in VENDORS if vendor not in KEYLESS)
WITH_KEY: Final = tuple(vendor for vendor in NETWORKED if vendor != "vertex")  # Vertex has Google's credentials
NEED_KEY: Final = ("openai", "azure", "anthropic")
NEED_ADDRESS: Final = ("azure", "openai-compatible")
KEYS: Final[Mapping[str, tuple[str, ...]]] = {  # and the types that they are for
    "type": VENDORS,
    "model": VENDORS,
    "base_url": NETWORKED,
    "api_key_env": WITH_KEY,
    "api_key_secret": WITH_KEY,
    "project": ("vertex",),
    "location": ("vertex",),
    "priority": VENDORS,
    "weight": VENDORS,
    "request_timeout": VENDORS,
    "streaming_timeout": VENDORS,
    "connection_timeout": VENDORS,
    "first_token_timeout": VENDORS,
    "idle_timeout": VENDORS,
    "max_tokens": VENDORS,
    "max_retries": VENDORS,
    "retry_backoff_min": VENDORS,
    "retry_backoff_max": VENDORS,
    "circuit_breaker_threshold": VENDORS,
    "circuit_breaker_cooldown": VENDORS,
    "max_in_flight": VENDORS,
    "continues_prefill": VENDORS,
    "delay": ("mock",),
    "pace": ("mock",),
}

LONGEST_S: Final = 3600  # Cloud Run ends every request there; more is most often milliseconds
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_PROJECT: Final = re.compile(r"[a-z0-9][a-z0-9:.\-]{0,99}")
_LOCATION: Final = re.compile(r"[a-z][a-z0-9\-]{0,49}")

seconds: Final = number(0, LONGEST_S, f"a number of seconds greater than 0, at most {LONGEST_S}", above=True)
no_or_seconds: Final = number(0, LONGEST_S, f"a number of seconds from 0 to {LONGEST_S}")
cooldown: Final = number(0, 86400, "a number of seconds greater than 0, at most 86400", above=True)
positive: Final = whole(1, 999_999_999, "a whole number greater than 0")
priority: Final = whole(0, 1_000_000, "a whole number from 0 to 1000000 (lower is tried first)")
weight: Final = number(0, 1_000_000, "a number from 0 to 1000000 (0: only when all others are out)")


@dataclass(frozen=True, slots=True)
class Around:
    """What a provider's settings depend on beside its own entry."""

    environ: Mapping[str, str]
    pinned: str | None  # the only provider whose key will be needed

    def variable(self, name: str) -> str:
        """The value of an environment variable; an empty one counts as unset."""
        return self.environ.get(name, "").strip()


def read_provider(name: str, node: Node, around: Around, mistakes: Mistakes) -> ProviderSettings:
    """The settings of one provider; what is wrong with them is noted."""
    section = Section(node, KEYS, mistakes)
    vendor = section("type", words(fields.one_of(VENDORS)), "")
    _check_name(name, vendor, section)
    if section.given:
        _check_keys(vendor, section)
    defaults = ProviderSettings()
    return ProviderSettings(
        name=name,
        vendor=vendor,
        model=section("model", words(_model), None),
        base_url=section("base_url", words(_base_url), None),
        project=_project(vendor, section, around),
        location=section("location", words(_matching(_LOCATION, "a location such as us-central1 or global")), None),
        api_key=section("api_key_env", unshown(lambda raw: _key(raw, name, around)), ""),
        api_key_secret=section("api_key_secret", unshown(fields.secret_name), None),
        max_tokens=section("max_tokens", positive, defaults.max_tokens),
        limits=_limits(section, Limits()),
        retries=_retries(section, RetryPolicy()),
        breaker=_breaker(section, BreakerPolicy()),
        max_in_flight=section("max_in_flight", positive, None),
        continues_prefill=section("continues_prefill", switch, False),
        priority=section("priority", priority, defaults.priority),
        weight=section("weight", weight, defaults.weight),
        pace=_pace(section, MockPace()),
    )


def _check_name(name: str, vendor: str, section: Section) -> None:
    if not _NAME.fullmatch(name):
        section.complain(
            "a provider's name must be at most 64 letters, digits and . _ -, beginning with one of the first"
        )
    elif name in KEYLESS and vendor and vendor != name:
        section.complain(
            f"the name {name} is for type {name}: ECHO_BRAIN_PROVIDER={name} always means the built-in one"
        )


def _check_keys(vendor: str, section: Section) -> None:
    """What must be there and what must not, by the type."""
    if "type" not in section:
        section.complain(f"has no type; it must be one of {', '.join(VENDORS)}")
    if not vendor:
        return  # what it needs is not known
    for key, vendors in KEYS.items():
        if vendor not in vendors:
            section.refuse(key, f"has no meaning for type {vendor}, only for {', '.join(vendors)}")
    if vendor in NEED_ADDRESS and "base_url" not in section:
        section.complain(f"has no base_url; type {vendor} needs one{_EXAMPLES.get(vendor, '')}")
    if vendor == "vertex" and "location" not in section and "base_url" not in section:
        section.complain("has no location, such as us-central1 or global")
    _check_key(vendor, section)


def _check_key(vendor: str, section: Section) -> None:
    if "api_key_env" not in section and "api_key_secret" not in section:
        if vendor in NEED_KEY:
            section.complain(f"has no key; {KEY_HINT}")
    elif "api_key_env" in section:
        section.refuse("api_key_secret", "is there beside api_key_env; only one of the two can hold the key")


_EXAMPLES: Final = {"azure": ", such as https://RESOURCE.openai.azure.com/openai/v1"}


def _model(raw: str) -> str:
    if raw == "*":
        raise Complaint('"*" is for the targets of routes; without a model the provider is asked for any name')
    return fields.model(raw)


def _base_url(raw: str) -> str:
    address = api_address(raw)
    if address.endswith("/completions"):
        raise ValueError("must end before /chat/completions, most often with /v1")
    return address


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if not pattern.fullmatch(raw):
            raise ValueError(f"must be {what}")
        return raw

    return parse


def _project(vendor: str, section: Section, around: Around) -> str | None:
    parse = _matching(_PROJECT, "the id of a Google Cloud project")
    written = section("project", words(parse), None)
    if vendor != "vertex" or "project" in section or "base_url" in section:
        return written
    try:
        return parse(around.variable("GOOGLE_CLOUD_PROJECT"))
    except ValueError:
        section.complain("has no project, nor does GOOGLE_CLOUD_PROJECT name one")
        return None


def _key(raw: str, name: str, around: Around) -> str:
    """The key that the variable holds; the empty text for a provider that will not be asked."""
    if not _VARIABLE.fullmatch(raw):
        raise ValueError("must be the name of an environment variable, such as OPENAI_API_KEY: no $, and not the key")
    if around.pinned not in (None, name):
        return ""
    value = around.variable(raw)
    if not value:
        raise ValueError(f"the environment variable {named(raw)} is not set")
    try:
        return fields.key(value)
    except ValueError as error:
        raise ValueError(f"the value of the environment variable {named(raw)} {error}") from None


def _limits(section: Section, default: Limits) -> Limits:
    return Limits(
        request_s=section("request_timeout", seconds, default.request_s),
        streaming_s=section("streaming_timeout", seconds, default.streaming_s),
        connect_s=section("connection_timeout", seconds, default.connect_s),
        first_token_s=section("first_token_timeout", seconds, default.first_token_s),
        idle_s=section("idle_timeout", seconds, default.idle_s),
    )


def _retries(section: Section, default: RetryPolicy) -> RetryPolicy:
    """The bounds of the backoff; where only one is written, the other's default gives way to it."""
    low = section("retry_backoff_min", seconds, default.backoff_min_s)
    high = section("retry_backoff_max", seconds, default.backoff_max_s)
    if low > high and "retry_backoff_min" in section and "retry_backoff_max" in section:
        section.complain(f"{low:g} is more than retry_backoff_max, which is {high:g}", "retry_backoff_min")
    return RetryPolicy(
        max_retries=section(
            "max_retries",
            whole(0, fields.MAX_RETRIES, f"a whole number from 0 to {fields.MAX_RETRIES}"),
            default.max_retries,
        ),
        backoff_min_s=low if "retry_backoff_min" in section else min(low, high),
        backoff_max_s=max(low, high) if "retry_backoff_min" in section else high,
    )


def _breaker(section: Section, default: BreakerPolicy) -> BreakerPolicy:
    return BreakerPolicy(
        threshold=section("circuit_breaker_threshold", positive, default.threshold),
        cooldown_s=section("circuit_breaker_cooldown", cooldown, default.cooldown_s),
    )


def _pace(section: Section, default: MockPace) -> MockPace:
    return MockPace(section("delay", _delay, default.delay_s), section("pace", no_or_seconds, default.pace_s))


def _delay(node: Node) -> tuple[float, float]:
    """One number, or the least and the most."""
    if not isinstance(node, ListNode):
        value = no_or_seconds(node)
        return value, value
    try:
        low, high = (no_or_seconds(item) for item in node.items)
    except ValueError:
        raise Complaint(f"must be a number of seconds from 0 to {LONGEST_S}, or two: [least, most]") from None
    if low > high:
        raise Complaint("the first number, the least, is more than the second, the most")
    return low, high
