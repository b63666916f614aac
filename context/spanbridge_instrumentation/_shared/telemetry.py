"""The tracer and the messaging instruments of one instrumentor."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter, get_meter_provider
from opentelemetry.trace import TracerProvider, get_tracer
from opentelemetry.util.types import AttributeValue

from . import semconv
from .inflight import InFlight

Attributes = Mapping[str, AttributeValue]
_Key = frozenset[tuple[str, AttributeValue]]
_MOST_KEYS = 512


class Record(Protocol):
    """Records a duration in seconds in a histogram."""

    def __call__(self, amount: float, attributes: Attributes, context: Context | None = None, /) -> None: ...


class Count(Protocol):
    """Adds to a counter."""

    def __call__(self, amount: int, attributes: Attributes, /) -> None: ...


class _Total:
    """A counter that adds here and is read when metrics are collected: a tenth of the cost of the SDK's ``add``.

    What is exported is the same monotonic sum. docs/adr/0085 has the measurement.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[_Key, int] = {}
        self._keys: dict[int, tuple[Attributes, _Key]] = {}

    def add(self, amount: int, attributes: Attributes) -> None:
        # Instrumentors hand over the same objects again and again, which are not to be changed.
        known = self._keys.get(id(attributes))
        if known is not None and known[0] is attributes:
            key = known[1]
        else:
            key = frozenset(attributes.items())
            if len(self._keys) >= _MOST_KEYS:
                self._keys = {}
            self._keys[id(attributes)] = (attributes, key)
        with self._lock:
            self._values[key] = self._values.get(key, 0) + amount

    def observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            values = list(self._values.items())
        return [Observation(value, dict(key)) for key, value in values]


@dataclass(frozen=True, slots=True)
class _Observed:
    """What is kept here and read when metrics are collected."""

    sent: _Total = field(default_factory=_Total)
    consumed: _Total = field(default_factory=_Total)
    negative: _Total = field(default_factory=_Total)
    in_flight: InFlight = field(default_factory=InFlight)


# An SDK keeps the first callback given for an instrument: who gets the same meter later must count in the same place.
_counters: weakref.WeakKeyDictionary[Meter, _Observed] = weakref.WeakKeyDictionary()
# Before there is a global provider, each request for its meter brings another stand-in for the one meter to come.
_global_counters: dict[str, _Observed] = {}
_counters_lock = threading.Lock()


def _observed_of(meter: Meter, scope: str, provider: MeterProvider | None) -> _Observed:
    """What is observed through this meter."""
    is_global = provider is None or provider is get_meter_provider()
    with _counters_lock:
        found = _counters.get(meter)
        if found is None and is_global:
            found = _global_counters.get(scope)
        if found is None:
            found = _observed(meter)
        _counters[meter] = found
        if is_global:
            _global_counters.setdefault(scope, found)
        return found


def _observed(meter: Meter) -> _Observed:
    found = _Observed()
    meter.create_observable_counter(
        semconv.METRIC_SENT,
        [found.sent.observe],
        unit="{message}",
        description="Number of messages producer attempted to send to the broker.",
    )
    meter.create_observable_counter(
        semconv.METRIC_CONSUMED,
        [found.consumed.observe],
        unit="{message}",
        description="Number of messages that were delivered to the application.",
    )
    meter.create_observable_counter(
        semconv.METRIC_DELAY_NEGATIVE,
        [found.negative.observe],
        unit="{message}",
        description="Messages from the future: the clocks of two machines differ. Their delay is recorded as 0.",
    )
    meter.create_observable_gauge(
        semconv.METRIC_IN_FLIGHT,
        [found.in_flight.observe_count],
        unit="{message}",
        description="Messages handed to the application that it is not done with.",
    )
    meter.create_observable_gauge(
        semconv.METRIC_IN_FLIGHT_AGE,
        [found.in_flight.observe_age],
        unit="s",
        description="Time since the oldest of them was handed over; 0 when there is none.",
    )
    return found


class Telemetry:
    """Tracer, the four ``messaging.*`` instruments and those of delay, made once for each pair of providers.

    ``attributes`` of the recording methods are metric labels: the caller keeps them few and of low cardinality, and
    adds ``error.type`` to them where something failed. Durations are in seconds.
    ``context`` is the span's, where that is not current: exemplars point to it.

    ``operated`` records an operation that moves no message to count (a settlement, an empty receive), ``processed`` one
    ``process`` operation. ``consumed`` counts messages that were handed to the application: once a delivery, at
    ``receive`` or at ``process``.
    """

    __slots__ = ("_delays", "_observed", "consumed", "in_flight", "operated", "processed", "tracer")

    def __init__(
        self,
        scope: str,
        version: str,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self.tracer = get_tracer(scope, version, tracer_provider, schema_url=semconv.SCHEMA_URL)
        meter = get_meter(scope, version, meter_provider, schema_url=semconv.SCHEMA_URL)
        # Bound once: every message calls them.
        self.operated: Final[Record] = meter.create_histogram(
            semconv.METRIC_OPERATION_DURATION,
            unit="s",
            description="Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS,
        ).record
        self.processed: Final[Record] = meter.create_histogram(
            semconv.METRIC_PROCESS_DURATION,
            unit="s",
            description="Duration of processing operation.",
            explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS,
        ).record
        self._delays = meter.create_histogram(
            semconv.METRIC_DELAY,
            unit="s",
            description="Time from a message's birth (or arrival) to the start of its processing.",
            explicit_bucket_boundaries_advisory=semconv.DELAY_BUCKETS,
        )
        self._observed = _observed_of(meter, scope, meter_provider)
        self.consumed: Final[Count] = self._observed.consumed.add
        self.in_flight = self._observed.in_flight

    def sent(
        self, seconds: float, attributes: Attributes, *, messages: int = 1, context: Context | None = None
    ) -> None:
        """One send operation ended: its duration, and the messages that it attempted to send."""
        self.operated(seconds, attributes, context)
        self._observed.sent.add(messages, attributes)

    def delayed(self, seconds: float, attributes: Attributes, context: Context | None = None) -> None:
        """The processing of one message begins, so long after it was sent. Negative where clocks differ: that is 0."""
        if seconds < 0:
            self._observed.negative.add(1, attributes)
            seconds = 0.0
        self._delays.record(seconds, attributes, context)
