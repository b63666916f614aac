"""``[[downlinks]]``: what is legal, what goes together, and what feeds itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanbridge.app.convert import downlink_settings
from spanbridge.config import Config, Problem, Report, examine_text
from spanbridge.core.downlinks import Away, ContextForm
from spanbridge.core.message import Message
from spanbridge.core.policy import ContextPolicy
from spanbridge.core.template import MessageScope
from spanbridge.downlink import DownlinkSettings

V5 = """\
[mqtt]
url = "mqtt://127.0.0.1:1883"
[rocketmq]
endpoints = "127.0.0.1:8081"
"""
V311 = V5.replace("[rocketmq]", 'version = "3.1.1"\n[rocketmq]')
TWO = """\
[[mqtt]]
name = "a"
url = "mqtt://127.0.0.1:1883"
[[mqtt]]
name = "b"
url = "mqtt://127.0.0.2:1883"
[rocketmq]
endpoints = "127.0.0.1:8081"
"""


def downlink(*lines: str, topic: str = "commands", group: str = "g", mqtt_topic: str = "devices/{key}/commands") -> str:
    head = ["[[downlinks]]", f'topic = "{topic}"', f'consumer_group = "{group}"', f'mqtt_topic = "{mqtt_topic}"']
    return "\n".join([*head, *lines]) + "\n"


def route(filter_: str, topic: str, *lines: str) -> str:
    return "\n".join(["[[routes]]", f'filter = "{filter_}"', f'topic = "{topic}"', *lines]) + "\n"


def read(text: str) -> Report:
    return examine_text(text, {}, base=Path())


def config_of(text: str) -> Config:
    report = read(text)
    assert report.config is not None, [problem.text() for problem in report.problems]
    return report.config


def told(text: str, severity: str = "error") -> Problem:
    found = [problem for problem in read(text).problems if problem.severity == severity]
    assert len(found) == 1, [problem.text() for problem in read(text).problems]
    return found[0]


def test_four_lines_are_enough_and_raise_no_warning() -> None:
    report = read(V5 + downlink())
    assert report.problems == []
    assert report.config is not None
    (built,) = report.config.build_downlinks()
    assert (built.name, built.topic, built.group, built.broker) == ("commands", "commands", "g", "mqtt")
    assert (built.filter, built.sql, built.qos, built.retain, built.expiry) == ("*", False, 1, False, None)
    assert (built.away, built.context, built.trust, built.form) == (Away.WAIT, ContextPolicy.CONTINUE, True, None)
    message = Message(topic="commands", body=b"", keys=["pump-1", "x"])
    assert built.publish.render(MessageScope(message)) == "devices/pump-1/commands"


def test_all_settings_reach_the_core() -> None:
    lines = [
        'name = "to b"', "filter = \"kind = 'x'\"", 'filter_type = "sql92"', 'broker = "b"', "qos = 2",
        'expiry = "1h"', 'away = "expire"', 'context = "link"', "trust = false", 'carrier = "json-payload"',
    ]  # fmt: skip
    (built,) = config_of(TWO + route("x", "t") + downlink(*lines)).build_downlinks()
    assert (built.name, built.broker, built.filter, built.sql) == ("to b", "b", "kind = 'x'", True)
    assert (built.qos, built.expiry, built.away) == (2, 3600, Away.EXPIRE)
    assert (built.context, built.trust, built.form) == (ContextPolicy.LINK, False, ContextForm.JSON_PAYLOAD)


def test_a_file_without_routes_and_downlinks_forwards_nothing() -> None:
    problem = told(V5)
    assert problem.path == "routes"
    assert "[[routes]]" in (problem.hint or "")
    assert read(V5 + route("x", "t")).problems == []


@pytest.mark.parametrize(
    ("line", "path", "message"),
    [
        ('filter = "a | b"', "filter", "is no tag expression"),
        ('filter = "a || "', "filter", "is no tag expression"),
        ('carrier = "topic-suffix"\nretain = true', "carrier", "retained messages"),
        ('carrier = "topic-suffix"\naway = "retain"', "carrier", "retained messages"),
        ('away = "retry"\nqos = 0', "away", "QoS 0"),
        ('away = "expire"', "away", "needs `expiry`"),
        ('away = "later"', "away", "must be"),
        ("expiry = 0", "expiry", "greater than or equal to 1"),
        ('name = "(mine)"', "name", "kept for the gateway"),
        ('broker = "other"', "broker", "no `[[mqtt]]` has this name"),
    ],
)
def test_settings_that_cannot_be(line: str, path: str, message: str) -> None:
    errors = read(V5 + downlink(line)).errors
    assert [error.path for error in errors] == [f"downlinks[0].{path}"], [error.text() for error in errors]
    assert message in errors[0].message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("devices/{device}/commands", "is not a field"),
        ("devices/{user.x}", "is not a field"),
        ("devices/+/commands", "no `+`"),
        ("devices/{key|a#}", "no `+`"),
        ("devices/{key", "unbalanced"),
        ("", "is empty"),
    ],
)
def test_topics_that_cannot_be_published_to(text: str, message: str) -> None:
    problem = told(V5 + downlink(mqtt_topic=text))
    assert problem.path == "downlinks[0].mqtt_topic"
    assert message in problem.message


def test_a_field_of_a_route_is_offered_as_the_one_of_a_downlink() -> None:
    assert "`{property.site}`" in (told(V5 + downlink(mqtt_topic="d/{user.site}")).hint or "")
    assert "`key`" in (told(V5 + downlink(mqtt_topic="d/{kye}")).hint or "")


@pytest.mark.parametrize(
    ("topic", "group", "path"),
    [
        ("com mands", "g", "topic"),
        ("TBW102", "g", "topic"),
        ("commands", "g g", "consumer_group"),
        ("commands", "CID_RMQ_SYS_x", "consumer_group"),
        ("commands", "g" * 256, "consumer_group"),
    ],
)
def test_names_that_rocketmq_does_not_take(topic: str, group: str, path: str) -> None:
    assert told(V5 + downlink(topic=topic, group=group)).path == f"downlinks[0].{path}"


def test_dead_letters_may_be_sent_down() -> None:
    assert read(V5 + downlink(topic="%DLQ%workers")).problems == []


def test_a_broker_is_needed_when_there_are_several() -> None:
    problem = told(TWO + route("x", "t") + downlink())
    assert problem.path == "downlinks[0].broker"
    assert "`a`, `b`" in (problem.hint or "")


def test_a_group_has_one_subscription() -> None:
    other = told(V5 + downlink() + downlink(topic="others"))
    assert other.path == "downlinks[1].consumer_group"
    assert "one subscription to a group" in other.message
    same = told(V5 + downlink('filter = "a || b"') + downlink('filter = "b||a"', 'name = "again"'))
    assert "one of the two only" in same.message
    assert read(V5 + downlink() + downlink(topic="others", group="h")).problems == []


def test_names_of_downlinks_are_unique() -> None:
    problem = told(V5 + downlink('filter = "a"') + downlink('filter = "b"', group="h"))
    assert problem.path == "downlinks[1].topic"
    assert "named `commands` too" in problem.message


@pytest.mark.parametrize(
    ("line", "path"),
    [('carrier = "compact"', "carrier"), ('carrier = "w3c"', "carrier"), ('away = "retry"', "away")],
)
def test_what_mqtt_311_cannot_do(line: str, path: str) -> None:
    assert told(V311 + downlink(line)).path == f"downlinks[0].{path}"
    assert read(V5 + downlink(line)).problems == []


def test_mqtt_311_does_not_know_expiry() -> None:
    problem = told(V311 + downlink("expiry = 60", 'away = "expire"'), "warning")
    assert problem.path == "downlinks[0].expiry"
    assert "the gateway drops" in problem.message


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (downlink("qos = 0"), "qos"),
        (downlink("trust = false", 'context = "passthrough"'), "context"),
        (downlink(mqtt_topic="$SYS/{key}"), "mqtt_topic"),
    ],
)
def test_warnings(text: str, path: str) -> None:
    assert told(V5 + text, "warning").path == f"downlinks[0].{path}"


def test_a_broker_that_is_published_to_only_is_no_oversight() -> None:
    report = read(TWO + route("x", "t", 'source = "a"') + downlink('broker = "b"'))
    assert report.problems == []
    assert report.config is not None
    assert [report.config.subscribes(broker) for broker in report.config.mqtt] == [True, False]


def test_client_ids_of_both_connections_differ() -> None:
    text = V5.replace("[rocketmq]", 'client_id = "x"\npublisher_client_id = "x"\n[rocketmq]')
    problem = told(text + route("x", "t") + downlink())
    assert problem.path == "mqtt.publisher_client_id"
    assert read(text + route("x", "t")).problems == []  # nothing is published, so there is one connection


def test_a_loop_over_mqtt_5_ends_by_the_path() -> None:
    text = V5 + route("devices/#", "commands") + downlink()
    problem = told(text, "warning")
    assert problem.path == "downlinks[0].mqtt_topic"
    assert "routes[0].filter takes what it publishes" in problem.message
    assert "refused as a loop" in problem.message
    assert "spanbridge.path" in (problem.hint or "")


def test_a_loop_over_mqtt_311_goes_on_for_ever() -> None:
    problem = told(V311 + route("devices/{d}/{kind}", "{kind}") + downlink())
    assert problem.path == "downlinks[0].mqtt_topic"
    assert "for ever" in problem.message
    assert "3.1.1" in (problem.hint or "")


def test_a_loop_over_two_downlinks() -> None:
    first = downlink(topic="t1", group="g1", mqtt_topic="one/{key}")
    second = downlink(topic="t2", group="g2", mqtt_topic="two/{key}")
    report = read(V311 + route("one/+", "t2") + route("two/+", "t1") + first + second)
    assert [problem.path for problem in report.errors] == ["downlinks[0].mqtt_topic", "downlinks[1].mqtt_topic"]


def test_a_copy_that_comes_up_again_is_no_loop() -> None:
    marked = told(V5 + route("devices/#", "telemetry") + downlink(), "warning")
    assert "refused" in marked.message
    copied = told(V311 + route("devices/#", "telemetry") + downlink(), "warning")
    assert "goes to RocketMQ again" in copied.message


@pytest.mark.parametrize(
    ("filter_", "mqtt_topic"),
    [
        ("devices/{device}/telemetry", "devices/{key}/commands"),
        ("devices/+", "devices/{key}/commands"),
        ("devices/+/commands/x", "devices/{key}/commands"),
        ("pump/+", "{tag}-x/{key}"),
        ("#", "$internal/{key}"),
    ],
)
def test_topics_and_filters_that_never_meet(filter_: str, mqtt_topic: str) -> None:
    problems = read(V311 + route(filter_, "commands") + downlink(mqtt_topic=mqtt_topic)).problems
    assert not [problem for problem in problems if "takes what it publishes" in problem.message]


@pytest.mark.parametrize(
    ("filter_", "mqtt_topic"),
    [
        ("devices/+/commands", "devices/{key}/commands"),
        ("devices/#", "devices"),
        ("devices/d-1/commands", "devices/d-{key}/{tag}"),
        ("#", "{key}"),
        ("devices/+/commands", "{property.mqtt.topic}"),
    ],
)
def test_topics_and_filters_that_meet(filter_: str, mqtt_topic: str) -> None:
    problems = read(V311 + route(filter_, "commands") + downlink(mqtt_topic=mqtt_topic)).problems
    assert [problem for problem in problems if "takes what it publishes" in problem.message]


def test_another_broker_or_a_suffix_keeps_them_apart() -> None:
    apart = route("d/#", "commands", 'source = "a"') + downlink('broker = "b"', mqtt_topic="d/{key}")
    assert read(TWO + apart).problems == []
    suffixed = downlink('carrier = "topic-suffix"', mqtt_topic="d/{key}")
    assert read(V311 + route("d/+", "commands") + suffixed).problems == []
    stripped = route("d/+", "commands", 'carriers = ["topic-suffix"]')
    assert read(V311 + stripped + suffixed).errors


def test_errors_hide_no_others() -> None:
    text = V5 + downlink("qos = 3", 'away = "expire"', mqtt_topic="x/{nothing}") + downlink(group="g g")
    paths = {problem.path for problem in read(text).errors}
    assert paths == {
        "downlinks[0].qos", "downlinks[0].away", "downlinks[0].mqtt_topic", "downlinks[1].consumer_group",
        "downlinks[1].topic",
    }  # fmt: skip


def test_the_environment_sets_downlinks_by_position_and_by_name() -> None:
    environ = {
        "SPANBRIDGE__DOWNLINKS__0__CONSUMER_GROUP": "other",
        "SPANBRIDGE__DOWNLINKS__TO_PUMPS__QOS": "2",
        "SPANBRIDGE__DOWNLINK__MAX_IN_FLIGHT": "7",
    }
    report = examine_text(V5 + downlink('name = "to-pumps"'), environ, base=Path())
    assert report.config is not None, report.problems
    assert (report.config.downlinks[0].consumer_group, report.config.downlinks[0].qos) == ("other", 2)
    assert report.config.downlink.max_in_flight == 7


def test_a_downlink_may_come_from_the_environment_alone() -> None:
    environ = {
        "SPANBRIDGE__DOWNLINKS__0__TOPIC": "commands",
        "SPANBRIDGE__DOWNLINKS__0__CONSUMER_GROUP": "g",
        "SPANBRIDGE__DOWNLINKS__0__MQTT_TOPIC": "d/{key}",
    }
    report = examine_text(V5, environ, base=Path())
    assert report.config is not None, report.problems


def test_downlinks_receive_by_either_protocol() -> None:
    remoting = V5.replace(":8081", ":9876").replace("[rocketmq]", '[rocketmq]\nprotocol = "remoting"')
    assert config_of(remoting + downlink()).rocketmq.protocol == "remoting"


def test_attempts_and_their_pauses_reach_the_downlinks() -> None:
    bounds = '[downlink]\nattempts = 0\nbackoff_initial = "50ms"\nbackoff_maximum = "1m"\n'
    config = config_of(V5 + downlink() + bounds)
    assert (config.downlink.attempts, config.downlink.backoff_initial, config.downlink.backoff_maximum) == (0, 0.05, 60)
    settings = downlink_settings(config)
    assert (settings.attempts, settings.backoff_initial, settings.backoff_maximum) == (0, 0.05, 60)
    assert downlink_settings(config_of(V5 + downlink())) == DownlinkSettings()


def test_pauses_between_attempts_grow() -> None:
    problem = told(V5 + downlink() + '[downlink]\nbackoff_initial = "3s"\n')
    assert problem.path == "downlink.backoff_maximum"
    assert "is smaller than `backoff_initial`" in problem.text()
