"""What a right configuration file becomes: every key, its default, the routes and their order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.models import Route, Target
from shared.settings import BreakerPolicy, Limits, MockPace, ProviderSettings, RetryPolicy, SettingsError, own_routes
from shared.settings.provider import KEYS, LONGEST_S
from shared.settings.values import VENDORS
from tests.unit.settings.configs import ENVIRONMENT, KEY, complaint, mock, provider, routes, serving

LEAST: dict[str, dict[str, str]] = {  # what each type cannot be without
    "stub": {},
    "mock": {},
    "openai": {"api_key_env": "OPENAI_API_KEY"},
    "azure": {"base_url": "https://r.openai.azure.com/openai/v1", "api_key_secret": "azure"},
    "vertex": {"project": "p", "location": "global"},
    "vllm": {},
    "ollama": {},
    "anthropic": {"api_key_env": "OPENAI_API_KEY"},
    "openai-compatible": {"base_url": "https://x.example.com/v1"},
}
TAKEN: list[tuple[str, Callable[[ProviderSettings], Any], Any]] = [
    ("model: gpt-4.1", lambda p: p.model, "gpt-4.1"),
    ("model: 4.10", lambda p: p.model, "4.10"),  # text stays text, whatever YAML would make of it
    ("model: 'no'", lambda p: p.model, "no"),
    ("model: no", lambda p: p.model, "no"),
    ("priority: 0", lambda p: p.priority, 0),
    ("priority: 1000000", lambda p: p.priority, 1_000_000),
    ("weight: 0", lambda p: p.weight, 0.0),
    ("weight: .7", lambda p: p.weight, 0.7),
    ("weight: 7.", lambda p: p.weight, 7.0),
    ("weight: 1e2", lambda p: p.weight, 100.0),
    ("request_timeout: 0.25", lambda p: p.limits.request_s, 0.25),
    ("streaming_timeout: 3600", lambda p: p.limits.streaming_s, 3600.0),
    ("connection_timeout: 5e-1", lambda p: p.limits.connect_s, 0.5),
    ("first_token_timeout: +1", lambda p: p.limits.first_token_s, 1.0),
    ("idle_timeout: 012", lambda p: p.limits.idle_s, 12.0),
    ("max_retries: 0", lambda p: p.retries.max_retries, 0),
    ("max_retries: 10", lambda p: p.retries.max_retries, 10),
    ("retry_backoff_min: 0.1", lambda p: p.retries, RetryPolicy(3, 0.1, 60.0)),
    ("retry_backoff_max: 2", lambda p: p.retries, RetryPolicy(3, 1.0, 2.0)),
    ("retry_backoff_max: 0.5", lambda p: p.retries, RetryPolicy(3, 0.5, 0.5)),  # the default gives way
    ("retry_backoff_min: 90", lambda p: p.retries, RetryPolicy(3, 90.0, 90.0)),
    ("retry_backoff_min: 2\nretry_backoff_max: 2", lambda p: p.retries, RetryPolicy(3, 2.0, 2.0)),
    ("circuit_breaker_threshold: 1", lambda p: p.breaker, BreakerPolicy(1, 30.0)),
    ("circuit_breaker_cooldown: 86400", lambda p: p.breaker, BreakerPolicy(5, 86400.0)),
    ("max_in_flight: 1", lambda p: p.max_in_flight, 1),
    ("max_tokens: 999999999", lambda p: p.max_tokens, 999_999_999),
    ("continues_prefill: true", lambda p: p.continues_prefill, True),
    ("continues_prefill: Yes", lambda p: p.continues_prefill, True),
    ("continues_prefill: off", lambda p: p.continues_prefill, False),
    ("delay: 0", lambda p: p.pace, MockPace((0.0, 0.0), 0.02)),
    ("delay: [0.5, 1]", lambda p: p.pace, MockPace((0.5, 1.0), 0.02)),
    ("pace: 0", lambda p: p.pace, MockPace((0.1, 0.2), 0.0)),
    ("streaming_timeout: 10", lambda p: p.limits, Limits(60.0, 10.0, 10.0, 30.0, 15.0)),  # whichever comes first counts
    ("first_token_timeout: 200", lambda p: p.limits, Limits(60.0, 120.0, 10.0, 200.0, 15.0)),
]


def only(directory: Path, text: str) -> ProviderSettings:
    """The provider of a file that has one."""
    (one,) = serving(directory, text).providers
    return one


@pytest.mark.parametrize("vendor", VENDORS)
def test_omitted_keys_have_the_defaults_of_the_house(tmp_path: Path, vendor: str) -> None:
    """A provider of each type with no more than it cannot be without, and no limit of requests."""
    got = serving(tmp_path, json.dumps({"providers": {"a": {"type": vendor, **LEAST[vendor]}}}))
    expected = ProviderSettings(
        name="a",
        vendor=vendor,
        base_url=LEAST[vendor].get("base_url"),
        api_key=KEY if "api_key_env" in LEAST[vendor] else "",
        api_key_secret=LEAST[vendor].get("api_key_secret"),
        project=LEAST[vendor].get("project"),
        location=LEAST[vendor].get("location"),
    )
    assert (got.providers, got.max_in_flight) == ((expected,), None)
    assert got.routes == own_routes([expected])


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("key", [key for key in KEYS if key != "type"])
def test_a_key_has_no_meaning_for_other_types(tmp_path: Path, vendor: str, key: str) -> None:
    """What would be ignored is refused, whatever its value; what has a meaning is not."""
    said = complaint(tmp_path, json.dumps({"providers": {"a": {"type": vendor, **LEAST[vendor], key: "?"}}}))
    assert (f"providers.a.{key}: has no meaning for type {vendor}, only for " in said) == (vendor not in KEYS[key])


@pytest.mark.parametrize(("text", "look", "expected"), TAKEN)
def test_a_good_value_is_taken(
    tmp_path: Path, text: str, look: Callable[[ProviderSettings], Any], expected: object
) -> None:
    """Each key takes what is allowed, at its bounds, too."""
    assert look(only(tmp_path, mock(text))) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "https://8.8.8.8",
        "http://localhost:8000/v1",
        "http://app.localhost:8000/v1",
        "http://127.9.9.9/v1",
        "http://[::1]:8000/v1",
        "http://10.1.2.3/v1",
        "http://172.16.0.1/v1",
        "http://192.168.1.10:11434/v1",
        "http://[fd00::1]/v1",
        "http://vllm:8000/v1",
        "http://vllm.internal/v1",
        "http://VLLM.prod.SVC/v1",
        "http://0.0.0.0:8000/v1",
        "http://box.local./v1",
    ],
)
def test_plain_http_goes_to_a_host_of_ones_own(tmp_path: Path, url: str) -> None:
    """Loopback, private addresses and names that only a private network knows; https goes anywhere."""
    assert only(tmp_path, provider(f"{{type: vllm, base_url: '{url}/'}}")).base_url == url


def test_keys_come_from_the_environment_or_by_a_secrets_name(tmp_path: Path) -> None:
    """White space around a key, as files of secrets have it, is no part of it; no repr shows it."""
    one = only(tmp_path, provider("{type: anthropic, api_key_env: OTHER_KEY}"))
    assert one.api_key == f"{KEY}-other"
    assert KEY not in repr(one)
    secret = "projects/p/secrets/s/versions/3"
    assert only(tmp_path, provider(f"{{type: vllm, api_key_secret: {secret}}}")).api_key_secret == secret


def test_only_the_pinned_providers_key_is_looked_up(tmp_path: Path) -> None:
    """To roll back to one provider must not need another's key; a mistake elsewhere in the file is still one."""
    text = (
        "providers:\n"
        "  a: {type: openai, api_key_env: MISSING}\n"
        "  b: {type: openai, api_key_env: OPENAI_API_KEY}\n"
        "  c: {type: openai, api_key_env: OTHER_KEY}\n"
    )
    assert [p.api_key for p in serving(tmp_path, text, pinned="b").providers] == ["", KEY, ""]
    assert "providers.a.api_key_env: the environment variable MISSING is not set" in complaint(tmp_path, text, "a")
    assert "MISSING" in complaint(tmp_path, text)
    assert "providers.a.weight: must be" in complaint(tmp_path, text.replace("MISSING", "X, weight: -1"), "b")


