"""Reading a configuration: defaults, the environment, and every error at once with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from spanbridge.config import Config, InvalidConfigError, Problem, Report, examine, examine_text, load
from spanbridge.config.checks import cross_check
from spanbridge.config.parts import Parts
from spanbridge.config.repair import repair
from spanbridge.core.policy import Carrier, ContextPolicy
from tests.drawing import examples

MINIMAL = """\
[mqtt]
url = "mqtt://127.0.0.1:1883"
[rocketmq]
endpoints = "127.0.0.1:8081"
[[routes]]
filter = "devices/{device}/telemetry"
topic = "telemetry"
"""

README = """\
[mqtt]
url = "mqtt://127.0.0.1:1883"
client_id = "spanbridge-edge-1"
version = "5"
[rocketmq]
endpoints = "127.0.0.1:8081"
[[routes]]
filter = "devices/{device}/telemetry"
topic = "telemetry"
keys = ["{device}"]
message_group = "{device|none}"
context = "continue"
"""


def read(text: str, environ: Mapping[str, str] | None = None, base: Path = Path()) -> Report:
    return examine_text(text, environ or {}, base=base)


def config_of(text: str, environ: Mapping[str, str] | None = None, base: Path = Path()) -> Config:
    report = read(text, environ, base)
    assert report.config is not None, [problem.text() for problem in report.problems]
    return report.config


def only_error(text: str, environ: Mapping[str, str] | None = None) -> Problem:
    report = read(text, environ)
    assert report.config is None
    assert len(report.errors) == 1, [problem.text() for problem in report.errors]
    return report.errors[0]


def with_mqtt(*lines: str) -> str:
    return MINIMAL.replace("[rocketmq]", "\n".join([*lines, "[rocketmq]"]))


def with_rocketmq(*lines: str) -> str:
    return MINIMAL.replace("[[routes]]", "\n".join([*lines, "[[routes]]"]))


def with_route(*lines: str) -> str:
    return MINIMAL + "\n".join(lines) + "\n"


@pytest.mark.parametrize("text", [MINIMAL, README])
def test_a_few_lines_are_enough_and_raise_no_warning(text: str) -> None:
    report = read(text)
    assert report.problems == []
    assert report.config is not None


def test_defaults_are_filled_in() -> None:
    config = config_of(MINIMAL)
    broker = config.mqtt[0]
    assert (broker.name, broker.host, broker.port, broker.version) == ("mqtt", "127.0.0.1", 1883, "5")
    assert broker.effective_no_local
    assert broker.tls_options is None
    assert config.client_id(broker) == config.name
    assert config.name.startswith("spanbridge-")
    assert config.uplink.batch.max_messages == 128
    assert config.routes[0].context is ContextPolicy.CONTINUE
    assert config.admin.host == "127.0.0.1"


def test_routes_build_for_the_core() -> None:
    text = with_route('carriers = ["topic-suffix", "json-payload"]', 'context = "link"', 'keys = ["{device}"]')
    route = config_of(
        text.replace('"mqtt://127.0.0.1:1883"', '"mqtt://127.0.0.1:1883"\nversion = "3.1.1"')
    ).build_routes()[0]
    assert route.name == route.filter.text == "devices/{device}/telemetry"
    assert route.filter.mqtt == "devices/+/telemetry"
    assert route.carriers == {Carrier.TOPIC_SUFFIX, Carrier.JSON_PAYLOAD}
    assert route.context is ContextPolicy.LINK
    assert [key.text for key in route.keys] == ["{device}"]


def test_several_brokers_and_sources() -> None:
    config = config_of("""
