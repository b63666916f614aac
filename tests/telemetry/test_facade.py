"""The one object that the app uses."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from spanbridge.ports import Link, PeerStatus, Sink, Source
from spanbridge.telemetry import Telemetry, TelemetrySettings
from spanbridge.telemetry.metrics import hot
from spanbridge.telemetry.metrics.hot import HotCounter, HotHistogram
from spanbridge.telemetry.metrics.meter import Instruments, Temporality
from spanbridge.telemetry.metrics.points import MetricScope
from spanbridge.telemetry.otlp.encode_metrics import encode

pytestmark = pytest.mark.anyio


@dataclass
class Peerlike:
    name: str
    link: Link

    @property
    def status(self) -> PeerStatus:
        return PeerStatus(self.name, self.link, 0, None, {})


@dataclass
class Load:
    in_flight: int = 12
    paused: bool = False
    age: float | None = None
    asked: list[str] = field(default_factory=list)

    def oldest_age(self) -> float | None:
        return self.age


def value(telemetry: Telemetry, start: str) -> list[str]:
    lines = telemetry.prometheus()[0].decode().splitlines()
    return [line.rpartition(" ")[2] for line in lines if line.startswith(start) and not line.startswith("#")]


async def test_gauges_show_what_was_handed_over() -> None:
    telemetry = Telemetry(environ={})
    load = Load()
    sources = [Peerlike("one", Link.UP), Peerlike("two", Link.BACKOFF)]
    sink = Peerlike("rmq", Link.CONNECTING)
    await telemetry.start(load, cast("list[Source]", sources), cast("Sink", sink))
    assert value(telemetry, "spanbridge_in_flight") == ["12"]
    assert value(telemetry, "spanbridge_oldest_unacknowledged_age_seconds") == ["0.0"]
    assert value(telemetry, "spanbridge_source_up") == ["1", "0"]
    assert value(telemetry, "spanbridge_sink_up") == ["0"]
    assert value(telemetry, "spanbridge_paused") == ["0"]
    load.age, load.paused, sink.link = 2.5, True, Link.UP
    assert value(telemetry, "spanbridge_paused") == ["1"]
    assert value(telemetry, "spanbridge_oldest_unacknowledged_age_seconds") == ["2.5"]
    assert value(telemetry, "spanbridge_sink_up") == ["1"]
    await telemetry.shutdown(1)
    await telemetry.shutdown(1)


async def test_a_source_that_a_reload_brings_is_shown() -> None:
    telemetry = Telemetry(environ={})
    sources: list[Peerlike] = []
    await telemetry.start(Load(), cast("list[Source]", sources))
    assert value(telemetry, "spanbridge_source_up") == []
    sources.append(Peerlike("one", Link.UP))
    assert value(telemetry, "spanbridge_source_up") == ["1"]
    await telemetry.shutdown(1)


class Downlinks:
    def readings(self) -> list[tuple[str, int, float, bool]]:
        return [("commands", 3, 1.5, True), ("config", 0, 0.0, False)]


async def test_both_directions_share_the_conventions_metrics_and_downlinks_have_gauges_of_their_own() -> None:
    telemetry = Telemetry(environ={})
    await telemetry.start(downlinks=Downlinks())
    assert value(telemetry, 'spanbridge_downlink_in_flight{downlink="commands"') == ["3"]
    assert value(telemetry, "spanbridge_downlink_oldest_unacknowledged_age_seconds") == ["1.5", "0.0"]
    assert value(telemetry, "spanbridge_downlink_paused") == ["1", "0"]
    telemetry.metrics.consumed("plant/#", 2)
    telemetry.downlink_metrics.declare("commands", "gw", "devices/{key}")
    telemetry.downlink_metrics.consumed("commands", "gw", 5)
    telemetry.downlink_metrics.published("devices/{key}", 0.1, 4)
    telemetry.downlink_metrics.context("valid")
    assert sorted(value(telemetry, "messaging_client_consumed_messages_total")) == ["2", "5"]
    assert value(telemetry, "messaging_client_sent_messages_total") == ["4"]
    assert value(telemetry, "spanbridge_downlink_context_total") == ["1"]
    await telemetry.shutdown(1)


def test_events_with_known_labels_stand_at_zero_from_the_start() -> None:
    environ = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}
    found = [line for line in Telemetry(environ=environ).prometheus()[0].decode().splitlines() if line[0] != "#"]
    dropped = [line for line in found if line.startswith("spanbridge_telemetry_dropped_total{")]
    assert len(dropped) == 3
    assert all('otel_signal="traces"' in line and line.endswith(" 0") for line in dropped)


async def test_shutdown_without_start_is_fine() -> None:
    await Telemetry(environ={}).shutdown(1)


def test_the_end_of_the_process_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    Telemetry(TelemetrySettings(log_level="error"), environ={}).log_fatal("no route")
    assert (caplog.records[-1].levelno, caplog.messages[-1]) == (logging.ERROR, "no route")


def test_the_sdk_would_send_the_same() -> None:
    """Counters, gauges and histograms beside the SDK's own, as encoded requests."""
    provider_reader = InMemoryMetricReader()
    resource = Telemetry(environ={}).resource
    provider = MeterProvider([provider_reader], resource, shutdown_on_exit=False)
    meter = provider.get_meter("s", "1", "https://example.org/schema")
    theirs = meter.create_histogram("h", "s", "H.", explicit_bucket_boundaries_advisory=list(hot.DURATIONS))
    total = meter.create_counter("c", "{event}", "C.")
    meter.create_observable_gauge("g", [lambda _: [Observation(1.5, {"x": "y"})]], "By", "G.")
    instruments = Instruments()
    ours, counter = HotHistogram("h", "s", "H."), HotCounter("c", "{event}", "C.")
    instruments.histogram(ours)
    instruments.counter(counter)
    instruments.gauge("g", lambda: [(1.5, {"x": "y"})], unit="By", description="G.")
    for number in (0.0, 0.005, 0.0050001, 0.3, 10.0, 11.0):
        theirs.record(number, {"a": "b"})
        ours.record((("a", "b"),), number)
    total.add(3, {"reason": "r", "n": 1})
    counter.add((("reason", "r"), ("n", 1)), 3)
    data = provider_reader.get_metrics_data()
    assert data is not None
    found = encode(instruments.reader().read(), resource, MetricScope("s", "1", "https://example.org/schema"))
    expected = encode_metrics(data).SerializeToString()
    provider.shutdown()
    assert comparable(found) == comparable(expected)


