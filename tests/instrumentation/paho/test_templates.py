"""Templates of topics: what names a thing is no part of them, and they stay few."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from spanbridge_instrumentation.paho.levels import MAX_TEMPLATES, MAX_VALUES, TopicLevels
from spanbridge_instrumentation.paho.templates import MAX_FILTERS, Templates, filters_of

SENT = "messaging.client.sent.messages"
CONSUMED = "messaging.client.consumed.messages"
NAMES = [f"{letter}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]


def test_a_concrete_filter_names_no_device(instrumented: Any, connect: Any, topic: str) -> None:
    arrived = threading.Event()
    client = connect(subscribe=f"{topic}/commands/p1/#", on_message=lambda *_: arrived.set())
    client.publish(f"{topic}/commands/p1/reboot", b"x", qos=1)
    assert arrived.wait(30)
    assert instrumented.processes()[0].name == "process tests/+/commands/+/#"
    assert instrumented.sends()[0].name == "send tests/+/commands/+/reboot"
    for name in (SENT, CONSUMED):
        assert not [point for point in instrumented.points(name) if "p1" in str(dict(point.attributes))]


def test_a_client_identifier_in_a_topic_names_no_device(instrumented: Any, connect: Any) -> None:
    client = connect()
    client_id = client._client_id.decode()
    client.publish(f"spanbridge/{client_id}/state", b"x", qos=1).wait_for_publish(10)
    assert instrumented.sends()[0].name == "send spanbridge/+/state"


def test_few_destinations_are_named() -> None:
    templates = Templates()
    for topic in ("rooms/kitchen/state", "rooms/cellar/state", "alarms"):
        assert templates.of_sent(topic) == templates.of_received(topic) == topic


def test_a_level_that_varies_becomes_a_wildcard() -> None:
    templates = Templates()
    seen = [templates.of_sent(f"rooms/{name}/state") for name in NAMES]
    assert seen == [f"rooms/{name}/state" for name in NAMES[:MAX_VALUES]] + ["rooms/+/state"] * 18
    assert templates.of_sent("rooms/aa/state") == "rooms/+/state"
    assert templates.of_received("rooms/aa/state") == "rooms/+/state"
    assert templates.of_sent("rooms/aa/lamp/on") == "rooms/+/lamp/on"
    assert templates.of_sent("alarms/fire") == "alarms/fire"


def test_filters_that_vary_become_one() -> None:
    templates = Templates()
    for name in NAMES:
        templates.learn(f"commands/{name}/#")
        templates.of_received(f"commands/{name}/reboot")
    assert {templates.of_received(f"commands/{name}/reboot") for name in NAMES} == {"commands/+/#"}


@pytest.mark.parametrize(
    ("topic", "template"),
    [
        ("devices/d7/state", "devices/+/state"),
        ("devices/" + "x" * 33 + "/state", "devices/+/state"),
        ("/a//b", "/a//b"),
        ("a/b/c/d/e/f/g/h/i/j", "a/b/c/d/e/f/g/h/#"),
        ("$SYS/broker/uptime", "$SYS/broker/uptime"),
    ],
)
def test_levels(topic: str, template: str) -> None:
    assert TopicLevels().template(topic) == template


def test_there_are_only_so_many_templates() -> None:
    levels = TopicLevels()
    seen = {levels.template(f"{one}/{two}/{three}") for one in NAMES for two in NAMES for three in NAMES}
    assert len(seen - {None}) <= MAX_TEMPLATES
    assert levels.template("zz/zz/zz/zz/zz/zz") is None or len(seen) < MAX_TEMPLATES
    assert sum(len(values) for values in levels._values.values()) < 3000


def test_what_the_user_says_wins() -> None:
    templates = Templates(["rooms/+/#"], lambda topic: "mine" if topic.endswith("d7") else None)
    assert templates.of_sent("devices/d7") == "mine"
    assert templates.of_sent("rooms/kitchen/state") == "rooms/+/#"
    assert templates.of_sent("other") == "other"


def test_filters_of_subscriptions() -> None:
    templates = Templates()
    templates.learn("devices/42/state")
    assert templates.of_received("devices/42/state") == "devices/+/state"
    templates.learn("$share/group/devices/+/#")
    assert templates.of_received("devices/42/state") == "devices/+/#"
    assert templates.of_sent("devices/42/state") == "devices/+/state"
    assert filters_of([("a/+", 1), ("b", 0)]) == ["a/+", "b"]
    assert filters_of(("a", 1)) == filters_of("a") == ["a"]
    assert filters_of(None) == []


def test_filters_are_bounded() -> None:
    templates = Templates()
    for one in NAMES:
        for two in NAMES:
            templates.learn(f"{one}/{two}/+/+")
    assert len(templates._known) == MAX_FILTERS
