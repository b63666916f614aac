"""Names and properties that RocketMQ accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core import rocketmq_rules as rules
from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Destination


@pytest.mark.parametrize("topic", ["a", "A-b_9", "x" * 127, "ns%topic", "a|b"])
def test_legal_topics(topic: str) -> None:
    assert rules.topic_problem(topic) is None


@pytest.mark.parametrize(
    ("topic", "word"),
    [
        ("", "empty"),
        ("a/b", "characters"),
        ("a b", "characters"),
        ("tópico", "characters"),
        ("a.b", "characters"),
        ("x" * 128, "127"),
        ("TBW102", "system"),
        ("rmq_sys_anything", "system"),
        ("%RETRY%group", "retry"),
    ],
)
def test_illegal_topics_say_why(topic: str, word: str) -> None:
    problem = rules.topic_problem(topic)
    assert problem is not None
    assert word in problem


@given(st.text(max_size=300))
def test_sanitised_topics_are_legal(text: str) -> None:
    topic = rules.sanitise_topic(text)
    assert rules.topic_problem(topic) in {None, "is a system topic"}


def test_long_topics_stay_apart() -> None:
    assert rules.sanitise_topic("x" * 200 + "1") != rules.sanitise_topic("x" * 200 + "2")
    assert rules.sanitise_topic("plant/7/temp") == "plant_7_temp"


@given(st.text(alphabet=st.characters(), max_size=200))
def test_sanitised_tags_keys_and_groups_are_legal(text: str) -> None:
    tag, key, group = rules.sanitise_tag(text), rules.sanitise_key(text), rules.sanitise_group(text)
    assert tag is None or rules.tag_problem(tag) is None
    assert key is None or rules.key_problem(key) is None
    assert group is None or rules.group_problem(group) is None


def test_long_groups_stay_apart_and_keep_their_start() -> None:
    first, second = rules.sanitise_group("ü" * 40 + "1"), rules.sanitise_group("ü" * 40 + "2")
    assert first is not None
    assert second is not None
    assert first != second
    assert first.startswith("ü" * 20)
    assert len(first.encode()) <= rules.MAX_MESSAGE_GROUP_BYTES


@pytest.mark.parametrize(("tag", "word"), [("", "blank"), (" ", "blank"), ("a|b", "'|'"), ("a\x9fb", "control")])
def test_illegal_tags(tag: str, word: str) -> None:
    assert word in (rules.tag_problem(tag) or "")


@pytest.mark.parametrize(("key", "word"), [("", "empty"), ("a b", "white"), ("a\x00", "control"), ("\ud800", "UTF-8")])
def test_illegal_keys(key: str, word: str) -> None:
    assert word in (rules.key_problem(key) or "")


@pytest.mark.parametrize(("group", "word"), [("", "blank"), ("g" * 64, "63 bytes"), ("a\x7f", "control")])
def test_illegal_groups(group: str, word: str) -> None:
    assert word in (rules.group_problem(group) or "")
    assert rules.group_problem("g" * 63) is None


@pytest.mark.parametrize("name", ["TAGS", "KEYS", "UNIQ_KEY", "__SHARDINGKEY", "__LITE_TOPIC", "__RMQ.TRANSIENT.x"])
def test_reserved_property_names(name: str) -> None:
    assert rules.property_name_problem(name) == "is reserved by RocketMQ"


@pytest.mark.parametrize("name", ["traceparent", "mqtt.user.a b", "tags", "ключ"])
def test_legal_property_names(name: str) -> None:
    assert rules.property_name_problem(name) is None


def test_property_values() -> None:
    assert rules.property_value_problem("") is None
    assert rules.property_value_problem("a\u200bb") is None  # not printable, yet no control character of Java's
    assert "control" in (rules.property_value_problem("a\nb") or "")
    assert "surrogate" in (rules.property_value_problem("\udfff") or "")


@pytest.mark.parametrize(
    ("destination", "reason", "name"),
    [
        (Destination("a/b"), "illegal_topic", None),
        (Destination("TBW102"), "illegal_topic", None),
        (Destination("t", tag="a|b"), "illegal_message_tag", None),
        (Destination("t", tag=""), "illegal_message_tag", None),
        (Destination("t", keys=("k", "a b")), "illegal_message_key", None),
        (Destination("t", group=""), "illegal_message_group", None),
        (Destination("t", group="g" * 64), "illegal_message_group", None),
        (Destination("t", properties=(("mqtt.topic", "a\nb"),)), "illegal_message_property_key", "mqtt.topic"),
        (Destination("t", properties=(("TAGS", "x"),)), "illegal_message_property_key", "TAGS"),
        (Destination("t", properties=(("mqtt.topic", "x" * 16_384),)), "message_properties_too_large", None),
    ],
)
def test_a_breach_names_reason_and_property(destination: Destination, reason: str, name: str | None) -> None:
    breach = rules.destination_breach(destination)
    assert breach is not None
    assert (breach.reason, breach.property_name) == (reason, name)
    with pytest.raises(SinkRejected) as caught:
        rules.check_destination(destination)
    assert (caught.value.reason, str(caught.value)) == (reason, breach.text)


def test_a_legal_destination() -> None:
    legal = Destination("t" * 127, tag="a b", keys=("k", "l"), group="g", properties=(("a", ""), ("b c", "=")))
    assert rules.destination_breach(legal) is None
    rules.check_destination(legal)


def test_properties_that_do_not_arrive() -> None:
    assert rules.property_loss("a", "x") is None
    assert "empty" in (rules.property_loss("a", "") or "")
    assert "control" in (rules.property_loss("a", "\x9f") or "")
    assert "reserved" in (rules.property_loss("KEYS", "x") or "")


def test_bodies() -> None:
    assert rules.body_breach("t", 1, 1) is None
    empty, large = rules.body_breach("t", 0, 1), rules.body_breach("t", 2, 1)
    assert empty is not None
    assert large is not None
    assert (empty.reason, large.reason) == ("message_body_empty", "message_body_too_large")
    assert "limit of 1" in large.text
