"""Readiness: each reason by itself, and all together."""

from __future__ import annotations

import pytest

from spanbridge.core.health import Observation, Probe, SourceLink, Thresholds, readiness
from spanbridge.core.hosts import is_loopback

LIMITS = Thresholds(max_unacknowledged_age=30, max_probe_age=20)
GOOD = Probe(good_age=1.0)
UP = SourceLink("edge", up=True)
DOWN = SourceLink("edge", up=False, age=4.2, last_error="connection refused")


@pytest.mark.parametrize(
    ("seen", "codes"),
    [
        (Observation(probe=GOOD, sources=[UP]), []),
        (Observation(probe=GOOD, sources=[UP], oldest_unacknowledged_age=30.0), []),
        (Observation(probe=GOOD, sources=[UP], oldest_unacknowledged_age=30.1), ["unacknowledged"]),
        (Observation(probe=Probe(), sources=[UP]), ["starting"]),
        (Observation(probe=Probe(good_age=20.0), sources=[UP]), []),
        (Observation(probe=Probe(good_age=20.1), sources=[UP]), ["probe_stale"]),
        (Observation(probe=Probe(good_age=1.0, error="no route"), sources=[UP]), ["probe_failed"]),
        (Observation(probe=Probe(error="no route"), sources=[UP]), ["probe_failed"]),
        (Observation(probe=GOOD, sources=[UP, DOWN]), ["source_down"]),
        (Observation(probe=GOOD, sources=[UP], draining=True), ["draining"]),
        (Observation(probe=GOOD, sources=[], publishers=[UP], consumers=[UP], oldest_undelivered_age=30.0), []),
        (Observation(probe=GOOD, sources=[], oldest_undelivered_age=30.1), ["undelivered"]),
        (Observation(probe=GOOD, sources=[], publishers=[UP, DOWN], consumers=[UP]), ["publisher_down"]),
        (Observation(probe=GOOD, sources=[], publishers=[UP], consumers=[DOWN, UP]), ["consumer_down"]),
        (
            Observation(probe=Probe(), sources=[DOWN, DOWN], oldest_unacknowledged_age=99.0, draining=True),
            ["draining", "unacknowledged", "starting", "source_down", "source_down"],
        ),
    ],
)
def test_reasons(seen: Observation, codes: list[str]) -> None:
    verdict = readiness(seen, LIMITS)
    assert [reason.code for reason in verdict.reasons] == codes
    assert verdict.ready == (not codes)


def test_messages_say_what_and_how_long() -> None:
    seen = Observation(
        probe=Probe(error="deadline passed"),
        sources=[DOWN],
        oldest_unacknowledged_age=44.0,
        publishers=[DOWN],
        consumers=[SourceLink("commands", up=False, age=1, last_error="consumer group 'g' does not exist")],
        oldest_undelivered_age=31.0,
    )
    assert [reason.message for reason in readiness(seen, LIMITS).reasons] == [
        "a message has been waiting for RocketMQ for 44.0 s, longer than 30 s",
        "a message has been waiting for MQTT for 31.0 s, longer than 30 s",
        "the last probe of RocketMQ failed: deadline passed",
        "MQTT connection 'edge' has been down for 4.2 s: connection refused",
        "publishing to 'edge' has been down for 4.2 s: connection refused",
        "receiving for downlink 'commands' has been down for 1.0 s: consumer group 'g' does not exist",
    ]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
