"""The export of both signals: its tasks and connections, from start to shutdown."""

from __future__ import annotations

import asyncio
import contextlib

from spanbridge.ports import Reporter
from spanbridge.telemetry.env import OtlpSettings, Signal
from spanbridge.telemetry.metrics.meter import HotReader
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
        frame: RequestFrame,
        reader: HotReader | None,
    ) -> None:
        self._plan = plan
        self._reporter = reporter
        self._closing = asyncio.Event()
        self._transports: list[Transport] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._spans = self._make_spans(buffer, frame) if buffer is not None else None
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

    def _make_spans(self, buffer: SpanBuffer, frame: RequestFrame) -> SpanExporter:
        delivery = self._delivery("traces", self._plan.traces_to, self._plan.span_timeout, _GIVE_UP_AFTER)
        return SpanExporter(buffer, frame, delivery, delay=self._plan.span_delay)

    def _make_metrics(self, reader: HotReader) -> MetricExporter:
        from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics  # noqa: PLC0415

        def encode() -> tuple[bytes, int]:
            data = reader.read()
            metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
            return encode_metrics(data).SerializeToString(), sum(len(m.data.data_points) for m in metrics)

        plan = self._plan
        delivery = self._delivery("metrics", plan.metrics_to, plan.metric_timeout, plan.metric_interval)
        return MetricExporter(encode, delivery, interval=plan.metric_interval)

    def _delivery(self, signal: Signal, to: OtlpSettings | None, timeout: float, give_up_after: float) -> RequestSender:
        transport = ConsoleTransport(signal) if to is None else create_transport(to)
        self._transports.append(transport)
        return RequestSender(signal, transport, self._reporter, timeout, give_up_after, self._closing)
