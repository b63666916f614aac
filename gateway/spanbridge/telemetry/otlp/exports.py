"""The export of both signals: its tasks and connections, from start to shutdown."""

from __future__ import annotations

import asyncio
import contextlib

from opentelemetry.sdk.resources import Resource

from spanbridge.ports import Reporter
from spanbridge.telemetry.env import OtlpSettings, Signal
from spanbridge.telemetry.metrics.meter import MetricReader
from spanbridge.telemetry.metrics.points import MetricScope
from spanbridge.telemetry.otlp.buffer import SpanBuffer
from spanbridge.telemetry.otlp.exporter import MetricExporter, RequestSender, SpanExporter
from spanbridge.telemetry.otlp.transport import ConsoleTransport, Transport, create_transport
from spanbridge.telemetry.settings import ExportPlan
from spanbridge.telemetry.spans.wire import RequestFrame

_GIVE_UP_AFTER = 300.0
"""Seconds after which a request that the receiver keeps refusing gives way to the next, as the Collector does."""


class Exports:
    """Built anywhere, since certificates are read; runs on the event loop on which :meth:`start` is called.

    :raises TelemetryConfigError: a certificate or key cannot be read.
    """

    def __init__(
        self,
        plan: ExportPlan,
        reporter: Reporter,
        *,
        buffer: SpanBuffer | None,
        reader: MetricReader | None,
        resource: Resource,
        scope: MetricScope,
    ) -> None:
        self._resource = resource
        self._scope = scope
        self._plan = plan
        self._reporter = reporter
        self._closing = asyncio.Event()
        self._transports: list[Transport] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._spans = self._make_spans(buffer) if buffer is not None else None
        self._metrics = self._make_metrics(reader) if reader is not None else None

    def start(self) -> None:
        """Begin exporting in the background."""
        if self._spans is not None:
            self._tasks.append(asyncio.create_task(self._spans.run(), name="export-traces"))
        if self._metrics is not None:
            self._tasks.append(asyncio.create_task(self._metrics.run(), name="export-metrics"))

    def tell_dropped(self) -> None:
        """Report spans that found the buffer full: the exporter may be held up with one request for minutes."""
        if self._spans is not None:
            self._spans.tell_dropped()

    async def shutdown(self, deadline: float) -> None:
        """Send what is left within ``deadline`` seconds; what remains then is counted as dropped. Idempotent."""
        self._closing.set()
        if self._spans is not None:
            self._spans.wake()
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=deadline)
            for task in pending:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks.clear()
        if self._spans is not None:
            self._spans.abandon()
        for transport in self._transports:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(transport.close(), 1.0)
        self._transports.clear()

    def _make_spans(self, buffer: SpanBuffer) -> SpanExporter:
        resource, scope = self._resource, self._scope
        frame = RequestFrame(resource.attributes, resource.schema_url, scope.name, scope.version, scope.schema_url)
        delivery = self._delivery("traces", self._plan.traces_to, self._plan.span_timeout, _GIVE_UP_AFTER)
        return SpanExporter(buffer, frame, delivery, delay=self._plan.span_delay)

    def _make_metrics(self, reader: MetricReader) -> MetricExporter:
        from spanbridge.telemetry.otlp import encode_metrics  # noqa: PLC0415 - it loads the SDK's metrics

        def encode() -> tuple[bytes, int]:
            metrics = reader.read()
            points = sum(len(metric.points) for metric in metrics)
            return encode_metrics.encode(metrics, self._resource, self._scope), points

        plan = self._plan
        delivery = self._delivery("metrics", plan.metrics_to, plan.metric_timeout, plan.metric_interval)
        return MetricExporter(encode, delivery, interval=plan.metric_interval)

    def _delivery(self, signal: Signal, to: OtlpSettings | None, timeout: float, give_up_after: float) -> RequestSender:
        transport = ConsoleTransport(signal) if to is None else create_transport(to)
        self._transports.append(transport)
        return RequestSender(signal, transport, self._reporter, timeout, give_up_after, self._closing)
