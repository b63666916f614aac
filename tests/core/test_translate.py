"""MQTT to RocketMQ, property by property."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core import translate
from spanbridge.core.message import Address, Publish
from spanbridge.core.routes import Match, Route, RouteTable, TopicFilter
from spanbridge.core.template import Template


def match(mqtt_topic: str, /, **templates: str) -> Match:
    parsed = {name: Template.parse(text) for name, text in templates.items()}
    route = Route(
        name="r", filter=TopicFilter.parse("devices/{device}/#"), **{"topic": Template.parse("out"), **parsed}
    )  # type: ignore[arg-type]
    found = RouteTable([route]).match(mqtt_topic)
    assert found is not None
    return found


def address(publish: Publish, /, **templates: str) -> Address:
    return translate.address(match(publish.topic, **templates), publish, path="gw", client_id="edge")


def test_what_the_topic_fixes() -> None:
    publish = Publish("devices/d1/temp", b"21", qos=1, retain=True)
    got = address(publish, tag="{topic[2]}", message_group="{device}", delivery_timestamp="{user.at}")
    assert got == Address(
        topic="out",
        tag="temp",
        group="d1",
        properties=(
            ("mqtt.topic", "devices/d1/temp"),
            ("mqtt.qos", "1"),
            ("spanbridge.path", "gw"),
            ("mqtt.retain", "true"),
        ),
    )


def test_an_empty_topic_and_a_timestamp_that_is_no_number_have_reasons() -> None:
    publish = Publish("devices/d1", b"", user_properties=[("at", "soon")])
    with pytest.raises(translate.Unroutable) as empty:
        address(publish, topic="{user.none}")
    assert empty.value.reason == "no_topic"
    with pytest.raises(translate.Unroutable) as timestamp:
        address(publish, delivery_timestamp="{user.at}")
    assert timestamp.value.reason == "bad_timestamp"


def test_a_timestamp_is_a_plain_number() -> None:
    publish = Publish("devices/d1", b"", user_properties=[("at", "1795430589684")])
    assert address(publish, delivery_timestamp="{user.at}").delivery_timestamp_ms == 1795430589684
    for text in ("-1", "1.5", "\u0661", "\u00b2"):  # the last two are digits to Python as well
        with pytest.raises(translate.Unroutable, match="not Unix time"):
            address(publish, delivery_timestamp=text)


def test_keys_that_come_out_empty_are_left_out() -> None:
    keys = tuple(map(Template.parse, ("{device}", "{user.none}", "a-{topic[0]}")))
    route = Route(name="r", filter=TopicFilter.parse("{kind}/{device}"), topic=Template.parse("t"), keys=keys)
    found = RouteTable([route]).match("devices/d 1")
    assert found is not None
    publish = Publish("devices/d 1", b"")
    assert translate.address(found, publish, path="gw", client_id="").keys == ("d_1", "a-devices")


def test_what_fills_the_room_exactly_is_carried() -> None:
    for value, size in (("x" * 9, 9), ("\u00e4" * 4 + "x", 9)):
        room = len("traceparenttp") + len("mqtt.user.a") + size
        user, context = [("a", value)], [("traceparent", "tp")]
        assert translate.properties(Publish("t", b"x"), user, context, room).dropped == 0
        assert translate.properties(Publish("t", b"x"), user, context, room - 1).dropped == 1
    many = translate.properties(Publish("t", b"x"), [(f"{n}", "") for n in range(200)], [("traceparent", "tp")])
    assert (len(many.items), many.dropped) == (124, 77)


@pytest.mark.parametrize("at", ["253402300800000", "9" * 30, "9" * 5000, "0" * 40, "-1", "1e3"])
def test_a_delivery_timestamp_that_no_message_can_carry_has_a_reason(at: str) -> None:
    """RocketMQ could not parse the request, nor say which message of it was meant: it would be sent for ever."""
    publish = Publish("devices/d1", b"", user_properties=[("at", at)])
    with pytest.raises(translate.Unroutable) as refused:
        address(publish, delivery_timestamp="{user.at}")
    assert refused.value.reason == "bad_timestamp"
    latest = Publish("devices/d1", b"", user_properties=[("at", "253402300799999")])
    assert address(latest, delivery_timestamp="{user.at}").delivery_timestamp_ms == 253402300799999


def test_all_properties_beyond_the_most_that_rocketmq_takes_are_counted() -> None:
    user = [(translate.PATH, "gw"), *((str(number), "") for number in range(1000))]
    got = translate.properties(Publish("t", b"x", content_type="text/plain"), user, [])
    assert len(got.items) + translate.FIXED_PROPERTIES == translate.MAX_PROPERTIES
    assert len(got.items) + got.dropped == 1001
    assert got.items[0] == ("mqtt.content-type", "text/plain")


def test_every_field_of_a_publish_has_its_property() -> None:
    publish = Publish(
        "t",
        b"",
        content_type="application/json",
        response_topic="reply/here",
        correlation_data=b"\x00\xff",
        expiry=60,
    )
    got = translate.properties(publish, [("site", "ulm"), ("site", "köln"), ("x", "")], [("traceparent", "00-…")])
    assert dict(got.items) == {
        "traceparent": "00-…",
        "mqtt.empty": "true",
        "mqtt.expiry": "60",
        "mqtt.correlation-data": base64.b64encode(b"\x00\xff").decode(),
        "mqtt.content-type": "application/json",
        "mqtt.response-topic": "reply/here",
        "mqtt.user.site": "ulm",
        "mqtt.user[2].site": "köln",
        "mqtt.user.x": "",
    }
    assert got.dropped == 0


def test_what_rocketmq_cannot_carry_is_dropped_and_counted_alone() -> None:
    user = [("ok", "1"), ("bad\x01name", "2"), ("tab", "a\tb"), ("big", "x" * 20000), ("last", "3")]
    got = translate.properties(Publish("t", b"x"), user, [("traceparent", "tp")])
    assert got.items == [("traceparent", "tp"), ("mqtt.user.ok", "1"), ("mqtt.user.last", "3")]
    assert got.dropped == 3


def test_nothing_in_a_context_or_a_publish_is_too_large_to_send_the_rest() -> None:
    """A tracestate of 32 members may have 16 415 bytes, correlation data 65 535: each over what RocketMQ takes."""
    context = [("traceparent", "tp"), ("tracestate", "x" * 16415), ("baggage", "a=b")]
    publish = Publish("t", b"", correlation_data=bytes(65535), content_type="text/plain")
    got = translate.properties(publish, [("site", "ulm")], context)
    assert got.items == [
        ("traceparent", "tp"),
        ("mqtt.empty", "true"),
        ("baggage", "a=b"),
        ("mqtt.content-type", "text/plain"),
        ("mqtt.user.site", "ulm"),
    ]
    assert got.dropped == 2


def test_what_the_topic_fixes_leaves_less_room_for_the_rest() -> None:
    address = Address("t", tag="t" * 100, keys=("k" * 1000, "ä" * 50), properties=(("mqtt.topic", "x" * 1000),))
    room = translate.room(address)
    assert room == 16384 - 100 - 1000 - 100 - 1010
    user = [("a", "x" * 8000), ("b", "y" * 8000), ("c", "")]
    got = translate.properties(Publish("t", b"x"), user, [("traceparent", "tp")], room)
    assert [name for name, _ in got.items] == ["traceparent", "mqtt.user.a", "mqtt.user.c"]
    assert got.dropped == 1


@given(st.lists(st.tuples(st.text(max_size=300), st.text(max_size=300)), max_size=200))
def test_limits_hold_for_any_user_properties_and_the_context_survives(user: list[tuple[str, str]]) -> None:
    got = translate.properties(Publish("t", b"x"), user, [("traceparent", "tp")])
    assert got.items[0] == ("traceparent", "tp")
    assert len(got.items) + translate.FIXED_PROPERTIES <= translate.MAX_PROPERTIES
    assert sum(len((name + value).encode("utf-8", "surrogatepass")) for name, value in got.items) <= 16384
    assert len({name for name, _ in got.items}) == len(got.items)
    assert len(got.items) - 1 + got.dropped == len(user)


def test_a_gateway_recognises_its_own_messages() -> None:
    assert translate.passed_gateways([("a", "b")], "me") is None
    assert translate.passed_gateways([("spanbridge.path", "other")], "me") == "other,me"
    with pytest.raises(translate.Unroutable) as loop:
        translate.passed_gateways([("spanbridge.path", "other,me")], "me")
    assert loop.value.reason == "loop"
    assert translate.passed_gateways([("spanbridge.path", "me2,notme")], "me") == "me2,notme,me"
    assert translate.passed_gateways([("spanbridge.path", "x" * 2048)], "me") == "x" * 2048 + ",me"


@pytest.mark.parametrize("path", ["a\x01b", "x" * 2049])
def test_a_path_that_no_gateway_writes_stops_no_message(path: str) -> None:
    assert translate.passed_gateways([("spanbridge.path", path)], "me") is None


def test_what_devices_name_is_brought_into_rocketmqs_alphabet_and_literals_stay() -> None:
    publish = Publish("devices/päö d1/a|b", b"x")
    got = address(publish, topic="t-{device}", tag="{topic[2]}", message_group="{device}")
    assert got.topic == "t-p___d1"
    assert got.tag == "a_b"
    assert got.group == "päö d1"
    assert address(publish, topic="ns%plain").topic == "ns%plain"
