"""Spans of the hot path, written straight into OTLP bytes: the same, field by field, as the SDK would have sent."""

from spanbridge.telemetry.spans.hop import Hop
from spanbridge.telemetry.spans.recipe import RecipeSpans
from spanbridge.telemetry.spans.trace import MessageTrace
from spanbridge.telemetry.spans.tracer import Tracer

__all__ = ["Hop", "MessageTrace", "RecipeSpans", "Tracer"]
