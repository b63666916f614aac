"""Series that exist from the start: whatever of their labels the configuration fixes."""

from __future__ import annotations

from collections.abc import Sequence

from spanbridge.app import convert
from spanbridge.config import Config
from spanbridge.core.routes import Route
from spanbridge.downlink.reasons import FAULTY as DOWNLINK_FAULTY
from spanbridge.downlink.reasons import known_series
from spanbridge.mqtt import events as mqtt
from spanbridge.telemetry import Telemetry
from spanbridge.telemetry.events import InternalError
from spanbridge.uplink import events
from spanbridge.uplink.reasons import NEVER_REJECTED, SPOOLED, UNROUTED, known_reasons
from spanbridge.uplink.recipe import UNROUTABLE, with_catch_all
from spanbridge_context import PROBLEMS

OUTCOMES = ("valid", "absent", *PROBLEMS)
"""What can be said of the context that a message carries."""

_OF_SOURCE = (
    mqtt.Connected,
    mqtt.SessionLost,
    mqtt.SessionShortened,
    mqtt.MessagesRedelivered,
    mqtt.MessagesNacked,
    mqtt.MessagesLost,
)
_FAULTY = ("uplink.intake", "uplink.sender", "uplink.rejects", "telemetry")


def declare(config: Config, telemetry: Telemetry) -> None:
    """Have the series of this configuration at 0, unless they count already: ``increase()`` then sees the first event.

    Reasons that only a peer knows (those of failed requests, RocketMQ's codes) begin with their first event.
    """
    routes = with_catch_all(config.build_routes(), config.uplink.unroutable_topic)
    spooled = SPOOLED if config.spool is not None else ()
    reasons = {route.filter.text: (*known_reasons(route), *spooled) for route in routes}
    reasons[UNROUTABLE] = UNROUTED
    topics = convert.known_topics(config)
    dead = config.uplink.rejected_to
    rejected = [
        (template, reason, dead)
        for template, found in reasons.items()
        for reason in found
        if dead is not None and reason not in NEVER_REJECTED
    ]
    telemetry.metrics.declare(reasons, topics, rejected=rejected, outcomes=OUTCOMES)
    _declare_downlinks(config, telemetry)
    _declare_events(config, telemetry, routes, dict.fromkeys((reason, topic) for _, reason, topic in rejected))


def _declare_downlinks(config: Config, telemetry: Telemetry) -> None:
    for downlink in config.build_downlinks():
        telemetry.downlink_metrics.declare(downlink.topic, downlink.group, downlink.publish.text)
        for kind, rows in known_series(downlink).items():
            telemetry.reporter.declare(kind, *rows)
    if config.downlinks:
        telemetry.reporter.declare(InternalError, *({"where": where} for where in DOWNLINK_FAULTY))


def _declare_events(
    config: Config, telemetry: Telemetry, routes: Sequence[Route], diverted: dict[tuple[str, str], None]
) -> None:
    tell = telemetry.reporter.declare
    if config.uplink.unroutable_topic is not None:
        diverted["unroutable", config.uplink.unroutable_topic] = None
    tell(events.MessagesDiverted, *({"reason": reason, "topic": topic} for reason, topic in diverted))
    tell(events.PropertiesDropped, *({"route": route.name} for route in routes))
    tell(events.SendRecovered, *({"topic": topic} for topic in convert.known_topics(config)))
    tell(InternalError, *({"where": where} for where in _FAULTY))
    tell(events.DrainIncomplete)
    for kind in _OF_SOURCE:
        tell(kind, *({"source": broker.name} for broker in config.mqtt))
    tell(mqtt.Discarded, *({"source": broker.name, "reason": "stopping"} for broker in config.mqtt))