[[mqtt]]
name = "a"
url = "mqtts://[::1]"
[[mqtt]]
name = "b"
url = "mqtt://b.example:2883"
share = "gateways"
[rocketmq]
endpoints = "one:8081; two:8081"
[[routes]]
filter = "x/{y}"
topic = "all"
[[routes]]
filter = "z/+"
topic = "only-b"
source = "b"
""")
    a, b = config.mqtt
    assert (a.host, a.port) == ("::1", 8883)
    assert a.tls_options is not None
    assert (b.host, b.port, b.effective_no_local) == ("b.example", 2883, False)
    assert [route.topic for route in config.routes_of(a)] == ["all"]
    assert [route.topic for route in config.routes_of(b)] == ["all", "only-b"]
    assert config.rocketmq.endpoints == "one:8081;two:8081"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [('"500ms"', 0.5), ('"2s"', 2.0), ('"1.5m"', 90.0), ("7", 7.0), ("0.25", 0.25), ('"10"', 10.0)],
)
def test_durations(written: str, seconds: float) -> None:
    assert config_of(with_mqtt(f"connect_timeout = {written}")).mqtt[0].connect_timeout == seconds


@pytest.mark.parametrize(
    ("written", "size"), [('"1MiB"', 1 << 20), ('"512KiB"', 512 << 10), ('"2MB"', 2_000_000), ("4096", 4096)]
)
def test_sizes(written: str, size: int) -> None:
    assert config_of(with_mqtt(f"maximum_packet_size = {written}")).mqtt[0].maximum_packet_size == size


def test_all_errors_show_at_once_with_path_line_value_and_hint() -> None:
    report = read("""\
