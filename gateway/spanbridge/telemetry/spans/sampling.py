"""Sampling decisions: the SDK's samplers, the common ones by a comparison instead of a call.

A decision of ``always_on``, ``always_off`` and ``traceidratio``, alone or parent-based, is one number per kind of
parent: trace ids whose low 64 bits are below it are sampled (``TraceIdRatioBased`` in the SDK). Every other sampler is
asked as the SDK asks it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.span import TraceState
from opentelemetry.util._importlib_metadata import entry_points

from spanbridge.telemetry.spans.bounds import ALWAYS, NEVER, Bounds

if TYPE_CHECKING:
    from spanbridge_context import TraceContext


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a sampler that had to be asked said. ``attributes`` go onto the span."""

    sampled: bool
    attributes: Mapping[str, Any]
    tracestate: str


def sampler_from_environment() -> sampling.Sampler:
    """The sampler that OTEL_TRACES_SAMPLER and _ARG name, also from the entry points ``opentelemetry_traces_sampler``.

    An unknown name or a bad argument is logged by the SDK, which falls back to ``parentbased_always_on``.
    """
    name = os.environ.get(OTEL_TRACES_SAMPLER, "").strip()
    named = bool(name) and name.lower() not in sampling._KNOWN_SAMPLERS
    for entry_point in entry_points(group="opentelemetry_traces_sampler", name=name) if named else ():
        sampler = entry_point.load()(os.environ.get(OTEL_TRACES_SAMPLER_ARG, ""))
        if isinstance(sampler, sampling.Sampler):
            return sampler
    return sampling._get_from_env_or_default()  # the SDK's own reading of the variables


def bounds(sampler: sampling.Sampler) -> Bounds | None:
    """The sampler as numbers, or None when it has to be asked."""
    alone = _bound(sampler)
    if alone is not None:
        return Bounds(alone, alone, alone)
    if type(sampler).should_sample is not sampling.ParentBased.should_sample:
        return None
    parts: dict[str, Any] = vars(sampler)
    local = (_bound(parts["_local_parent_sampled"]), _bound(parts["_local_parent_not_sampled"]))
    found = [_bound(parts[name]) for name in ("_root", "_remote_parent_sampled", "_remote_parent_not_sampled")]
    if None in found or local != (ALWAYS, NEVER):
        return None
    return Bounds(*(bound or 0 for bound in found))


def _bound(sampler: sampling.Sampler) -> int | None:
    decide = type(sampler).should_sample
    if decide is sampling.StaticSampler.should_sample:
        kept = vars(sampler)["_decision"] is sampling.Decision.RECORD_AND_SAMPLE
        return ALWAYS if kept else NEVER
    if decide is sampling.TraceIdRatioBased.should_sample and isinstance(sampler, sampling.TraceIdRatioBased):
        return sampler.bound
    return None


def ask(  # noqa: PLR0917
    sampler: sampling.Sampler,
    parent: SpanContext | None,
    trace_id: bytes,
    named: tuple[str, SpanKind],
    attributes: Mapping[str, Any],
    links: tuple[Link, ...] = (),
) -> Verdict:
    """Ask any sampler, with what the SDK's ``Tracer.start_span`` would hand over."""
    context = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
    result = sampler.should_sample(context, int.from_bytes(trace_id), *named, dict(attributes), links)
    sampled = result.decision is sampling.Decision.RECORD_AND_SAMPLE
    return Verdict(sampled, result.attributes or {}, header(result.trace_state))


def header(state: TraceState | None) -> str:
    """A trace state as it is written; "" for none."""
    return ",".join(f"{key}={value}" for key, value in state.items()) if state else ""


def remote_context(context: TraceContext) -> SpanContext:
    """What the OpenTelemetry API calls the device's context."""
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(context.flags),
        trace_state=TraceState.from_header([context.tracestate]) if context.tracestate else None,
    )
