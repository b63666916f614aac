"""Everything telemetry in one object: built outside the event loop, started and shut down on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from spanbridge import __version__
from spanbridge.ports import Link, Sink, Source
from spanbridge.telemetry import events, faults
from spanbridge.telemetry.log import lines
from spanbridge.telemetry.log.reporter import EventReporter
from spanbridge.telemetry.metrics import process, prometheus
from spanbridge.telemetry.metrics.downlink import DownlinkMetrics
from spanbridge.telemetry.metrics.hot import HotCounter
from spanbridge.telemetry.metrics.messages import MessageMetrics
from spanbridge.telemetry.metrics.meter import Instruments, MetricReader, Reading
from spanbridge.telemetry.metrics.points import Metric, MetricScope
from spanbridge.telemetry.otlp.buffer import SpanBuffer
from spanbridge.telemetry.otlp.exports import Exports
from spanbridge.telemetry.otlp.temporality import preferred_temporality
from spanbridge.telemetry.peer import Peer
from spanbridge.telemetry.settings import ExportPlan, Settings, TelemetrySettings, export_plan, resource
from spanbridge.telemetry.spans import Tracer
from spanbridge.telemetry.spans.hop import SCHEMA_URL

_SCOPE = MetricScope("spanbridge", __version__, SCHEMA_URL)
_BUFFER_BYTES = 16 * 1024 * 1024
_BATCH_BYTES = 3 * 1024 * 1024  # gRPC receivers refuse more than 4 MiB unless told otherwise
_LOG_INTERVAL = 10.0
_FLUSH_PERIOD = 2.0
"""Seconds between two looks at what the log holds back."""


class Load(Protocol):
    """What gauges show of the uplink."""

    @property
    def in_flight(self) -> int:
        """Messages received and neither acked nor nacked."""

    @property
    def paused(self) -> bool:
        """Whether MQTT is not read, since as much is held as may be."""

    def oldest_age(self) -> float | None:
        """Seconds since the oldest of them arrived; 0 or None when there is none."""


DownlinkReading = tuple[str, int, float, bool]
"""A downlink's name, messages in flight, age of the oldest in seconds, and whether it is paused."""


class DownlinkLoads(Protocol):
    """What gauges show of the downlinks."""

    def readings(self) -> Sequence[DownlinkReading]:
        """Each downlink's numbers now."""