def test_vertex_takes_the_project_of_the_environment(tmp_path: Path) -> None:
    """The file's goes before it; with an address of its own it needs neither project nor place."""
    environ = {"GOOGLE_CLOUD_PROJECT": "p-env"}
    text = provider("{type: vertex, location: us-central1}")
    assert serving(tmp_path, text, environ).providers[0].project == "p-env"
    text = provider("{type: vertex, location: us-central1, project: p-file}")
    assert serving(tmp_path, text, environ).providers[0].project == "p-file"
    one = only(tmp_path, provider("{type: vertex, base_url: 'http://127.0.0.1:9/v1'}"))
    assert (one.project, one.location, one.base_url) == (None, None, "http://127.0.0.1:9/v1")


def test_names_are_text(tmp_path: Path) -> None:
    """What YAML takes for numbers and booleans are good names, too."""
    text = "providers: {1: {type: mock}, no: {type: mock}, 4.10: {type: mock}, ~: {type: mock}}"
    assert complaint(tmp_path, text).startswith("line 1: providers.~: a provider's name must be")
    assert [p.name for p in serving(tmp_path, text.replace("~", "null")).providers] == ["1", "no", "4.10", "null"]


@pytest.mark.parametrize("name", ["stub", "mock"])
def test_a_reserved_name_may_have_its_own_type(tmp_path: Path, name: str) -> None:
    """ECHO_BRAIN_PROVIDER=stub then means the same either way."""
    assert only(tmp_path, f"providers: {{{name}: {{type: {name}}}}}").name == name


