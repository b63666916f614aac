"""What telemetry needs to know from the configuration and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from opentelemetry.sdk.resources import Resource

from spanbridge import __version__
from spanbridge.telemetry.env import (
    OtlpSettings,
    check_sampler,
    disabled,
    exporter_kind,
    milliseconds,
    number,
    otlp_settings,
    resource_attributes,
)

_BATCH_SPANS = 2048
_INSTANCE = "service.instance.id"
_UNNAMED = "unknown_service"  # what the SDK says where nobody gave a name


class Settings(Protocol):
    """What the configuration says about telemetry."""

    @property
    def service_name(self) -> str | None:
        """``service.name``; None leaves it to OTEL_SERVICE_NAME."""

    @property
    def resource(self) -> Mapping[str, str]:
        """Further resource attributes."""

    @property
    def traces(self) -> bool:
        """Whether to make spans at all."""

    @property
    def metrics(self) -> bool:
        """Whether to export metrics over OTLP."""

    @property
    def prometheus(self) -> bool:
        """Whether metrics are read as Prometheus text."""

    @property
    def log_format(self) -> Literal["auto", "text", "json"]:
        """How log lines look."""

    @property
    def log_level(self) -> Literal["debug", "info", "warning", "error"]:
        """The least severe level logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Settings with their defaults, for use without a configuration file."""

    service_name: str | None = None
    resource: Mapping[str, str] = field(default_factory=dict)
    traces: bool = True
    metrics: bool = True
    prometheus: bool = True
    log_format: Literal["auto", "text", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """What is exported, where and how often. Kinds are ``otlp``, ``console`` or ``none``; times are in seconds."""

    traces: str
    metrics: str
    pulled: bool
    traces_to: OtlpSettings | None
    metrics_to: OtlpSettings | None
    span_delay: float
    span_timeout: float
    batch_spans: int
    max_spans: int | None
    metric_interval: float
    metric_timeout: float


def export_plan(settings: Settings, environ: Mapping[str, str]) -> ExportPlan:
    """Put configuration and OTEL_* variables together. OTEL_SDK_DISABLED turns everything off.

    :raises TelemetryConfigError: a variable that cannot be used.
    """
    check_sampler(environ)
    traces = exporter_kind("traces", environ) if settings.traces else "none"
    metrics = exporter_kind("metrics", environ) if settings.metrics else "none"
    traces_to = otlp_settings("traces", environ) if traces == "otlp" else None
    metrics_to = otlp_settings("metrics", environ) if metrics == "otlp" else None
    queue = number("OTEL_BSP_MAX_QUEUE_SIZE", environ, 0)
    batch = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", environ, _BATCH_SPANS) or _BATCH_SPANS
    return ExportPlan(
        traces=traces,
        metrics=metrics,
        pulled=settings.prometheus and not disabled(environ),
        traces_to=traces_to,
        metrics_to=metrics_to,
        span_delay=milliseconds("OTEL_BSP_SCHEDULE_DELAY", environ, 5000) or 0.01,
        span_timeout=_timeout("OTEL_BSP_EXPORT_TIMEOUT", environ, traces_to),
        batch_spans=min(batch, queue or batch),  # the specification: less than or equal to the queue's size
        max_spans=queue or None,
        metric_interval=milliseconds("OTEL_METRIC_EXPORT_INTERVAL", environ, 60_000) or 60.0,
        metric_timeout=_timeout("OTEL_METRIC_EXPORT_TIMEOUT", environ, metrics_to),
    )


def resource(settings: Settings, environ: Mapping[str, str] = os.environ, instance: str = "") -> Resource:
    """The SDK's resource of this process: OTEL_RESOURCE_ATTRIBUTES and _SERVICE_NAME under what is configured.

    ``instance`` is the gateway's name: ``service.instance.id``, unless the environment or the configuration has one.

    :raises TelemetryConfigError: OTEL_RESOURCE_ATTRIBUTES cannot be read.
    """
    named = resource_attributes(environ)
    found = Resource.create()
    name = settings.service_name
    if name is None:
        detected = str(found.attributes.get("service.name", ""))
        name = "spanbridge" if detected.startswith(_UNNAMED) or not detected else detected
    ours = {"service.name": name}
    if instance and _INSTANCE not in named:
        ours[_INSTANCE] = instance
    if "service.version" not in found.attributes:
        ours["service.version"] = __version__
    return found.merge(Resource({**ours, **settings.resource}))


def _timeout(name: str, environ: Mapping[str, str], to: OtlpSettings | None) -> float:
    """The shorter of the exporter's and the processor's timeout, which is how the two add up in the SDK."""
    own = milliseconds(name, environ, 30_000) or 30.0
    return min(own, to.timeout or own) if to is not None else own
