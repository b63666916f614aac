"""The one object that the app uses."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from opentelemetry.sdk.metrics import Histogram
from opentelemetry.sdk.metrics.export import AggregationTemporality

from spanbridge.ports import Link, PeerStatus, Sink, Source
from spanbridge.telemetry import Telemetry, TelemetrySettings
from spanbridge.telemetry.metrics import hot
from spanbridge.telemetry.metrics.hot import HotCounter, HotHistogram
from spanbridge.telemetry.metrics.meter import Instruments

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


async def test_shutdown_without_start_is_fine() -> None:
    await Telemetry(environ={}).shutdown(1)


def test_the_end_of_the_process_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    Telemetry(TelemetrySettings(log_level="error"), environ={}).log_fatal("no route")
    assert (caplog.records[-1].levelno, caplog.messages[-1]) == (logging.ERROR, "no route")


def test_histograms_count_as_the_sdk_does() -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    theirs = InMemoryMetricReader()
    provider = MeterProvider([theirs], shutdown_on_exit=False)
    instrument = provider.get_meter("x").create_histogram(
        "h", unit="s", explicit_bucket_boundaries_advisory=list(hot.DURATIONS)
    )
    instruments = Instruments(
        Telemetry(environ={}).resource, cast("Any", provider.get_meter("x"))._instrumentation_scope
    )
    ours = HotHistogram("h", "s", "")
    instruments.histogram(ours)
    reader = instruments.reader()
    instruments.gauge("other", lambda: 1)
    for number in (0.0, 0.005, 0.0050001, 0.3, 10.0, 11.0):
        instrument.record(number, {"a": "b"})
        ours.record((("a", "b"),), number)
    data = theirs.get_metrics_data()
    assert data is not None
    expected: Any = data.resource_metrics[0].scope_metrics[0].metrics[0]
    found: Any = reader.read().resource_metrics[0].scope_metrics[0].metrics[-1]
    provider.shutdown()
    instruments.shutdown()
    (left,), (right,) = found.data.data_points, expected.data.data_points
    assert (found.name, found.unit, found.data.aggregation_temporality) == (
        expected.name,
        expected.unit,
        expected.data.aggregation_temporality,
    )
    for name in ("attributes", "bucket_counts", "explicit_bounds", "count", "sum", "min", "max"):
        mine, his = getattr(left, name), getattr(right, name)
        assert (list(mine) if name in ("bucket_counts", "explicit_bounds") else mine) == (
            list(his) if name in ("bucket_counts", "explicit_bounds") else his
        ), name


def test_a_delta_s_extremes_are_of_its_interval() -> None:
    instruments = Instruments(Telemetry(environ={}).resource, _scope())
    reader = instruments.reader(preferred_temporality={Histogram: AggregationTemporality.DELTA})
    histogram = HotHistogram("h", "s", "")
    instruments.histogram(histogram)
    instruments.gauge("other", lambda: 1)
    found = []
    for numbers in ((3.0, 0.1), (0.5,)):
        for number in numbers:
            histogram.record((), number)
        (point,) = cast("Any", reader.read().resource_metrics[0].scope_metrics[0].metrics[-1].data).data_points
        found.append((point.min, point.max, point.count))
    instruments.shutdown()
    assert found == [(0.1, 3.0, 2), (0.5, 0.5, 1)]


def test_a_clock_that_was_set_back_makes_no_negative_durations() -> None:
    histogram = HotHistogram("h", "s", "")
    histogram.record((), -5.0)
    assert (histogram.series[()].sum, histogram.series[()].counts[0]) == (0.0, 1)


def test_two_counters_of_one_name_are_one() -> None:
    instruments = Instruments(Telemetry(environ={}).resource, _scope())
    reader = instruments.reader()
    first, second = HotCounter("c", "1", ""), HotCounter("c", "1", "")
    instruments.counter(first)
    instruments.counter(second)
    first.add((), 2)
    second.add((), 5)
    (metric,) = reader.read().resource_metrics[0].scope_metrics[0].metrics
    assert [point.value for point in cast("Any", metric.data).data_points] == [2]
    instruments.shutdown()


def _scope() -> Any:
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    return InstrumentationScope("s")
