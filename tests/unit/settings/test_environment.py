"""Settings: every variable's default, good and bad values, and which provider they choose."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from shared.settings import Limits, ProviderSettings, Settings, SettingsError

KEY = "sk-canary-0123456789"
SECRET = "projects/p-1/secrets/openai-key"
WITH_KEY = {"OPENAI_API_KEY": KEY}


def read(**environ: str) -> Settings:
    """The settings of an environment."""
    return Settings.from_env(environ)


def only(**environ: str) -> ProviderSettings:
    """The one provider of an environment."""
    (provider,) = read(**environ).serving.providers
    return provider


def first(settings: Settings) -> ProviderSettings:
    """The first provider."""
    return settings.serving.providers[0]


DEFAULTS: dict[str, tuple[Callable[[Settings], Any], Any]] = {
    "OPENAI_API_KEY_SECRET": (lambda s: first(s).api_key_secret, None),
    "SECRET_MANAGER_ENDPOINT": (lambda s: s.secret_manager_endpoint, None),
    "SECRET_CACHE_TTL": (lambda s: s.secret_cache_ttl_s, 300.0),
    "GOOGLE_CLOUD_PROJECT": (lambda s: s.project, None),
    "OPENAI_MODEL": (lambda s: first(s).model, "gpt-4.1-mini"),
    "OPENAI_BASE_URL": (lambda s: first(s).base_url, None),
    "OPENAI_TIMEOUT": (lambda s: first(s).limits.request_s, 60.0),
    "OPENAI_STREAMING_TIMEOUT": (lambda s: first(s).limits.streaming_s, 120.0),
    "OPENAI_MAX_TOKENS": (lambda s: first(s).max_tokens, 4096),
    "OPENAI_MAX_RETRIES": (lambda s: first(s).retries.max_retries, 3),
    "APP_ENV": (lambda s: s.deployment.env, "unknown"),
    "GIT_SHA": (lambda s: s.deployment.git_sha, "unknown"),
    "BUILD_TIME": (lambda s: s.deployment.build_time, "unknown"),
    "CORS_ALLOW_ORIGINS": (lambda s: s.cors_allow_origins, frozenset()),
    "LOG_LEVEL": (lambda s: s.log_level, "INFO"),
}
GOOD: list[tuple[str, str, Any]] = [
    ("SECRET_MANAGER_ENDPOINT", "http://127.0.0.1:9001", "http://127.0.0.1:9001"),
    ("SECRET_MANAGER_ENDPOINT", "https://secretmanager.example.com/", "https://secretmanager.example.com"),
    ("SECRET_CACHE_TTL", "0.25", 0.25),
    ("GOOGLE_CLOUD_PROJECT", "my-project-1", "my-project-1"),
    ("OPENAI_MODEL", "org/model:v1", "org/model:v1"),
    ("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
    ("OPENAI_BASE_URL", "https://[::1]:8443/v1", "https://[::1]:8443/v1"),
    ("OPENAI_TIMEOUT", "12", 12.0),
    ("OPENAI_STREAMING_TIMEOUT", " 1.5 ", 1.5),
    ("OPENAI_MAX_TOKENS", "1", 1),
    ("OPENAI_MAX_RETRIES", "0", 0),
    ("OPENAI_MAX_RETRIES", "10", 10),
    ("APP_ENV", "staging", "staging"),
    ("GIT_SHA", "4f2c9d1", "4f2c9d1"),
    ("BUILD_TIME", "2026-03-01T11:00:00Z", "2026-03-01T11:00:00Z"),
    (
        "CORS_ALLOW_ORIGINS",
        "https://a.example.com, http://localhost:3000,",
        frozenset({"https://a.example.com", "http://localhost:3000"}),
    ),
    ("LOG_LEVEL", "debug", "DEBUG"),
    ("LOG_LEVEL", "CRITICAL", "CRITICAL"),
]
BAD_SECONDS = ["soon", "0", "-1", "nan", "inf", "1e999", "1 s", "1,5"]
BAD_URLS = ["example.com", "ftp://example.com", "https://", "https://a b", "http://[", "https://u:pw@example.com"]
BAD_URLS += ["https://example.com?x=1", "https://example.com#x", "http://example.com:99999", "http://example.com:port"]
BAD: dict[str, list[str]] = {
    "ECHO_BRAIN_PROVIDER": ["gemini", "OpenAI", "stub,openai"],
    "ECHO_REQUIRE_OPENAI": ["maybe", "2"],
    "OPENAI_API_KEY": ["sk-canary\nsecond", "sk-canary\x00", "sk-canary-schlüssel"],
    "OPENAI_API_KEY_SECRET": ["projects/p", "projects/p/secrets/", "a/b", "secrets/x", "name with blank", "../x"],
    "SECRET_MANAGER_ENDPOINT": BAD_URLS,
    "SECRET_CACHE_TTL": BAD_SECONDS,
    "GOOGLE_CLOUD_PROJECT": ["two\nlines"],
    "OPENAI_MODEL": ["two\nlines"],
    "OPENAI_BASE_URL": BAD_URLS,
    "OPENAI_TIMEOUT": BAD_SECONDS,
    "OPENAI_STREAMING_TIMEOUT": BAD_SECONDS,
    "OPENAI_MAX_TOKENS": ["many", "0", "-1", "1.5", "1e3", "9999999999", "٣"],
    "OPENAI_MAX_RETRIES": ["some", "11", "-1", "1.5", "9999999999", "٣"],
    "ECHO_BRAIN_CONFIG": ["no-such-file.yaml", "tests", "a\tb.yaml", "\x00"],
    "APP_ENV": ["a\x1b[31m"],
    "GIT_SHA": ["a\tb"],
    "BUILD_TIME": ["a\nb"],
    "CORS_ALLOW_ORIGINS": [
        "*",
        "app.example.com",
        "https://a.example.com/",
        "https://a.example.com/path",
        "https://*.example.com",
        "https://u:pw@example.com",
        "null",
        "https://ok.example.com,nonsense",
        "ftp://example.com",
    ],
    "LOG_LEVEL": ["LOUD", "10"],
}


def test_with_an_empty_environment_everything_has_its_default() -> None:
    """Nothing set is the stub with no key and no cloud."""
    assert (only().name, only().vendor, only().model) == ("stub", "stub", None)
    assert read() == Settings()


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("raw", [None, "", "  "])
def test_a_variable_that_is_unset_or_empty_has_its_default(name: str, raw: str | None) -> None:
    """Empty counts as unset, as Terraform and CI set variables."""
    look, expected = DEFAULTS[name]
    assert look(read(**WITH_KEY, **({} if raw is None else {name: raw}))) == expected


@pytest.mark.parametrize(("name", "raw", "expected"), GOOD)
def test_a_good_value_is_taken(name: str, raw: str, expected: object) -> None:
    """Each variable takes what the table says it may be."""
    assert DEFAULTS[name][0](read(**WITH_KEY, **{name: raw})) == expected


@pytest.mark.parametrize(("name", "raw"), [(name, raw) for name, raws in BAD.items() for raw in raws])
def test_a_bad_value_is_refused_by_name(name: str, raw: str) -> None:
    """The message begins with the variable and is one line."""
    pinned = {} if name == "ECHO_BRAIN_CONFIG" else {"ECHO_BRAIN_PROVIDER": "openai"}
    environ = {**WITH_KEY, **pinned, name: raw}
    with pytest.raises(SettingsError) as caught:
        read(**environ)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert "canary" not in message


def complaint(environ: dict[str, str]) -> str:
    """What is said of an environment; nothing where it is good."""
    try:
        Settings.from_env(environ)
    except SettingsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", sorted(set(BAD) - {"OPENAI_API_KEY"}))
def test_a_key_pasted_into_another_variable_is_never_shown(name: str) -> None:
    """Whatever variable a key lands in, the message does not repeat it."""
    for raw in (f"{KEY} ", KEY, f"{KEY}\x00", f"http://{KEY}℀", f"http://u:{KEY}@[x]", f"/{KEY}"):
        assert "canary" not in complaint({**WITH_KEY, name: raw})


@pytest.mark.parametrize("raw", ["true", "1", "yes", "ON", "True"])
def test_words_for_true(raw: str) -> None:
    """All the usual words for true require OpenAI."""
    with pytest.raises(SettingsError, match=r"^ECHO_REQUIRE_OPENAI: refuses to start on 'stub'"):
        read(ECHO_REQUIRE_OPENAI=raw)
    assert only(ECHO_REQUIRE_OPENAI=raw, **WITH_KEY).name == "openai"


@pytest.mark.parametrize("raw", ["false", "0", "no", "OFF", ""])
def test_words_for_false(raw: str) -> None:
    """All the usual words for false do not."""
    assert only(ECHO_REQUIRE_OPENAI=raw).name == "stub"


@pytest.mark.parametrize(
    ("wanted", "key", "secret", "required"),
    list(itertools.product(["", "stub", "mock", "openai"], ["", KEY], ["", SECRET], ["", "true"])),
)
def test_the_provider_is_chosen_as_the_table_says(wanted: str, key: str, secret: str, required: str) -> None:
    """The one named; else OpenAI when a key or its secret is set, else the stub; never a stub where OpenAI must be."""
    environ = {
        "ECHO_BRAIN_PROVIDER": wanted,
        "OPENAI_API_KEY": key,
        "OPENAI_API_KEY_SECRET": secret,
        "ECHO_REQUIRE_OPENAI": required,
    }
    expected = wanted or ("openai" if key or secret else "stub")
    if expected == "openai" and not key and not secret:
        with pytest.raises(SettingsError, match=r"^ECHO_BRAIN_PROVIDER: .*OPENAI_API_KEY"):
            read(**environ)
    elif required and expected != "openai":
        with pytest.raises(SettingsError, match=r"^ECHO_REQUIRE_OPENAI: "):
            read(**environ)
    else:
        assert only(**environ).name == expected


def test_the_rollback_switch_needs_one_variable() -> None:
    """On the stub neither the key nor its secret is used, however the rest is set."""
    provider = only(ECHO_BRAIN_PROVIDER="stub", OPENAI_API_KEY=KEY, OPENAI_API_KEY_SECRET=SECRET)
    assert (provider.vendor, provider.api_key, provider.api_key_secret) == ("stub", "", None)


@pytest.mark.parametrize("provider", ["stub", "mock"])
@pytest.mark.parametrize(
    ("name", "raw"),
    [("OPENAI_API_KEY", "sk-a\nb"), ("OPENAI_API_KEY_SECRET", "a//b"), ("ECHO_BRAIN_CONFIG", "/no/such/file.yaml")],
)
def test_the_rollback_works_whatever_is_wrong_with_the_rest(provider: str, name: str, raw: str) -> None:
    """What is rolled back from may be just what is broken."""
    with pytest.raises(SettingsError, match=name):
        read(**{name: raw})
    assert only(ECHO_BRAIN_PROVIDER=provider, **{name: raw}).vendor == provider


def test_a_key_of_the_environment_goes_before_its_secret() -> None:
    """With both, Secret Manager is not asked; with the secret alone it is."""
    both = only(OPENAI_API_KEY=KEY, OPENAI_API_KEY_SECRET=SECRET)
    assert (both.api_key, both.api_key_secret) == (KEY, None)
    alone = only(OPENAI_API_KEY_SECRET=SECRET)
    assert (alone.api_key, alone.api_key_secret) == ("", SECRET)


@pytest.mark.parametrize(
    "name",
    [
        "projects/p-1/secrets/openai-key",
        "projects/example.com:p/secrets/k",
        "projects/123/secrets/k_1/versions/7",
        "projects/p/secrets/k/versions/latest",
        "openai-key",
        "openai-key/versions/3",
    ],
)
def test_every_form_of_a_secrets_name_is_taken(name: str) -> None:
    """Long and short, pinned and latest."""
    assert only(OPENAI_API_KEY_SECRET=name).api_key_secret == name


def test_the_limits_other_than_the_two_settings_have_their_defaults() -> None:
    """Connect 10 s, first token 30 s, silence 15 s."""
    assert only(**WITH_KEY).limits == Limits(60.0, 120.0, 10.0, 30.0, 15.0)


def test_the_repr_of_settings_does_not_show_the_key() -> None:
    """Settings may be printed."""
    settings = read(**WITH_KEY)
    assert first(settings).api_key == KEY
    assert KEY not in repr(settings)
    assert KEY not in f"{settings}"


def test_other_variables_are_not_looked_at() -> None:
    """The environment of a machine is full of variables that are nobody's business here."""
    assert read(PATH="/bin", OPENAI_ORG="\x00", HOME="\n") == Settings()
