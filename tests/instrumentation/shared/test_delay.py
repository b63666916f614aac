"""Delay until processing, and what is in the application's hands."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_current_span

from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.delivery import Delivery, Destination
from spanbridge_instrumentation._shared.processing import Processing
from spanbridge_instrumentation._shared.telemetry import Telemetry
from spanbridge_instrumentation.rocketmq.active import RECEIVED, Received, RocketMQClientState

LABELS = {"messaging.consumer.group.name": "g", "messaging.destination.name": "t"}


class Letter:
    """A message of some client library."""


class Meters:
    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.telemetry = Telemetry("test", "1", tracer_provider=self.tracers, meter_provider=self.provider)

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        metrics = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def in_flight(self) -> list[tuple[dict[str, Any], float]]:
        return [(dict(point.attributes), point.value) for point in self.points(semconv.METRIC_IN_FLIGHT)]

    def delivery(self, delay: float | None = None, *, held: bool = True) -> Delivery:
        destination = Destination("process t", dict(LABELS), since="born")
        return Delivery(self.telemetry, destination, delay=delay, held=held)


@pytest.fixture
def meters() -> Iterator[Meters]:
    meters = Meters()
    yield meters
    meters.tracers.shutdown()
    meters.provider.shutdown()


def test_a_delay_is_recorded_in_the_process_span(meters: Meters) -> None:
    with Processing((Letter(),), (meters.delivery(12.5),)) as span:
        assert get_current_span() is span
    (point,) = meters.points(semconv.METRIC_DELAY)
    assert (point.count, point.sum) == (1, 12.5)
    assert dict(point.attributes) == {**LABELS, "spanbridge.delivery.delay.since": "born"}
    assert point.explicit_bounds == semconv.DELAY_BUCKETS
    (exemplar,) = point.exemplars
    assert exemplar.span_id == span.get_span_context().span_id
    assert meters.points(semconv.METRIC_DELAY_NEGATIVE) == []


def test_a_message_from_the_future_is_0_and_counted(meters: Meters) -> None:
    with Processing((Letter(),), (meters.delivery(-3.0),)):
        pass
    (point,) = meters.points(semconv.METRIC_DELAY)
    assert (point.count, point.sum) == (1, 0)
    (counted,) = meters.points(semconv.METRIC_DELAY_NEGATIVE)
    assert counted.value == 1


def test_nothing_is_recorded_where_nothing_says(meters: Meters) -> None:
    with Processing((Letter(),), (meters.delivery(),)):
        pass
    assert meters.points(semconv.METRIC_DELAY) == []


def test_a_batch_counts_for_each_message_and_is_held_until_its_end(meters: Meters) -> None:
    letters = [Letter(), Letter()]
    with Processing(letters, [meters.delivery(1.0), meters.delivery(2.0)], batch=True):
        assert meters.in_flight() == [(LABELS, 2)]
        first = meters.points(semconv.METRIC_IN_FLIGHT_AGE)[0].value
        assert first > 0
        assert meters.points(semconv.METRIC_IN_FLIGHT_AGE)[0].value > first  # it grows while nothing happens
    assert meters.in_flight() == [(LABELS, 0)]
    assert meters.points(semconv.METRIC_IN_FLIGHT_AGE)[0].value == 0
    (point,) = meters.points(semconv.METRIC_DELAY)
    assert (point.count, point.sum) == (2, 3)


def test_what_fails_is_not_held_any_more(meters: Meters) -> None:
    with pytest.raises(ValueError, match="no"), Processing((Letter(),), (meters.delivery(),)):
        raise ValueError("no")
    assert meters.in_flight() == [(LABELS, 0)]


def hold(meters: Meters, letter: object) -> bool:
    received = Received(RocketMQClientState())
    received.hold(meters.telemetry.in_flight, LABELS)
    return RECEIVED.put(letter, received)


def settle(letter: list[Letter]) -> None:
    for _ in range(2):
        received = RECEIVED.get(letter[0])
        assert received is not None
        received.settle()


def let_go(letter: list[Letter]) -> None:
    letter.clear()
    gc.collect()


@pytest.mark.parametrize("end", [settle, let_go])
def test_a_polled_message_is_held_until_it_is_settled_or_gone(
    meters: Meters, end: Callable[[list[Letter]], None]
) -> None:
    letter = [Letter()]
    assert hold(meters, letter[0])
    with Processing((letter[0],), (meters.delivery(held=False),)) as _:
        assert meters.in_flight() == [(LABELS, 1)]
    assert meters.in_flight() == [(LABELS, 1)]
    end(letter)
    assert meters.in_flight() == [(LABELS, 0)]


def test_a_message_that_is_received_again_is_held_once(meters: Meters) -> None:
    letter = Letter()
    for _ in range(2):
        assert hold(meters, letter)
        assert meters.in_flight() == [(LABELS, 1)]
