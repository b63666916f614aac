"""Series at 0 from the start, so that the growth of the first event is seen."""

from __future__ import annotations

import tomllib

from prometheus_client.parser import text_string_to_metric_families

from spanbridge.app.declare import declare
from spanbridge.config import Config
from spanbridge.telemetry import Telemetry
from spanbridge.telemetry.metrics import hot
from spanbridge.uplink.events import MessagesDiverted

BASE = """
name = "edge-1"
[mqtt]
url = "mqtt://broker.example"
[rocketmq]
endpoints = "cluster.example:8081"
"""
ROUTE = """
[[routes]]
filter = "devices/{device}/telemetry"
topic = "telemetry"
max_payload = 100
"""


def load(text: str) -> Config:
    raw = tomllib.loads(BASE + text)
    raw["mqtt"] = [raw["mqtt"]]
    return Config.model_validate(raw)


def samples(telemetry: Telemetry, name: str) -> dict[tuple[str | None, ...], float]:
    """Values of a counter by template, reason and topic."""
    families = text_string_to_metric_families(telemetry.prometheus()[0].decode())
    names = ("messaging_destination_template", "reason", "topic", "messaging_destination_name", "outcome")
    return {
        tuple(sample.labels[label] for label in names if label in sample.labels): sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"{name}_total"
    }


def test_the_first_drop_is_a_growth_from_0_to_1() -> None:
    telemetry = Telemetry(environ={})
    declare(load(ROUTE), telemetry)
    key = ("devices/{device}/telemetry", "too_large")
    before = samples(telemetry, "spanbridge_dropped")
    telemetry.metrics.dropped(*key)
    after = samples(telemetry, "spanbridge_dropped")
    assert (before[key], after[key]) == (0, 1)
    assert before["(unroutable)", "unroutable"] == 0
    assert before.keys() == after.keys()


def test_what_has_counted_stays_as_it_is_when_it_is_declared_again() -> None:
    telemetry = Telemetry(environ={})
    telemetry.metrics.context("absent", 3)
    declare(load(ROUTE), telemetry)
    found = samples(telemetry, "spanbridge_context")
    assert found.pop(("absent",)) == 3
    assert found[("valid",)] == found[("malformed",)] == 0


def test_all_that_the_configuration_names_is_there() -> None:
    telemetry = Telemetry(environ={})
    extra = '[uplink]\nrejected_topic = "dead"\nunroutable_topic = "rest"\n'
    declare(load(extra + ROUTE), telemetry)
    consumed = samples(telemetry, "messaging_client_consumed_messages")
    assert set(consumed) == {("devices/{device}/telemetry",), ("#",), ("(unroutable)",)}
    assert set(samples(telemetry, "messaging_client_sent_messages")) == {("telemetry",), ("rest",), ("dead",)}
    rejected = samples(telemetry, "spanbridge_rejected")
    assert rejected["devices/{device}/telemetry", "too_large", "dead"] == 0
    assert ("devices/{device}/telemetry", "expired", "dead") not in rejected, "such messages are never rejected"
    diverted = samples(telemetry, "spanbridge_messages_diverted")
    assert diverted["unroutable", "rest"] == diverted["too_large", "dead"] == 0
    assert set(samples(telemetry, "spanbridge_messages_lost").values()) == {0}
    key = ("too_large", "dead")
    telemetry.reporter.report(MessagesDiverted(reason=key[0], topic=key[1], cause="101 bytes"))
    assert samples(telemetry, "spanbridge_messages_diverted") == diverted | {key: 1}, "the same series goes on"


def test_series_that_are_declared_leave_room_for_those_that_happen() -> None:
    telemetry = Telemetry(environ={})
    many = "".join(f'[[routes]]\nfilter = "a{number}/#"\ntopic = "t{number}"\n' for number in range(hot.DECLARED))
    declare(load(many), telemetry)
    assert samples(telemetry, "spanbridge_dropped") == {}
    telemetry.metrics.dropped("a1/#", "loop")
    assert samples(telemetry, "spanbridge_dropped") == {("a1/#", "loop"): 1}
