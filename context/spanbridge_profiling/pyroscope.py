"""Pyroscope's push API (``push/v1/push.proto``, Connect with JSON), with span profiles: one for each span."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from spanbridge_profiling.pprof import write_labelled
from spanbridge_profiling.profile import Profile, Sample
from spanbridge_profiling.tables import Labels, no_labels

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

PATH = "/push.v1.PusherService/Push"
PROFILE_ID = "pyroscope.profile.id"
"""The span attribute by which Grafana finds the profile of a span."""
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")
_KEPT = ("service.name", "service.namespace", "service.version", "deployment.environment.name", "host.name")
"""What of the resource becomes a label of the series: of few different values."""


def write_push(profile: Profile, resource: Mapping[str, object], labels: Labels = no_labels) -> bytes:
    """A ``PushRequest`` with one profile. Takes milliseconds: not for an event loop.

    Pyroscope makes a series of every combination of labels, except for ``profile_id`` and ``span_id``. So threads and
    trace identifiers are left out.
    """
    named = {name: str(resource[name]) for name in _KEPT if resource.get(name)}
    about = {"__name__": "process_cpu", **{_label(name): value for name, value in named.items()}}
    about.setdefault("service_name", "unknown_service")
    content = write_labelled(profile, lambda sample: _labels(sample, labels))
    series = {
        "labels": [{"name": name, "value": value} for name, value in sorted(about.items())],
        "samples": [{"rawProfile": base64.b64encode(content).decode()}],
    }
    return json.dumps({"series": [series]}).encode()


def _labels(sample: Sample, labels: Labels) -> dict[str, str]:
    found = {_label(name): value for name, value in labels(sample).items()}
    if sample.span_id:
        # Pyroscope reads the first today and is to read the second: pkg/pprof of its sources.
        found |= dict.fromkeys(("profile_id", "span_id"), f"{sample.span_id:016x}")
    return found


def _label(name: str) -> str:
    return _NO_LABEL.sub("_", name)


def mark_spans() -> bool:
    """Have every recorded span name its profile from now on; whether there is an SDK that can."""
    from opentelemetry import trace  # noqa: PLC0415 - where it is asked for only

    provider = trace.get_tracer_provider()
    if not hasattr(provider, "add_span_processor"):
        return False
    provider.add_span_processor(_marker())
    return True


def _marker() -> SpanProcessor:
    from opentelemetry.context import Context  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace import Span, SpanProcessor  # noqa: PLC0415

    class ProfileMarker(SpanProcessor):
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            identity = span.get_span_context()
            if identity is not None and span.is_recording():
                span.set_attribute(PROFILE_ID, f"{identity.span_id:016x}")

    return ProfileMarker()
