"""What the instrumentors share, without any client library."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry import baggage, metrics, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, get_current
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util._once import Once

from spanbridge_context import TraceContext
from spanbridge_instrumentation import process
from spanbridge_instrumentation._shared import handlers, safety
from spanbridge_instrumentation._shared.baggage import extract_global, inject_global
from spanbridge_instrumentation._shared.context import incoming, outgoing
from spanbridge_instrumentation._shared.delivery import Delivery, Destination, Details
from spanbridge_instrumentation._shared.patching import Patches
from spanbridge_instrumentation._shared.processing import Processing
from spanbridge_instrumentation._shared.registry import MessageRegistry
from spanbridge_instrumentation._shared.telemetry import Telemetry


@dataclass
class Letter:
    """A message of some client library."""

    context: TraceContext | None = None
    box: str = "inbox"


class Recorded:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracers = provider
        self.telemetry = Telemetry("test", "1", tracer_provider=provider, meter_provider=self.meters)
        self.active = True

    def describe(self, letter: Letter, ambient: Context) -> Delivery | None:
        if not self.active:
            return None
        labels = {"messaging.system": "post"}
        return Delivery(
            self.telemetry,
            Destination(f"process {letter.box}", labels, {**labels, "messaging.destination.name": letter.box}),
            None if letter.context is None else incoming(letter.context, ambient),
            lambda: Details({}, {"box": letter.box}),
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        metrics = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    recorded = Recorded()
    monkeypatch.setattr(safety, "_told", set())
    handlers.register(Letter, recorded.describe)
    yield recorded
    handlers._handlers.pop(Letter)
    recorded.tracers.shutdown()
    recorded.meters.shutdown()


def mine(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the instrumentation logged: a RocketMQ client of another test may log its heartbeat meanwhile."""
    return [record for record in caplog.records if record.name == "spanbridge_instrumentation"]


def test_one_message(recorded: Recorded) -> None:
    sent = TraceContext.new().replace(tracestate="a=b", baggage="tenant=blue")
    with process(Letter(sent)) as span:
        assert trace.get_current_span() is span
        assert baggage.get_baggage("tenant") == "blue"
        assert outgoing(span.get_span_context()).baggage == "tenant=blue"
    (done,) = recorded.spans
    assert done.kind is SpanKind.CONSUMER
    assert done.parent is not None
    assert trace.format_span_id(done.parent.span_id) == sent.span_id
    assert [dict(link.attributes or {}) for link in done.links] == [{"box": "inbox"}]
    assert baggage.get_baggage("tenant") is None


def test_a_batch_even_of_one_is_linked_and_never_a_child(recorded: Recorded) -> None:
    letters = [Letter(TraceContext.new(), box) for box in ("a", "b", "b")] + [Letter()]
    with process(letters):
        pass
    with process(letters[1:3]):
        pass
    with process([letters[0]]):
        pass
    many, same, _ = recorded.spans
    assert [span.parent for span in recorded.spans] == [None, None, None]
    assert [len(span.links) for span in recorded.spans] == [3, 2, 1]
    assert [span.name for span in recorded.spans] == ["process", "process b", "process a"]
    assert [dict(span.attributes or {})["messaging.batch.message_count"] for span in recorded.spans] == [4, 2, 1]
    assert "messaging.destination.name" not in dict(many.attributes or {})
    assert dict(same.attributes or {})["messaging.destination.name"] == "b"
    assert sum(point.count for point in recorded.points("messaging.process.duration")) == 3


def test_nothing_to_process(recorded: Recorded) -> None:
    with process([]) as span:
        assert not span.is_recording()
    recorded.active = False
    with process(Letter()), process([Letter()]):
        pass
    recorded.active = True
    with suppress_instrumentation(), process(Letter()):
        pass
    assert recorded.spans == []


def test_unknown_messages_and_broken_handlers_are_told_once_and_the_block_runs(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    ran = 0
    for _ in range(3):
        with process(object()):
            ran += 1

    def broken(_: Any, _ambient: Context) -> Delivery:
        raise RuntimeError("bug")

    handlers.register(Letter, broken)
    for _ in range(3):
        with process(Letter()):
            ran += 1
    assert ran == 6
    assert [record.levelno for record in mine(caplog)] == [logging.WARNING, logging.WARNING]
    assert "no message of type builtins.object" in caplog.text


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyError("x"), "KeyError"),
        (TimeoutError(), "TimeoutError"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
        (SystemExit(0), None),
        (GeneratorExit(), None),
    ],
    ids=["exception", "timeout", "cancelled", "exit", "generator"],
)
def test_what_the_block_raises(recorded: Recorded, error: BaseException, kind: str | None) -> None:
    with pytest.raises(type(error)), process(Letter()):
        raise error
    (span,) = recorded.spans
    assert dict(span.attributes or {}).get("error.type") == kind
    assert span.status.status_code is (StatusCode.UNSET if kind is None else StatusCode.ERROR)
    (point,) = recorded.points("messaging.process.duration")
    assert point.attributes.get("error.type") == kind