class Telemetry:
    """Tracer, metrics, reporter, logging and their export. One per process.

    ``source`` and ``target`` describe the MQTT broker and RocketMQ in spans and metrics, ``instance`` is the
    gateway's name. ``worker`` is the process's number where the gateway has several: log lines have it.

    :raises TelemetryConfigError: an OTEL_* variable cannot be used, or a certificate or key cannot be read.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        source: Peer | None = None,
        target: Peer | None = None,
        instance: str = "",
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        worker: int | None = None,
    ) -> None:
        settings = settings or TelemetrySettings()
        lines.configure(settings.log_format, settings.log_level, worker)
        self._plan = export_plan(settings, environ)
        self.resource = resource(settings, environ, instance)
        self._buffer = _buffer(self._plan)
        self.tracer = Tracer(self._buffer)
        self.metrics = MessageMetrics(source, target)
        self.downlink_metrics = DownlinkMetrics(self.metrics.convention, target, source)
        self.instruments = Instruments()
        self._pulled = self.instruments.reader() if self._plan.pulled else None
        self._pushed = self._push_reader(environ)
        self._reporter = EventReporter(export=self._export_counter, interval=_LOG_INTERVAL, clock=clock)
        self._register_metrics()
        self._declare_events()
        self._exports = self._make_exports()
        self._flusher: asyncio.Task[None] | None = None

    @property
    def reporter(self) -> EventReporter:
        """Counts and logs internal events."""
        return self._reporter

    async def start(
        self,
        uplink: Load | None = None,
        sources: Sequence[Source[Any]] = (),
        sink: Sink[Any] | None = None,
        downlinks: DownlinkLoads | None = None,
    ) -> None:
        """Start exporting; what is handed over is shown in gauges."""
        self._register_gauges(uplink, sources, sink)
        if downlinks is not None:
            self._register_downlinks(downlinks)
        self._exports.start()
        self._flusher = asyncio.create_task(self._flush_forever(), name="flush-log")

    async def shutdown(self, deadline: float) -> None:
        """Send and log what is left, within ``deadline`` seconds. Idempotent."""
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flusher
        await self._exports.shutdown(deadline)
        self._reporter.flush(everything=True)

    def prometheus(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics now, as text for the given Accept header, and its Content-Type."""
        return self.exposition(self.read(), accept)

    def read(self) -> list[Metric]:
        """All metrics now; none where nobody is to read them."""
        return [] if self._pulled is None else self._pulled.read()

    def exposition(self, metrics: Sequence[Metric], accept: str = "") -> tuple[bytes, str]:
        """These metrics as text for the given Accept header, and its Content-Type."""
        content_type = prometheus.content_type(accept)
        openmetrics = content_type == prometheus.OPENMETRICS
        if self._pulled is None:
            return b"# EOF\n" if openmetrics else b"", content_type
        return prometheus.prometheus_text(
            metrics, self.resource.attributes, _SCOPE, openmetrics=openmetrics
        ), content_type

    def gauge(self, name: str, read: Callable[[], Reading], *, unit: str = "", description: str = "") -> None:
        """Export one more gauge: ``read`` returns a number or (number, attributes) pairs; quick."""
        if self._measured:
            self.instruments.gauge(name, read, unit=unit, description=description)

    def flush_log(self) -> None:
        """Log what is held back, all of it: what happened before a stop should stand before it."""
        self._reporter.flush(everything=True)

    def log_fatal(self, text: str) -> None:
        """Say why the process ends."""
        logging.getLogger("spanbridge").error("%s", text)

    @property
    def _measured(self) -> bool:
        return self._pulled is not None or self._pushed is not None

    def _make_exports(self) -> Exports:
        return Exports(
            self._plan,
            self._reporter,
            buffer=self._buffer,
            reader=self._pushed,
            resource=self.resource,
            scope=_SCOPE,
        )

    def _push_reader(self, environ: Mapping[str, str]) -> MetricReader | None:
        if self._plan.metrics == "none":
            return None
        return self.instruments.reader(preferred_temporality(environ))

    def _export_counter(self, counter: HotCounter) -> None:
        if self._measured:
            self.instruments.counter(counter)

    def _register_metrics(self) -> None:
        for counter in (*self.metrics.counters, *self.downlink_metrics.counters):
            self._export_counter(counter)
        for histogram in self.metrics.histograms:
            self.instruments.histogram(histogram)
        if self._measured:
            process.register(self.instruments)
        buffer = self._buffer
        if buffer is not None:
            description = "Encoded spans that wait for the exporter."
            self.gauge("spanbridge.telemetry.buffer", lambda: buffer.bytes, unit="By", description=description)

    def _declare_events(self) -> None:
        for signal, kind in (("traces", self._plan.traces), ("metrics", self._plan.metrics)):
            if kind != "none":
                reasons = ("buffer_full", "rejected", "shutdown")
                rows = [{"signal": signal, "reason": reason} for reason in reasons]
                self._reporter.declare(events.TelemetryDropped, *rows)
                self._reporter.declare(events.ReceiverWarned, {"signal": signal})

    def _register_gauges(self, uplink: Load | None, sources: Sequence[Source[Any]], sink: Sink[Any] | None) -> None:
        if uplink is not None:
            load = uplink
            text = "Messages received and not yet acknowledged."
            self.gauge("spanbridge.in_flight", lambda: load.in_flight, unit="{message}", description=text)
            text = "Time since the oldest unacknowledged message arrived; 0 when there is none."
            name = "spanbridge.oldest_unacknowledged.age"
            self.gauge(name, lambda: load.oldest_age() or 0.0, unit="s", description=text)
            text = "1 while MQTT is not read because the gateway holds as much as it may, else 0."
            self.gauge("spanbridge.paused", lambda: int(load.paused), description=text)
        text = "1 while the connection to the MQTT broker is up, else 0."  # a reload may bring the first one
        self.gauge("spanbridge.source.up", lambda: [_up(one) for one in sources], description=text)
        if sink is not None:
            target = sink
            text = "1 while RocketMQ can be reached, else 0."
            self.gauge("spanbridge.sink.up", lambda: int(target.status.link is Link.UP), description=text)

    def _register_downlinks(self, downlinks: DownlinkLoads) -> None:
        text = "RocketMQ messages received and not yet acknowledged, by downlink."
        name = "spanbridge.downlink.in_flight"
        self.gauge(name, lambda: _by_downlink(downlinks, lambda one: one[1]), unit="{message}", description=text)
        text = "Time since the oldest unacknowledged message of a downlink arrived; 0 when there is none."
        name = "spanbridge.downlink.oldest_unacknowledged.age"
        self.gauge(name, lambda: _by_downlink(downlinks, lambda one: one[2]), unit="s", description=text)
        text = "1 while a downlink receives nothing because it holds as much as it may, else 0."
        self.gauge(
            "spanbridge.downlink.paused", lambda: _by_downlink(downlinks, lambda one: int(one[3])), description=text
        )

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_PERIOD)
            with faults.told("the log could not be flushed"):
                self._exports.tell_dropped()
                self._reporter.flush()


def _by_downlink(
    downlinks: DownlinkLoads, read: Callable[[DownlinkReading], float]
) -> list[tuple[float, dict[str, str]]]:
    return [(read(reading), {"downlink": reading[0]}) for reading in downlinks.readings()]


def _up(source: Source[Any]) -> tuple[float, dict[str, str]]:
    return int(source.status.link is Link.UP), {"source": source.name}


def _buffer(plan: ExportPlan) -> SpanBuffer | None:
    if plan.traces == "none":
        return None
    return SpanBuffer(_BUFFER_BYTES, batch_spans=plan.batch_spans, batch_bytes=_BATCH_BYTES, max_spans=plan.max_spans)
