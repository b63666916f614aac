"""Traces, metrics and internal events: what the gateway tells about itself (docs/telemetry.md)."""

from spanbridge.telemetry.facade import Telemetry
from spanbridge.telemetry.log.reporter import EventReporter, Recent
from spanbridge.telemetry.metrics.downlink import DownlinkMetrics
from spanbridge.telemetry.metrics.messages import MessageMetrics
from spanbridge.telemetry.peer import Peer
from spanbridge.telemetry.settings import Settings, TelemetrySettings
from spanbridge.telemetry.spans import Hop, MessageTrace, RecipeSpans, Tracer

__all__ = [
    "DownlinkMetrics",
    "EventReporter",
    "Hop",
    "MessageMetrics",
    "MessageTrace",
    "Peer",
    "Recent",
    "RecipeSpans",
    "Settings",
    "Telemetry",
    "TelemetrySettings",
    "Tracer",
]
