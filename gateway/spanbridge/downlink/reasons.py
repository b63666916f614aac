"""Why messages of a downlink can be refused, as far as its settings tell: labels that are known at the start.

The MQTT broker's own reasons are not among them: it may answer with any of its codes.
"""

from __future__ import annotations

from spanbridge.core.downlinks import Away, Downlink
from spanbridge.core.events import Event
from spanbridge.downlink import events

FAULTY = ("downlink.maker", "downlink.forwarder")
"""Where a fault of ours can be met, beside telemetry."""


def known_series(downlink: Downlink) -> dict[type[Event], list[dict[str, str]]]:
    """The labels with which each event of ``downlink`` can happen, for counters that stand at 0 from the start."""
    retried = ("no_matching_subscribers",) if downlink.away is Away.RETRY else ()
    reasons: dict[type[Event], tuple[str, ...]] = {
        events.DownlinkRejected: ("no_topic", "bad_topic", "malformed", "internal"),
        events.DownlinkDropped: ("expired",),
        events.DownlinkNacked: ("unavailable", "throttled", "misconfigured", "order", "internal", *retried),
        events.DownlinkParked: ("unavailable", "throttled", "misconfigured", *retried),
    }
    name = downlink.name
    found = {kind: [{"downlink": name, "reason": reason} for reason in known] for kind, known in reasons.items()}
    for kind in (events.DownlinkPropertiesDropped, events.DownlinkIncomplete):
        found[kind] = [{"downlink": name}]
    return found