def comparable(request: bytes) -> Any:
    """A request without its times, metrics by name."""
    found = MessageToDict(ExportMetricsServiceRequest.FromString(request))
    metrics = found["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    metrics.sort(key=lambda metric: metric["name"])
    for metric in metrics:
        for kind in ("sum", "gauge", "histogram"):
            for point in metric.get(kind, {}).get("dataPoints", ()):
                assert point.pop("timeUnixNano")
                point.pop("startTimeUnixNano", None)
                if "asInt" in point:
                    point["asDouble"] = float(point.pop("asInt"))
    return found


def test_a_delta_is_of_its_interval() -> None:
    instruments = Instruments()
    reader, other = instruments.reader(Temporality(counters_delta=True, histograms_delta=True)), instruments.reader()
    histogram, counter = HotHistogram("h", "s", ""), HotCounter("c", "1", "")
    instruments.histogram(histogram)
    instruments.counter(counter)
    found, starts = [], []
    for numbers in ((3.0, 0.1), (0.5,)):
        for number in numbers:
            histogram.record((), number)
            counter.add(())
        summed, distribution = (cast("Any", metric.points[0]) for metric in reader.read())
        found.append((distribution.minimum, distribution.maximum, distribution.count, summed.value))
        starts.append((summed.start_ns, summed.time_ns))
    assert found == [(0.1, 3.0, 2, 2), (0.5, 0.5, 1, 1)]
    assert starts[1][0] == starts[0][1]
    assert [metric.name for metric in reader.read()] == ["c"]  # nothing was recorded
    assert [cast("Any", metric.points[0]).start_ns > 0 for metric in other.read()] == [True, True]
    assert cast("Any", other.read()[0].points[0]).value == 3


def test_a_clock_that_was_set_back_makes_no_negative_durations() -> None:
    histogram = HotHistogram("h", "s", "")
    histogram.record((), -5.0)
    assert (histogram.series[()].sum, histogram.series[()].counts[0]) == (0.0, 1)


def test_two_counters_of_one_name_are_one() -> None:
    instruments = Instruments()
    first, second = HotCounter("c", "1", ""), HotCounter("c", "1", "")
    instruments.counter(first)
    instruments.counter(second)
    first.add((), 2)
    second.add((), 5)
    (metric,) = instruments.reader().read()
    assert [cast("Any", point).value for point in metric.points] == [2]


def test_a_gateway_without_otlp_metrics_does_not_load_what_only_they_need() -> None:
    code = """
import sys
from spanbridge.telemetry import Telemetry

telemetry = Telemetry(environ={})
telemetry.metrics.consumed("a", 1)
assert telemetry.prometheus()[0]
unwanted = ("opentelemetry.sdk.metrics", "opentelemetry.exporter", "opentelemetry.proto", "google", "grpc", "aiohttp")
print([name for name in unwanted if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