def test_the_same_message_again_joins_another_starts_anew(recorded: Recorded) -> None:
    one, two = Letter(TraceContext.new()), Letter(TraceContext.new())
    with process(one) as outer:
        with process(one) as inner:
            assert inner is outer
        with process(two) as other:
            assert other is not outer
    with process(one) as again:
        assert again is not outer
    assert len(recorded.spans) == 3


def test_failure_without_an_exception(recorded: Recorded) -> None:
    delivery = recorded.describe(Letter(), get_current())
    assert delivery is not None
    processing = Processing((object(),), (delivery,))
    processing.start()
    processing.set_error("FAILURE", "the listener said so")
    processing.end()
    processing.end()
    (span,) = recorded.spans
    assert dict(span.attributes or {})["error.type"] == "FAILURE"
    assert sum(point.count for point in recorded.points("messaging.process.duration")) == 1


def test_a_provider_that_breaks_does_not_break_the_block(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("bug")

    monkeypatch.setattr(type(recorded.telemetry.tracer), "start_span", broken)
    with process(Letter()) as span:
        assert not span.is_recording()


def test_the_context_is_left_and_the_span_ended_whatever_breaks(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("bug")

    monkeypatch.setattr(type(recorded.telemetry), "processed", broken)
    with process(Letter()):
        pass
    assert len(recorded.spans) == 1
    monkeypatch.setattr(recorded.exporter, "export", broken)
    monkeypatch.setattr(SimpleSpanProcessor, "on_end", broken)
    with process(Letter()):
        pass
    assert not trace.get_current_span().get_span_context().is_valid


def test_an_exception_that_cannot_be_printed_is_the_one_that_is_raised(recorded: Recorded) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("bug")

    with pytest.raises(Mute), process(Letter()):
        raise Mute
    (span,) = recorded.spans
    assert dict(span.attributes or {})["error.type"].endswith("Mute")
    assert span.status.status_code is StatusCode.ERROR


def test_counts_before_there_is_a_global_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(metrics_internal, "_PROXY_METER_PROVIDER", metrics_internal._ProxyMeterProvider())
    made = [Telemetry("early", "1") for _ in range(2)]
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    made += [Telemetry("early", "1"), Telemetry("early", "1", meter_provider=provider)]
    for each in made:
        each.consumed(1, {})
    data = reader.get_metrics_data()
    assert data is not None
    points = [metric.data.data_points for metric in data.resource_metrics[0].scope_metrics[0].metrics]
    assert [point.value for each in points for point in each] == [4]
    provider.shutdown()


def test_counts_go_on_with_the_same_provider(recorded: Recorded) -> None:
    again = Telemetry("test", "1", tracer_provider=recorded.tracers, meter_provider=recorded.meters)
    threads = [
        threading.Thread(target=lambda each=each: [each.consumed(1, {"a": "b"}) for _ in range(500)])  # type: ignore[misc]
        for each in (recorded.telemetry, again)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (point,) = recorded.points("messaging.client.consumed.messages")
    assert (point.value, dict(point.attributes)) == (1000, {"a": "b"})
    recorded.telemetry.sent(0.1, {"a": "b"}, messages=3)
    assert [point.value for point in recorded.points("messaging.client.sent.messages")] == [3]
    data = recorded.reader.get_metrics_data()
    assert data is not None
    metric = next(m for m in data.resource_metrics[0].scope_metrics[0].metrics if m.name.endswith("consumed.messages"))
    assert (metric.unit, metric.data.is_monotonic) == ("{message}", True)


def test_contexts_go_over_and_back() -> None:
    there = TraceContext.new().replace(flags=3, tracestate="1a@b=x,c=d", baggage="k=v%20w")
    context = incoming(there, Context())
    back = outgoing(trace.get_current_span(context).get_span_context(), context)
    assert back == there
    assert baggage.get_baggage("k", context) == "v w"
    assert trace.get_current_span(context).get_span_context().is_remote


@pytest.mark.parametrize(
    "header", ["k=a%20b+c", "k=%C3%A9;secret;ttl=5,m=1", "k=a%2bb", "k=1,k=2", "k=,m=a=b", "k%20x=1", "a=b%FF"]
)
def test_baggage_goes_out_as_it_came(header: str) -> None:
    there = TraceContext.new().replace(baggage=header)
    context = incoming(there, Context())
    assert outgoing(trace.get_current_span(context).get_span_context(), context).baggage == header


def test_equal_keys_of_a_tracestate_stay() -> None:
    there = TraceContext.new().replace(tracestate="a=1,b@=2,a=3")
    context = incoming(there, Context())
    assert outgoing(trace.get_current_span(context).get_span_context(), context) == there


def test_changed_baggage_is_percent_encoded_and_the_rest_stays() -> None:
    context = incoming(TraceContext.new().replace(baggage="k=a%20b+c;p=1,m=%41"), Context())
    context = baggage.set_baggage("k", 'a b+c,;"é%', context)
    context = baggage.set_baggage("user name", "7", context)
    sent = outgoing(trace.get_current_span(context).get_span_context(), context).baggage
    assert sent == "k=a%20b+c%2C%3B%22%C3%A9%25,m=%41,user%20name=7"
    there = incoming(TraceContext.new().replace(baggage=sent), Context())
    assert baggage.get_baggage("k", there) == 'a b+c,;"é%'


def test_the_global_propagators_baggage_is_in_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    both = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    monkeypatch.setattr(propagate, "get_global_textmap", lambda: both)
    monkeypatch.setattr(propagate, "inject", both.inject)
    carrier = {"traceparent": TraceContext.new().traceparent, "baggage": "k%20x=a%20b+c;p,m=1"}
    base = baggage.set_baggage("here", "1", Context())
    context = extract_global(carrier, base)
    assert baggage.get_all(context) == {"here": "1", "k%20x": "a b+c", "m": "1"}
    assert inject_global(context)["baggage"] == "here=1,k%20x=a%20b+c;p,m=1"
    assert inject_global(extract_global(carrier, Context())) == carrier


class Library:
    def call(self, value: int) -> int:
        return value

    @classmethod
    def make(cls, value: int) -> tuple[str, int]:
        return cls.__name__, value


def doubled(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, value: original(self, 2 * value)


def test_patches_are_undone_and_not_doubled() -> None:
    before = Library.__dict__["call"]
    patches = Patches()
    assert patches.replace(Library, "call", doubled)
    assert patches.replace(Library, "call", doubled)
    assert patches.replace(Library, "make", doubled)
    assert not patches.replace(Library, "missing", doubled)
    assert (Library().call(2), Library.make(2)) == (4, ("Library", 4))
    patches.undo()
    assert Library.__dict__["call"] is before
    assert Library.make(2) == ("Library", 2)


def test_a_patch_that_somebody_removed_is_put_back() -> None:
    before = Library.__dict__["call"]
    patches = Patches()
    patches.replace(Library, "call", doubled)
    Library.call = before  # type: ignore[method-assign]
    patches.replace(Library, "call", doubled)
    assert Library().call(2) == 4
    patches.undo()
    assert Library.__dict__["call"] is before


def test_the_registry_forgets_with_the_message() -> None:
    registry: MessageRegistry[str] = MessageRegistry()
    one, two = Letter(), Letter()
    assert registry.put(one, "one")
    assert registry.put(two, "two")
    assert (registry.get(one), registry.get(two), registry.get(Letter())) == ("one", "two", None)
    del one
    gc.collect()
    assert len(registry) == 1
    assert not registry.put(5, "no weak references")


def test_options_from_the_environment(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(safety, "_told", set())
    monkeypatch.setenv("X_CHOICE", " W3C ")
    monkeypatch.setenv("X_NUMBER", "2.5")
    assert safety.choice("X_CHOICE", ("compact", "w3c"), "compact") == "w3c"
    assert safety.number("X_NUMBER", 1.0) == 2.5
    for wrong in ("many", "-1", "inf", "nan"):
        monkeypatch.setenv("X_NUMBER", wrong)
        assert safety.number("X_NUMBER", 1.0) == 1.0
    monkeypatch.setenv("X_CHOICE", "other")
    assert safety.choice("X_CHOICE", ("compact", "w3c"), "compact") == "compact"
    assert safety.number("X_UNSET", 1.0) == 1.0
    assert len(mine(caplog)) == 2
    with pytest.raises(ValueError, match="zero"):
        safety.number("X_NUMBER", 1.0, 0)
    with pytest.raises(ValueError, match="b3"):
        safety.choice("X_CHOICE", ("compact",), "compact", "b3")


def test_error_types() -> None:
    class Mine(Exception): ...

    assert safety.error_type(ValueError()) == "ValueError"
    assert safety.error_type(Mine()).endswith("test_error_types.<locals>.Mine")