def test_a_target_inherits_what_it_does_not_say(tmp_path: Path) -> None:
    """Priority and weight are the provider's, the model stays open."""
    text = (
        "providers: {a: {type: mock, model: m, priority: 4, weight: 0.5}, b: {type: mock}}\n"
        "routes:\n"
        "  x: {targets: [{provider: a}, {provider: a, model: '*', priority: 7, weight: 0}, {provider: b, model: n}],"
        " hedge_after_ms: 250}\n"
    )
    route = serving(tmp_path, text).routes["x"]
    assert route == Route((Target("a", None, 4, 0.5), Target("a", "*", 7, 0.0), Target("b", "n", 1, 1.0)), 0.25)


@pytest.mark.parametrize("text", ["", "routes:", "routes: {}", "routes: ~"])
def test_without_routes_every_provider_serves_its_own_model(tmp_path: Path, text: str) -> None:
    """No routes, or none left in the section."""
    got = serving(tmp_path, f"providers: {{a: {{type: mock, model: m}}, b: {{type: stub}}}}\n{text}")
    assert got.routes == own_routes(got.providers)


A, B = Target("a"), Target("b")
TO_A, TO_B = "{targets: [{provider: a}]}", "{targets: [{provider: b}]}"


def test_a_default_route_is_also_tried_last(tmp_path: Path) -> None:
    """It catches every name that no other route knows, wherever it stands."""
    got = serving(tmp_path, routes(f"default: {TO_A}\n'gpt-*': {TO_B}\nfast: {TO_B}\n'?x': {TO_B}"))
    assert list(got.routes) == ["default", "gpt-*", "fast", "?x", "*"]
    assert got.routes["*"] == got.routes["default"] == Route((A,))


def test_a_glob_for_everything_of_its_own_goes_before_the_default(tmp_path: Path) -> None:
    """The default is then only for requests that name no model; the glob is last, also where it is written first."""
    got = serving(tmp_path, routes(f"'*': {TO_B}\ndefault: {TO_A}\n'gpt-*': {TO_A}"))
    assert list(got.routes) == ["default", "gpt-*", "*"]
    assert (got.routes["*"], got.routes["default"]) == (Route((B,)), Route((A,)))


def test_without_a_default_route_unknown_names_stay_unknown(tmp_path: Path) -> None:
    """Only requests that name no model have all providers before them, by priority and weight."""
    got = serving(tmp_path, routes(f"fast: {TO_B}"))
    assert list(got.routes) == ["fast", "default"]
    assert got.routes["default"] == own_routes(got.providers)["default"] == Route((A, B))


def test_the_limit_of_the_process(tmp_path: Path) -> None:
    """load_shedding holds it; an empty section says nothing."""
    text = "providers: {a: {type: stub}}\nload_shedding:"
    assert serving(tmp_path, text).max_in_flight is None
    assert serving(tmp_path, f"{text} {{}}").max_in_flight is None
    assert serving(tmp_path, f"{text} {{max_in_flight: 200}}").max_in_flight == 200


def test_shared_keys_may_be_written_once(tmp_path: Path) -> None:
    """YAML's anchors, aliases and merges; what a provider says itself goes before what is merged."""
    text = (
        "providers:\n"
        "  a: &base {type: mock, model: m, weight: 2, max_retries: 1}\n"
        "  b: {<<: *base, weight: 3}\n"
        "  c: {weight: 4, <<: [*base, {weight: 5, priority: 6}]}\n"
        "routes:\n"
        "  x: &to {targets: [{provider: b}]}\n"
        "  y: *to\n"
    )
    got = serving(tmp_path, text)
    assert [(p.model, p.weight, p.priority, p.retries.max_retries) for p in got.providers] == [
        ("m", 2.0, 1, 1),
        ("m", 3.0, 1, 1),
        ("m", 4.0, 6, 1),
    ]
    assert got.routes["x"] == got.routes["y"]


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    """JSON is YAML, pretty-printed with tabs, too, and with numbers in its own notation."""
    text = routes("fast: {targets: [{provider: a, weight: 1.5}, {provider: b}], hedge_after_ms: 250}")
    data = yaml.safe_load(text)
    expected = serving(tmp_path, text)
    for dumped in (
        json.dumps(data),
        json.dumps(data, indent="\t"),
        yaml.safe_dump(data),
        yaml.safe_dump(data, width=9),
    ):
        assert serving(tmp_path, dumped) == expected
        assert serving(tmp_path, dumped.encode("utf-8-sig").replace(b"\n", b"\r\n")) == expected


def test_milliseconds_in_a_key_of_seconds_are_refused(tmp_path: Path) -> None:
    """No request lives longer than an hour on Cloud Run: more is a mistake of the unit."""
    assert only(tmp_path, mock(f"request_timeout: {LONGEST_S}")).limits.request_s == LONGEST_S
    with pytest.raises(SettingsError, match="at most 3600, not 60000"):
        serving(tmp_path, mock("request_timeout: 60000"), ENVIRONMENT)
