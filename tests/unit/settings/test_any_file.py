"""Whatever a configuration file has in it: settings, or a complaint; never another exception, never the key."""

from __future__ import annotations

from pathlib import Path

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.settings.file import KEYS as TOP_KEYS
from shared.settings.file import ROUTE_KEYS, TARGET_KEYS
from shared.settings.provider import KEYS
from shared.settings.values import VENDORS
from tests.unit.settings.configs import KEY, complaint, provider

GOOD = "providers:\n  a: {type: stub}\n"
WORDS = (
    f"{KEY} stub mock openai a b * gpt-* OPENAI_API_KEY é \u2028 \x85 = << 0 1 -1 true null 60s "
    f"https://x.example.com http://[ https://{KEY}@h"
)
SCALARS = st.one_of(
    st.sampled_from(["", "x y", *WORDS.split(" ")]),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.binary(max_size=4),
)
NAMES = st.sampled_from([*TOP_KEYS, *ROUTE_KEYS, *TARGET_KEYS, *KEYS, "default", "gpt-*", "api_key", KEY, "<<"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=5),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries(
    {"type": st.sampled_from(VENDORS)},
    optional=dict.fromkeys([*[key for key in KEYS if key != "type"], KEY, "<<"], VALUES),
)
TARGETS = st.fixed_dictionaries({"provider": SCALARS}, optional=dict.fromkeys(TARGET_KEYS[1:], VALUES))
ROUTES = st.fixed_dictionaries({"targets": VALUES | st.lists(TARGETS)}, optional={"hedge_after_ms": VALUES})
FILES = VALUES | st.fixed_dictionaries(
    {"providers": VALUES | st.dictionaries(NAMES, VALUES | ENTRIES, max_size=3)},
    optional={"routes": VALUES | st.dictionaries(NAMES, VALUES | ROUTES, max_size=3), "load_shedding": VALUES},
)
within = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@within
@given(data=FILES, flow=st.booleans())
def test_any_values_anywhere_are_taken_or_refused(tmp_path: Path, data: object, flow: bool) -> None:
    """Whatever somebody writes: settings, or a complaint that begins with the file and never has the key."""
    complaint(tmp_path, yaml.dump(data, allow_unicode=True, default_flow_style=flow, sort_keys=False))


@within
@given(
    data=st.binary(max_size=60)
    | st.text("&*!|>'\"%@`{}[],?:-#<= \t\nab~\\\u2028\ufeff\x00", max_size=40).map(str.encode)
)
@example(b"&a [*a]")
def test_any_bytes_are_taken_or_refused(tmp_path: Path, data: bytes) -> None:
    """At the top of a file and inside of it."""
    complaint(tmp_path, data)
    complaint(tmp_path, GOOD.encode() + data)
    complaint(tmp_path, provider("{type: vllm, model: ").encode() + data)
