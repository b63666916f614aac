"""Whatever stands in a configuration or its environment: problems in words, and no exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import example, given, settings

from spanbridge.config.load import examine_text
from tests.drawing import examples

SECTIONS = (
    "mqtt",
    "rocketmq",
    "routes",
    "downlinks",
    "uplink",
    "downlink",
    "admin",
    "telemetry",
    "lag",
    "profiling",
    "x",
)
KEYS = [
    *("url", "endpoints", "filter", "topic", "host", "port", "token", "tls", "ca_file", "password", "max_in_flight"),
    *(
        "name",
        "tag",
        "keys",
        "message_group",
        "reject_after",
        "batch",
        "groups",
        "rate",
        "session_expiry",
        "share",
        "x.y",
    ),
]
WORDS = [
    *("${A}", "${A:-b}", "${", "{a}", "{user.x|y}", "{", "file:", "file:/dev/null", "mqtt://", "mqtt://[::1", "a:b"),
    *("1d", "99999999999d", "#", "a/+/#", "$share/a/b", "~nobody/x", "0.0.0.0", ".."),
]
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from([*WORDS, "9" * 400]))
LEAVES = st.one_of(TEXTS, st.integers(-(10**30), 10**30), st.booleans(), st.floats())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=10,
)
TABLES = st.dictionaries(
    st.sampled_from(SECTIONS), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5) | VALUES, max_size=6
)
VARIABLES = ["A", "SPANBRIDGE____", "SPANBRIDGE__ADMIN__PORT", "SPANBRIDGE__MQTT__0__URL", "SPANBRIDGE__ROUTES__9__X"]
ENVIRONMENTS = st.dictionaries(st.sampled_from(VARIABLES), TEXTS, max_size=3)


def toml(value: Any) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return quoted(value) if isinstance(value, str) else str(value).lower()


def quoted(text: str) -> str:
    escaped = (f"\\U{ord(one):08X}" if ord(one) < 32 or one in '\x7f"\\' else one for one in text)
    return '"' + "".join(escaped) + '"'


def examined(text: str, environ: dict[str, str]) -> None:
    report = examine_text(text, environ, base=Path("/nowhere"))
    assert (report.config is None) == bool(report.errors)
    assert all(problem.message for problem in report.problems)


@settings(max_examples=examples(30), deadline=None)
@given(TABLES, ENVIRONMENTS)
def test_nested_junk_is_told_in_words(tables: dict[str, Any], environ: dict[str, str]) -> None:
    examined("\n".join(f"{quoted(key)} = {toml(value)}" for key, value in tables.items()), environ)


@settings(max_examples=examples(30), deadline=None)
@given(st.text(max_size=200))
@example("a = " + "[" * 5000)
@example("a = " + "{b=" * 5000)
@example("a = " + "9" * 5000)
@example("[admin]\nport = " + "9" * 4000)
@example('[uplink]\nreject_after = "' + "9" * 4000 + 'd"')
@example('[uplink]\nmax_in_flight_bytes = "' + "9" * 5000 + '"')
@example("a." * 300 + "b = 1")
@example("x = inf\ny = nan\n[admin]\nprobe_interval = inf\nmax_probe_age = nan")
def test_no_text_surprises_it(text: str) -> None:
    examined(text, {})