[mqtt]
url = "tcp://127.0.0.1:1883"
pasword = "hunter2"
receive_maximum = "100"
[rocketmq]
endpoints = "http://127.0.0.1:8081"
[[routes]]
filter = "devices/{device}/telemetry"
topic = "telemetry-{devcie}"
context = "folow"
[[routes]]
filter = "a/#/b"
topic = "x"
[uplnk]
""")
    assert report.config is None
    found = {problem.path: problem for problem in report.errors}
    assert set(found) == {
        "mqtt.url",
        "mqtt.pasword",
        "mqtt.receive_maximum",
        "rocketmq.endpoints",
        "routes[0].topic",
        "routes[0].context",
        "routes[1].filter",
        "uplnk",
    }
    assert [problem.line for problem in report.errors] == [2, 3, 4, 6, 9, 10, 12, 14]
    assert found["mqtt.url"].value == '"tcp://127.0.0.1:1883"'
    assert found["mqtt.url"].hint == "`tcp://` is written `mqtt://` here"
    assert found["mqtt.pasword"].hint == "did you mean `password`?"
    assert found["routes[0].topic"].hint == "did you mean `device`?"
    assert found["routes[0].context"].message == "must be `continue`, `link` or `passthrough`"
    assert found["uplnk"].hint == "did you mean `uplink`?"


def test_load_raises_with_all_problems(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[mqtt]\n")
    with pytest.raises(InvalidConfigError) as raised:
        load(file, {})
    assert [problem.path for problem in raised.value.problems] == ["rocketmq", "routes", "mqtt.url"]
    assert "mqtt.url (line 1): is missing" in str(raised.value)


def test_load_returns_the_config(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(README)
    assert load(file, {}).mqtt[0].client_id == "spanbridge-edge-1"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = examine(tmp_path / "none.toml", {}).errors[0]
    assert "does not exist" in missing.message
    assert missing.hint is not None
    assert "spanbridge init" in missing.hint
    assert "is a directory" in examine(tmp_path, {}).errors[0].message
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in examine(binary, {}).errors[0].message


def test_syntax_errors_name_line_and_column_but_do_not_repeat_the_line() -> None:
    problem = only_error("[mqtt]\npassword = hunter2\n")
    assert problem.line == 2
    assert "column 12" in problem.message
    assert problem.hint == "text values need quotes"
    assert "hunter2" not in problem.text()


def test_routes_written_as_a_table() -> None:
    problem = only_error(MINIMAL.replace("[[routes]]", "[routes]"))
    assert problem.path == "routes"
    assert problem.hint == "write `[[routes]]`, with two brackets"


def test_a_setting_in_the_wrong_section() -> None:
    assert only_error(with_rocketmq("keep_alive = 3")).hint == "it belongs to [mqtt]"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:1883", "is not a URL"),
        ("http://h:1", "neither `mqtt` nor `mqtts`"),
        ("wss://h", "WebSocket"),
        ("mqtt://", "names no host"),
        ("mqtt://h:0", "port"),
        ("mqtt://h:99999", "port"),
        ("mqtt://h:1883/topic", "nothing may follow"),
        ("mqtt://user:hunter2@h", "credentials"),
        ("mqtt://[::1", "has brackets without an IPv6 address"),
        ("mqtt://[x]:1", "has brackets without an IPv6 address"),
        ("mqtt://::1:1883", "IPv6 address without brackets"),
        ("mqtt://2001:db8::1", "IPv6 address without brackets"),
        ("mqtt://a..b", "`a..b` is no host name"),
    ],
)
def test_bad_urls(url: str, message: str) -> None:
    problem = only_error(MINIMAL.replace("mqtt://127.0.0.1:1883", url))
    assert problem.path == "mqtt.url"
    assert message in problem.message
    assert "hunter2" not in problem.text()


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("keep_alive = 70000", "mqtt.keep_alive"),
        ('keep_alive = "1.5s"', "mqtt.keep_alive"),
        ('connect_timeout = "soon"', "mqtt.connect_timeout"),
        ('maximum_packet_size = "4 quarts"', "mqtt.maximum_packet_size"),
        ("version = 5", "mqtt.version"),
        ('version = "3.1"', "mqtt.version"),
        ('share = "a/b"', "mqtt.share"),
        ('share = "g"\nno_local = true', "mqtt.no_local"),
        ("receive_maximum = 0", "mqtt.receive_maximum"),
        ("clean_start = 1", "mqtt.clean_start"),
        ("backoff_initial = 40", "mqtt.backoff_maximum"),
        ('tls = { server_name = "x" }', "mqtt.tls"),
        ('will = { topic = "a/+" }', "mqtt.will.topic"),
        ('name = "a b"', "mqtt.name"),
    ],
)
def test_bad_mqtt_settings(line: str, path: str) -> None:
    assert only_error(with_mqtt(line)).path == path


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ('access_key = "a"', "rocketmq.access_key"),
        ('security_token = "a"', "rocketmq.security_token"),
        ('access_key = "a"\nsecret_key = ""', "rocketmq.access_key"),
        ('access_key = "ä"\nsecret_key = "s"', "rocketmq.access_key"),
        ('access_key = "a"\nsecret_key = "s"\nsecurity_token = "a\\nb"', "rocketmq.security_token"),
        ('namespace = "a b"', "rocketmq.namespace"),
        ('protocol = "remoting"\nfollow_routes = false', "rocketmq.follow_routes"),
        ('protocol = "http"', "rocketmq.protocol"),
        ('protocol = "auto"\nfollow_routes = false', "rocketmq.follow_routes"),
        ("attempts = 0", "rocketmq.attempts"),
        ("request_timeout = 0", "rocketmq.request_timeout"),
    ],
)
def test_bad_rocketmq_settings(line: str, path: str) -> None:
    assert only_error(with_rocketmq(line)).path == path


@pytest.mark.parametrize(
    "endpoints",
    ["", ";", "host", "host:", "host:x", ":8081", "host:0", "a:1,b:2", "::1:8081", "[::1]", "[x]:1", "a:b:1"],
)
def test_bad_endpoints(endpoints: str) -> None:
    assert only_error(MINIMAL.replace("127.0.0.1:8081", endpoints)).path == "rocketmq.endpoints"


@pytest.mark.parametrize(
    ("lines", "path", "message"),
    [
        ('tag = "{nope}"', "routes[0].tag", "no level named `{nope}`"),
        ('tag = "a{"', "routes[0].tag", "unbalanced"),
        ('tag = ""', "routes[0].tag", "is empty"),
        ('tag = "a|b"', "routes[0].tag", "contains '|'"),
        ('keys = ["ok", "{topic[3]}"]', "routes[0].keys[1]", "always empty"),
        ('keys = ["two words"]', "routes[0].keys[0]", "white space"),
        ('keys = "x"', "routes[0].keys", "must be a list"),
        ("qos = 3", "routes[0].qos", "must be"),
        ('carriers = ["topic"]', "routes[0].carriers[0]", "must be"),
        ('source = "nobody"', "routes[0].source", "no `[[mqtt]]` has this name"),
        ('name = "(unroutable)"', "routes[0].name", "kept for the gateway itself"),
        (
            'message_group = "g"\ndelivery_timestamp = "{user.at|0}"',
            "routes[0].delivery_timestamp",
            "either FIFO or DELAY",
        ),
        ('tag = "{sourc}"', "routes[0].tag", "no level named"),
        ("max_payload = 0", "routes[0].max_payload", "greater than or equal to 1"),
    ],
)
def test_bad_routes(lines: str, path: str, message: str) -> None:
    problem = only_error(with_route(lines))
    assert problem.path == path
    assert message in problem.message


def test_a_server_name_is_a_host_name() -> None:
    found = only_error(with_mqtt('tls = { server_name = ".x" }').replace("mqtt://", "mqtts://"))
    assert found.path == "mqtt.tls.server_name"


@pytest.mark.parametrize("topic", ["plant/a", "rmq_sys_x", "%RETRY%g", "x" * 128])
def test_topics_that_rocketmq_does_not_take(topic: str) -> None:
    assert only_error(MINIMAL.replace('topic = "telemetry"', f'topic = "{topic}"')).path == "routes[0].topic"


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ('[uplink]\nunroutable_topic = "a b"', "uplink.unroutable_topic"),
        ("[uplink]\nmax_in_flight_bytes = 65536", "uplink.max_in_flight_bytes"),
        ("[uplink]\nreject_after = 0", "uplink.reject_after"),
        ("[uplink]\nreject_after = nan", "uplink.reject_after"),
        ('[uplink]\nreject_after = "2d"', "uplink.reject_after"),
        ('[admin]\nhost = "[::1]"', "admin.host"),
        ('[admin]\nhost = "a..b"', "admin.host"),
        ("[uplink.batch]\nmax_messages = 0", "uplink.batch.max_messages"),
        ('[admin]\nhost = "0.0.0.0"', "admin.host"),
        ("[admin]\nprobe_interval = 60", "admin.max_probe_age"),
        ('[telemetry]\nlog_format = "jsn"', "telemetry.log_format"),
        ("[telemetry.resource]\nx = 1", "telemetry.resource.x"),
    ],
)
def test_bad_runtime_settings(lines: str, path: str) -> None:
    assert only_error(with_route(lines)).path == path


def test_nothing_given_can_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config_of(MINIMAL).admin.port = 1  # type: ignore[misc]


def test_conflicts_show_although_their_section_has_other_errors(tmp_path: Path) -> None:
    text = with_mqtt(
        'keep_alive = "long"\nno_local = true\nshare = "g"\n[mqtt.tls]\nca_file = "none.pem"\nkey_password = "x"'
    )
    text += '[admin]\nport = "x"\nhost = "0.0.0.0"\nmax_probe_age = 1\n'
    assert {problem.path for problem in examine_text(text, {}, base=tmp_path).errors} == {
        "mqtt.keep_alive",
        "mqtt.no_local",
        "mqtt.tls",
        "mqtt.tls.ca_file",
        "mqtt.tls.key_password",
        "admin.port",
        "admin.host",
        "admin.max_probe_age",
    }


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (with_mqtt('backoff_initial = 60\nbackoff_maximum = "x"'), "mqtt.backoff_maximum"),
        (with_mqtt('version = "3.1.1"\nusername = 5\npassword = "p"'), "mqtt.username"),
        (with_rocketmq('access_key = 5\nsecret_key = "s"\nsecurity_token = "t"'), "rocketmq.access_key"),
        (with_route("[uplink]\nmax_in_flight_bytes = 65536\n[uplink.batch]\nmax_bytes = 1"), "uplink.batch.max_bytes"),
    ],
)
def test_nothing_is_said_of_conflicts_with_an_invalid_setting(text: str, path: str) -> None:
    assert only_error(text).path == path


def test_a_shared_subscription_in_a_filter_would_match_nothing() -> None:
    problem = only_error(MINIMAL.replace("devices/{device}/telemetry", "$share/g/a/#"))
    assert problem.path == "routes[0].filter"
    assert problem.hint == 'set `share = "g"` in [mqtt], and `filter = "a/#"` here'


@pytest.mark.parametrize("prefix", ["$queue", "$exclusive"])
def test_prefixes_that_a_broker_takes_off_would_match_nothing(prefix: str) -> None:
    problem = only_error(MINIMAL.replace("devices/{device}/telemetry", f"{prefix}/a/#"))
    assert problem.path == "routes[0].filter"
    assert f"come without `{prefix}/`" in problem.message
    assert problem.hint is not None
    assert 'filter = "a/#"' in problem.hint
    assert only_error(with_mqtt(f'subscribe = ["{prefix}/a"]')).path == "mqtt.subscribe[0]"


@pytest.mark.parametrize("text", ["", "a/#/b", "{device}/x"])
def test_bad_extra_subscriptions(text: str) -> None:
    assert only_error(with_mqtt(f'subscribe = ["ok/#", "{text}"]')).path == "mqtt.subscribe[1]"


def test_a_filter_that_cannot_be_a_name_needs_one() -> None:
    text = MINIMAL.replace("devices/{device}/telemetry", "(unroutable)")
    problem = only_error(text)
    assert (problem.path, problem.hint) == ("routes[0].filter", "give the route a `name`")
    assert config_of(text + 'name = "n"\n').routes[0].effective_name == "n"


def test_endpoints_with_ipv6_addresses() -> None:
    cluster = config_of(MINIMAL.replace("127.0.0.1:8081", "[::1]:8081; h:1")).rocketmq
    assert cluster.endpoints == "[::1]:8081;h:1"
    assert cluster.addresses == [("::1", 8081), ("h", 1)]


def test_the_name_of_the_connection_is_a_field() -> None:
    assert config_of(MINIMAL.replace('"telemetry"', '"t-{source}"')).routes[0].topic == "t-{source}"
    problem = only_error(MINIMAL.replace("{device}", "{source}"))
    assert "taken by a template field" in problem.message


@pytest.mark.parametrize("url", ["mqtt://u:hun/ter2@h", "mqtt://u:hun@ter2@h:1", "tcp://u:hunter2@h", "u:hunter2@h:1"])
def test_no_part_of_a_password_in_a_url_is_shown(url: str) -> None:
    for text in (MINIMAL.replace("mqtt://127.0.0.1:1883", url), MINIMAL.replace("127.0.0.1:8081", url)):
        shown = "".join(problem.text() for problem in examine_text(text, {}, base=Path()).errors)
        assert shown
        assert "ter2" not in shown
        assert "hun" not in shown


@pytest.mark.parametrize("text", ["soon", "{device}s"])
def test_delivery_timestamps_that_are_never_a_number(text: str) -> None:
    assert only_error(with_route(f'delivery_timestamp = "{text}"')).path == "routes[0].delivery_timestamp"


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        ("mqtt = 'x'\n" + MINIMAL[MINIMAL.index("[rocketmq]") :], "mqtt", "write `[[mqtt]]`, with two brackets"),
        (MINIMAL.replace("[rocketmq]", "[[rocketmq]]"), "rocketmq", "write `[rocketmq]`, with one bracket"),
        (
            MINIMAL.replace('"127.0.0.1:8081"', '["a:1"]'),
            "rocketmq.endpoints",
            'for example: endpoints = "127.0.0.1:8081"',
        ),
        (with_route('keys = "x"'), "routes[0].keys", 'write `["…"]`'),
        (with_mqtt('clean_start = "no"'), "mqtt.clean_start", None),
        (with_mqtt('clean_start = "true"'), "mqtt.clean_start", "write it without quotes"),
    ],
)
def test_hints_for_wrong_types(text: str, path: str, hint: str | None) -> None:
    problem = only_error(text)
    assert (problem.path, problem.hint) == (path, hint)
    assert problem.line is not None


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "spanbridge.toml"
    file.write_text(MINIMAL, encoding="utf-8-sig")
    assert examine(file, {}).errors == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 500 + "]" * 500, "nested too deeply"),
        ("a = " + "{b = " * 500 + "1" + "}" * 500, "nested too deeply"),
        ("a." * 2000 + "b = 1", "nested too deeply"),
        ("a = " + "1" * 5000, "too many digits"),
    ],
)
def test_what_is_too_deep_or_too_long_is_one_error(text: str, message: str) -> None:
    problem = only_error(text)
    assert problem.path == ""
    assert message in problem.message


@pytest.mark.parametrize("path", ["~nobody-of-that-name/ca.pem", "a\\u0000b"])
def test_paths_that_no_file_has(path: str) -> None:
    assert only_error(with_mqtt(f'password = "file:{path}"')).path == "mqtt.password"
    text = with_mqtt(f'[mqtt.tls]\nca_file = "{path}"').replace("mqtt://", "mqtts://")
    assert only_error(text).path == "mqtt.tls.ca_file"


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (
            MINIMAL.replace('endpoints = "127.0.0.1:8081"', 'endpoints = "x"\naccess_key = "a"'),
            {"rocketmq.endpoints", "rocketmq.access_key"},
        ),
        (
            MINIMAL.replace('endpoints = "127.0.0.1:8081"', 'access_key = "a"'),
            {"rocketmq.endpoints", "rocketmq.access_key"},
        ),
        (
            with_mqtt('version = "3.1.1"\npassword = "p"').replace("mqtt://", "tcp://"),
            {"mqtt.url", "mqtt.password"},
        ),
        (
            with_route("qos = 7", "[[routes]]", 'filter = "devices/+/telemetry"', "topic = 5"),
            {"routes[0].qos", "routes[1].filter", "routes[1].topic"},
        ),
        (
            with_route('message_group = "g"', 'delivery_timestamp = "{user.at}"', 'topik = "x"'),
            {"routes[0].delivery_timestamp", "routes[0].topik"},
        ),
        (
            with_route('source = "b"', "qos = 9").replace("[mqtt]", "[mqtt]\nkeep_alive = -1"),
            {"mqtt.keep_alive", "routes[0].qos", "routes[0].source"},
        ),
        (
            with_route("[admin]", "max_probe_age = 1", "[uplink]", "nonsense = 1"),
            {"admin.max_probe_age", "uplink.nonsense"},
        ),
        ("[rocketmq]\naccess_key = 'a'\n", {"mqtt", "routes", "rocketmq.endpoints", "rocketmq.access_key"}),
    ],
)
def test_errors_hide_no_others(text: str, paths: set[str]) -> None:
    assert {problem.path for problem in read(text).errors} == paths


@pytest.mark.parametrize(
    "lines",
    [
        ['sourc = "b"', "[[routes]]", 'filter = "devices/+/telemetry"', 'topic = "t"'],
        ["source = 5", "[[routes]]", 'filter = "devices/+/telemetry"', 'topic = "t"'],
        ['max_payload = "x"', "[[routes]]", 'filter = "x/+"', 'topic = "telemetry"'],
        ["topic = [1]", "[[routes]]", 'filter = "x/+"', 'topic = "telemetry"'],
    ],
)
def test_nothing_is_said_that_rests_on_an_invalid_setting(lines: list[str]) -> None:
    text = MINIMAL.replace('topic = "telemetry"\n', "") if lines[0].startswith("topic") else MINIMAL + 'name = "n"\n'
    only_error(text + "\n".join(lines) + "\n")


def test_a_mistyped_name_of_a_broker_is_not_held_against_its_routes() -> None:
    text = MINIMAL.replace("[mqtt]", '[mqtt]\nnmae = "a"') + 'source = "a"\n'
    assert only_error(text).path == "mqtt.nmae"


SETTINGS = {
    "mqtt": ("url", "name", "version", "password", "tls", "share", "no_local", "subscribe", "will", "backoff_maximum"),
    "rocketmq": ("endpoints", "access_key", "secret_key", "tls", "backoff_initial"),
    "routes": ("filter", "topic", "name", "source", "keys", "message_group", "delivery_timestamp", "context"),
    "uplink": ("max_in_flight_bytes", "batch", "reject_after", "unroutable_topic"),
    "admin": ("host", "port", "max_probe_age", "probe_interval"),
    "telemetry": ("resource", "log_format"),
}
NONSENSE = st.sampled_from(
    ["", "x", "(x)", "#", "{", "3.1.1", 0, -1, 10**9, 2.5, True, [], ["x"], [[]], {}, {"x": 1}, {"topic": 1}, [{}]]
)


@settings(max_examples=examples(300))
@given(
    st.fixed_dictionaries(
        {},
        optional={
            section: NONSENSE
            | st.dictionaries(st.sampled_from([*names, "typo"]), NONSENSE)
            | st.lists(st.dictionaries(st.sampled_from(names), NONSENSE), max_size=3)
            for section, names in SETTINGS.items()
        },
    )
)
def test_whatever_is_wrong_is_explained_and_repaired(data: dict[str, Any]) -> None:
    parts = parts_of(json.loads(json.dumps(data)))  # as a file is read: no two tables are one object
    assert parts is not None
    cross_check(parts)


def parts_of(data: dict[str, Any]) -> Parts | None:
    context = {"base": Path()}
    try:
        return Parts(Config.model_validate(data, context=context))
    except ValidationError as error:
        return repair(data, error, context, ()).parts
