"""Configuration files with a mistake each, as an operator would make it, and what is said of it."""

from __future__ import annotations

from shared.settings.values import VENDORS
from tests.unit.settings.configs import KEY, mock, provider, routes, target

SECONDS = "must be a number of seconds greater than 0, at most 3600"
PROVIDERS: list[tuple[str, str]] = [
    ("routes: {}", "has no providers; write at least one"),
    ("providers:", "has no providers; write at least one"),
    ("providers: {}", "line 1: providers: must not be empty"),
    (
        "providers: {a: {type: vllm}}\nroutes: {fast: {targets: [{provider: a}]}}",
        "routes.fast.targets[0]: has no model, and the provider a has none of its own; write model: NAME",
    ),
    (
        "providers: [{name: a, type: stub}]",
        "line 1: providers: must be a mapping of names to what they",
    ),
    ("providers: openai", "line 1: providers: must be a mapping of names to what they stand for, not openai"),
    ("providers:\n  a:", "line 2: providers.a: must be a mapping with at least the key type, not nothing"),
    ("providers:\n  a: stub", "providers.a: must be a mapping with at least the key type, not stub"),
    ("provider:\n  a: {type: stub}", "line 1: provider: unknown key; did you mean providers?"),
    (
        "providers: {a: {type: stub}}\nversion: 3",
        "line 2: version: unknown key; known: providers, routes, load_shedding",
    ),
    (provider("{model: m}"), "line 2: providers.a: has no type; it must be one of stub, mock, openai, azure, "),
    (provider("{type: opanai}"), f"providers.a.type: must be one of {', '.join(VENDORS)}, not opanai"),
    (provider("{type: OpenAI}"), "providers.a.type: must be one of stub, mock, openai"),
    (provider("{type: }"), "providers.a.type: has no value; write one, or leave the key out"),
    (provider("{type: [mock]}"), "providers.a.type: must be a text, not a list"),
    (
        "providers: {my provider: {type: stub}}",
        'providers."my provider": a provider\'s name must be at most 64 letters,',
    ),
    ("providers: {-a: {type: stub}}", "providers.-a: a provider's name must be"),
    ("providers: {ä: {type: stub}}", "a provider's name must be"),
    (f"providers: {{{'a' * 65}: {{type: stub}}}}", "a provider's name must be"),
    ("providers: {'': {type: stub}}", "a provider's name must be"),
    (
        "providers: {stub: {type: mock}}",
        "providers.stub: the name stub is for type stub: ECHO_BRAIN_PROVIDER=stub always",
    ),
    ("providers: {mock: {type: ollama}}", "providers.mock: the name mock is for type mock"),
    (mock("retries: 3"), "line 4: providers.a.retries: unknown key; did you mean max_retries?"),
    (
        mock("timeout: 3"),
        "providers.a.timeout: unknown key; did you mean request_timeout or streaming_timeout or connection_timeout or",
    ),
    (mock("url: https://x"), "providers.a.url: unknown key; did you mean base_url?"),
    (mock("zzz: 3"), "providers.a.zzz: unknown key; known: type, model, base_url, "),
    (mock("max_retries: 3\nmax_retries: 5"), "line 5: providers.a.max_retries: is there twice, first in line 4"),
    ("providers:\n  a: {type: mock}\n  a: {type: stub}", "line 3: providers.a: is there twice, first in line 2"),
]
NUMBERS: list[tuple[str, str]] = [
    *(
        (mock(f"{key}: {value}"), f"line 4: providers.a.{key}: {SECONDS}, not {shown}")
        for key in (
            "request_timeout",
            "streaming_timeout",
            "connection_timeout",
            "first_token_timeout",
            "idle_timeout",
            "retry_backoff_min",
            "retry_backoff_max",
        )
        for value, shown in (("60s", "60s"), ("-1", "-1"), ("60000", "60000"))
    ),
    *(
        (mock(f"idle_timeout: {value}"), f"providers.a.idle_timeout: {SECONDS}, not {shown}")
        for value, shown in (
            ("0", "0"),
            ("true", "true"),
            (".nan", ".nan"),
            (".inf", ".inf"),
            ("nan", "nan"),
            ("inf", "inf"),
            ("1e999", "1e999"),
            ("1_0", "1_0"),
            ("1:30", "1:30"),
            ("0x10", "0x10"),
            ("٣", '"٣"'),
            ("1,5", "1,5"),
            ("1 s", '"1 s"'),
            ("[1]", "a list"),
            ("{s: 1}", "a mapping"),
            ("soon", "soon"),
        )
    ),
    (mock("idle_timeout: '15'"), f'providers.a.idle_timeout: {SECONDS}, without quotes; it is the text "15"'),
    (mock("idle_timeout:"), "providers.a.idle_timeout: has no value; write one, or leave the key out for its default"),
    (mock("idle_timeout: null"), "providers.a.idle_timeout: has no value"),
    (mock("circuit_breaker_cooldown: 0"), "must be a number of seconds greater than 0, at most 86400, not 0"),
    (mock("circuit_breaker_threshold: 0"), "must be a whole number greater than 0, not 0"),
    (mock("circuit_breaker_threshold: true"), "must be a whole number greater than 0, not true"),
    (mock("max_in_flight: 0"), "providers.a.max_in_flight: must be a whole number greater than 0, not 0"),
    (mock("max_in_flight: 1.5"), "must be a whole number greater than 0, not 1.5"),
    (mock("max_in_flight: 99999999999"), "must be a whole number greater than 0, not 99999999999"),
    (mock("max_tokens: many"), "providers.a.max_tokens: must be a whole number greater than 0, not many"),
    (mock("max_retries: 11"), "providers.a.max_retries: must be a whole number from 0 to 10, not 11"),
    (mock("max_retries: -1"), "must be a whole number from 0 to 10, not -1"),
    (mock("max_retries: false"), "must be a whole number from 0 to 10, not false"),
    (mock("max_retries: 3.0"), "must be a whole number from 0 to 10, not 3.0"),
    (mock("priority: high"), "must be a whole number from 0 to 1000000 (lower is tried first), not high"),
    (mock("priority: -1"), "must be a whole number from 0 to 1000000"),
    (mock("weight: -0.1"), "must be a number from 0 to 1000000 (0: only when all others are out), not -0.1"),
    (mock("weight: 70%"), "must be a number from 0 to 1000000 (0: only when all others are out), not 70%"),
    (mock("weight: .inf"), "must be a number from 0 to 1000000"),
    (
        mock("retry_backoff_min: 90\nretry_backoff_max: 60"),
        "line 4: providers.a.retry_backoff_min: 90 is more than retry_backoff_max, which is 60",
    ),
    (mock("continues_prefill: 1"), "providers.a.continues_prefill: must be true or false, not 1"),
    (mock("continues_prefill: 'true'"), 'must be true or false, without quotes; it is the text "true"'),
    (mock("delay: slow"), "providers.a.delay: must be a number of seconds from 0 to 3600, not slow"),
    (mock("delay: [1]"), "providers.a.delay: must be a number of seconds from 0 to 3600, or two: [least, most]"),
    (mock("delay: [1, 2, 3]"), "providers.a.delay: must be a number of seconds from 0 to 3600, or two: [least, most]"),
    (mock("delay: [1, soon]"), "providers.a.delay: must be a number of seconds from 0 to 3600, or two: [least, most]"),
    (mock("delay: [2, 1]"), "providers.a.delay: the first number, the least, is more than the second, the most"),
    (mock("pace: -1"), "providers.a.pace: must be a number of seconds from 0 to 3600, not -1"),
    (
        "providers: {a: {type: stub}}\nload_shedding: {max_in_flight: 0}",
        "line 2: load_shedding.max_in_flight: must be a whole",
    ),
    (
        "providers: {a: {type: stub}}\nload_shedding: {max: 1}",
        "load_shedding.max: unknown key; did you mean max_in_flight?",
    ),
    (
        "providers: {a: {type: stub}}\nload_shedding: 200",
        "load_shedding: must be a mapping with at least the key max_in_flight, not 200",
    ),
]
NO_KEY = "has no key; a key is never in the file: name its environment variable with api_key_env, or its secret with"
BY_TYPE: list[tuple[str, str]] = [
    *(
        (provider(f"{{type: {vendor}, base_url: 'https://x.example/v1'}}"), f"line 2: providers.a: {NO_KEY}")
        for vendor in ("openai", "azure", "anthropic")
    ),
    (
        provider(f"{{type: openai, api_key: {KEY}}}"),
        "providers.a.api_key: unknown key; a key is never in the file: name its",
    ),
    (provider(f"{{type: openai, token: {KEY}}}"), "providers.a.token: unknown key; a key is never in the file"),
    (
        provider("{type: openai, api_key_env: MISSING}"),
        "providers.a.api_key_env: the environment variable MISSING is not set",
    ),
    (
        provider("{type: vllm, api_key_env: EMPTY}"),
        "providers.a.api_key_env: the environment variable EMPTY is not set",
    ),
    (
        provider("{type: openai, api_key_env: BROKEN}"),
        "the value of the environment variable BROKEN must be printable ASCII",
    ),
    (
        provider(f"{{type: openai, api_key_env: {KEY}}}"),
        "must be the name of an environment variable, such as OPENAI_API_KEY",
    ),
    (provider("{type: openai, api_key_env: $OPENAI_API_KEY}"), "must be the name of an environment variable, such as"),
    (
        provider("{type: openai, api_key_env: '${OPENAI_API_KEY}'}"),
        "api_key_env: must be the name of an environment variable",
    ),
    (provider("{type: openai, api_key_env: [OPENAI_API_KEY]}"), "providers.a.api_key_env: must be a text"),
    (
        provider("{type: openai, api_key_secret: projects/p}"),
        "providers.a.api_key_secret: must be projects/P/secrets/S, ",
    ),
    (
        provider("{type: openai, api_key_env: OPENAI_API_KEY, api_key_secret: s}"),
        "providers.a.api_key_secret: is there beside api_key_env; only one of the two can hold the key",
    ),
    *(
        (
            provider(f"{{type: {vendor}, {key}: x}}"),
            f"providers.a.{key}: has no meaning for type {vendor}, only for openai, ",
        )
        for vendor in ("stub", "mock")
        for key in ("base_url", "api_key_env", "api_key_secret")
    ),
    (
        provider("{type: vertex, location: global, project: p, api_key_env: OPENAI_API_KEY}"),
        "has no meaning for type vertex",
    ),
    (
        provider("{type: openai, api_key_env: OPENAI_API_KEY, project: p}"),
        "has no meaning for type openai, only for vertex",
    ),
    (provider("{type: stub, delay: 1}"), "providers.a.delay: has no meaning for type stub, only for mock"),
    (
        provider("{type: vertex, location: us-central1}"),
        "providers.a: has no project, nor does GOOGLE_CLOUD_PROJECT name one",
    ),
    (provider("{type: vertex, project: p}"), "providers.a: has no location, such as us-central1 or global"),
    (provider("{type: vertex, project: p/q, location: us}"), "must be the id of a Google Cloud project, not p/q"),
    (
        provider("{type: vertex, project: p, location: US East}"),
        "must be a location such as us-central1 or global, not",
    ),
    (
        provider("{type: azure, api_key_env: OPENAI_API_KEY}"),
        "providers.a: has no base_url; type azure needs one, such as https://RESOURCE.openai.azure.com/openai/v1",
    ),
    (provider("{type: openai-compatible}"), "providers.a: has no base_url; type openai-compatible needs one"),
    (provider("{type: vllm, model: '*'}"), 'providers.a.model: "*" is for the targets of routes; without a model'),
    (provider("{type: vllm, model: llama 3}"), "providers.a.model: must be a name of at most 200 letters"),
    (provider("{type: vllm, model: {name: x}}"), "providers.a.model: must be a text, not a mapping"),
]
ADDRESSES: list[tuple[str, str]] = [
    (provider(f"{{type: vllm, base_url: '{url}'}}"), f"line 2: providers.a.base_url: {text}")
    for url, text in (
        ("api.example.com/v1", "must be an http:// or https:// address, not \"api.example.com/v1\""),
        ("${BASE_URL}", "must be an http:// or https:// address"),
        ("ftp://example.com", "must be an http:// or https:// address"),
        (f"https://user:{KEY}@example.com/v1", "must be an address without user, query or fragment, not what is there"),
        ("https://user:hunter2@example.com", "must be an address without user, query or fragment, not what is there"),
        ("https://example.com/v1?key=hunter2", "must be an address without user, query or fragment, not what is there"),
        ("http://api.example.com/v1", "must begin with https:// unless the host is local"),
        ("http://8.8.8.8/v1", "must begin with https://"),
        ("http://[2001:4860:4860::8888]/v1", "must begin with https://"),
        ("http://127.0.0.1.example.com/v1", "must begin with https://"),
        ("http://localhost.example.com/v1", "must begin with https://"),
        ("https://api.openai.com/v1/chat/completions", "must end before /chat/completions, most often with /v1, not "),
    )
]  # fmt: skip
ROUTES: list[tuple[str, str]] = [
    (target("{provider: opnai}"), "line 5: routes.fast.targets[0].provider: there is no provider opnai; known: a, b"),
    ("providers: {openai-gpt4: {type: mock}}\nroutes: {x: {targets: [{provider: openai-gtp4}]}}",
     "line 2: routes.x.targets[0].provider: there is no provider openai-gtp4; did you mean openai-gpt4?"),
    (target("{model: m}"), "routes.fast.targets[0]: has no provider"),
    (target("a"), "routes.fast.targets[0]: must be a mapping with at least the key provider, not a"),
    (target("{provider: [a]}"), "routes.fast.targets[0].provider: must be a text, not a list"),
    (target("{provider: a, wieght: 1}"), "routes.fast.targets[0].wieght: unknown key; did you mean weight?"),
    (target("{provider: a, weight: -1}"), "routes.fast.targets[0].weight: must be a number from 0"),
    (target("{provider: a, weight: true}"), "routes.fast.targets[0].weight: must be a number from 0"),
    (target("{provider: a, priority: 1.5}"), "routes.fast.targets[0].priority: must be a whole number"),
    (target("{provider: a, model: gpt-*}"), "routes.fast.targets[0].model: must be a name of at most 200"),
    (target("{provider: a}, {provider: a, weight: 2}"), "line 5: routes.fast.targets[1]: is the same provider "
     "and model as targets[0]; add up their weights"),
    (target("{provider: a, model: m}, {provider: b}, {provider: a}"), "routes.fast.targets[2]: is the same provider"),
    (routes("fast: {targets: []}"), "line 5: routes.fast.targets: must not be empty"),
    (routes("fast: {targets: {provider: a}}"), "routes.fast.targets: must be a list, not a mapping"),
    (routes("fast: {targets: }"), "routes.fast.targets: has no value"),
    (routes("fast: {}"), "line 5: routes.fast: has no targets; write targets: [{provider: NAME}]"),
    (routes("fast:"), "line 5: routes.fast: must be a mapping with at least the key targets, not nothing"),
    (routes("fast: a"), "routes.fast: must be a mapping with at least the key targets, not a"),
    (routes("fast: [{provider: a}]"), "routes.fast: must be a mapping with at least the key targets, not a list"),
    (routes("fast: {target: [{provider: a}]}"), "routes.fast.target: unknown key; did you mean targets?"),
    (routes("'gpt-[45]': {targets: [{provider: a}]}"), "routes.gpt-[45]: a route is named like a model, with letters,"),
    (routes("'two words': {targets: [{provider: a}]}"), 'routes."two words": a route is named like a model'),
    (routes("fast: {targets: [{provider: a}], hedge_after_ms: 0}"), "must be a number of milliseconds greater than 0"),
    (routes("fast: {targets: [{provider: a}], hedge_after_ms: 1s}"), "fast.hedge_after_ms: must be a number of"),
    (routes("fast: {targets: [{provider: a}]}\nfast: {targets: [{provider: b}]}"), "routes.fast: is there twice"),
    ("providers: {a: {type: mock}}\nroutes: [a]", "line 2: routes: must be a mapping of names to what they"),
    ("providers: {a: {type: mock}}\nroutes: a", "line 2: routes: must be a mapping of names to what they stand for"),
]  # fmt: skip
