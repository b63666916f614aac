"""Counters that stand at 0 from the start have the labels of the events that are counted later."""

from __future__ import annotations

from spanbridge.core.downlinks import Away
from spanbridge.core.events import Event
from spanbridge.downlink import events
from spanbridge.downlink.reasons import known_series
from spanbridge.mqtt.codec.v5 import REASONS
from spanbridge.telemetry import Telemetry

from .fakes import downlink


def test_known_series_are_the_events_own_labels() -> None:
    known = known_series(downlink(away=Away.RETRY))
    happening: list[Event] = [
        events.DownlinkRejected(downlink="commands", reason="no_topic", cause="c"),
        events.DownlinkDropped(downlink="commands", reason="expired", cause="c"),
        events.DownlinkNacked(downlink="commands", reason="no_matching_subscribers", cause="c"),
        events.DownlinkParked(downlink="commands", reason="quota_exceeded", cause="c"),
        events.DownlinkPropertiesDropped(downlink="commands"),
        events.DownlinkIncomplete(downlink="commands"),
    ]
    for event in happening:
        assert event.labels() in known[type(event)]
        assert "commands" in event.text()
    assert {"downlink": "commands", "reason": "no_matching_subscribers"} not in known_series(downlink())[
        events.DownlinkNacked
    ]


def test_they_are_reasons_that_somebody_gives() -> None:
    ours = {"no_topic", "bad_topic", "malformed", "internal", "order", "expired", "bad_property", "connection_closed"}
    known = known_series(downlink(away=Away.RETRY)).values()
    assert {row["reason"] for rows in known for row in rows if "reason" in row} <= ours | set(REASONS.values())


def test_they_can_be_declared() -> None:
    telemetry = Telemetry(environ={})
    for kind, rows in known_series(downlink()).items():
        telemetry.reporter.declare(kind, *rows)
    text = telemetry.prometheus()[0].decode()
    assert 'spanbridge_downlink_rejected_total{downlink="commands",reason="no_topic"' in text
