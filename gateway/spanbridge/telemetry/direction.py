"""Which way messages go: what the two ends are called in metrics."""

from __future__ import annotations

from dataclasses import dataclass

TEMPLATE = "messaging.destination.template"
DESTINATION = "messaging.destination.name"


@dataclass(frozen=True, slots=True)
class Direction:
    """``source`` and ``sink`` are the messaging systems; ``source_label`` and ``sink_label`` name their destinations.

    Raw MQTT topics have too many values for a label: there, the template stands for them.
    """

    source: str
    source_label: str
    sink: str
    sink_label: str


UPLINK = Direction("mqtt", TEMPLATE, "rocketmq", DESTINATION)
DOWNLINK = Direction("rocketmq", DESTINATION, "mqtt", TEMPLATE)
