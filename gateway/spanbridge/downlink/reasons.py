"""Why messages of a downlink can be refused, as far as its settings tell: labels that are known at the start.

Of the MQTT broker's own reasons those that are usual are among them: it may answer with any of its codes.
"""

from __future__ import annotations

from spanbridge.core.downlinks import Away, Downlink
from spanbridge.core.events import Event
from spanbridge.downlink import events

FAULTY = ("downlink.maker", "downlink.forwarder")
"""Where a fault of ours can be met, beside telemetry."""
_LATER = ("quota_exceeded", "not_authorized", "unspecified_error")
_NEVER = ("packet_too_large", "bad_property", "connection_closed")


def known_series(downlink: Downlink) -> dict[type[Event], list[dict[str, str]]]:
    """The labels with which each event of ``downlink`` can happen, for counters that stand at 0 from the start."""
    retried = ("no_matching_subscribers",) if downlink.away is Away.RETRY else ()
    reasons: dict[type[Event], tuple[str, ...]] = {
        events.DownlinkRejected: ("no_topic", "bad_topic", "malformed", "internal", *_NEVER),
        events.DownlinkDropped: ("expired",),
        events.DownlinkNacked: ("order", "internal", *_LATER, *retried),
        events.DownlinkParked: (*_LATER, *retried),
    }
    name = downlink.name
    found = {kind: [{"downlink": name, "reason": reason} for reason in known] for kind, known in reasons.items()}
    for kind in (events.DownlinkPropertiesDropped, events.DownlinkIncomplete):
        found[kind] = [{"downlink": name}]
    return found
