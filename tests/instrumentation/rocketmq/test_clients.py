"""Several clients, several instrumentations, some of each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from rocketmq import ClientConfiguration, Message, Producer

from spanbridge_instrumentation.rocketmq import RocketMQInstrumentor

from .conftest import Recorded, message, parent_of

pytestmark = pytest.mark.brokers

Instrument = Callable[..., RocketMQInstrumentor]


@pytest.fixture
def other(configuration: ClientConfiguration) -> Any:
    producer = Producer(configuration)
    producer.startup()
    yield producer
    producer.shutdown()


def test_two_clients(producer: Producer, other: Producer, instrumented: Recorded, shared_topic: str) -> None:
    producer.send(message(shared_topic))
    other.send(message(shared_topic))
    clients = [dict(span.attributes or {})["messaging.client.id"] for span in instrumented.spans("send")]
    assert clients == [producer.client_id, other.client_id]


def test_one_of_two(
    producer: Producer, other: Producer, recorded: Recorded, instrument: Instrument, shared_topic: str
) -> None:
    instrumentor = RocketMQInstrumentor()
    instrumentor.instrument_client(other, **recorded.providers)
    producer.send(message(shared_topic))
    other.send(message(shared_topic))
    assert len(recorded.spans("send")) == 1
    instrument()
    instrumentor.uninstrument_client(other)
    other.send(message(shared_topic))
    assert len(recorded.spans("send")) == 1
    instrumentor.reset_client(other)
    producer.send(message(shared_topic))
    other.send(message(shared_topic))
    assert len(recorded.spans("send")) == 3


def test_uninstrument_ends_single_clients_too(producer: Producer, recorded: Recorded, shared_topic: str) -> None:
    plain = Producer.send
    RocketMQInstrumentor().instrument_client(producer, **recorded.providers)
    RocketMQInstrumentor().uninstrument()
    assert Producer.send is plain
    producer.send(message(shared_topic))
    assert recorded.spans() == []


def test_an_unknown_option_is_told(producer: Producer) -> None:
    with pytest.raises(TypeError, match="send_hok"):
        RocketMQInstrumentor().instrument_client(producer, send_hok=None)
    with pytest.raises(TypeError, match="Message"):
        RocketMQInstrumentor().instrument_client(Message())


def test_twice(producer: Producer, instrument: Instrument, recorded: Recorded, shared_topic: str) -> None:
    instrumentor = instrument()
    instrument()
    instrumentor.instrument_client(producer, **recorded.providers)
    producer.send(message(shared_topic))
    assert len(recorded.spans("send")) == 1
    assert recorded.total("messaging.client.sent.messages") == 1


def test_uninstrument_in_the_middle(
    producer: Producer, instrument: Instrument, recorded: Recorded, shared_topic: str
) -> None:
    plain = Producer.send
    instrumentor = instrument()
    bound = producer.send
    future = producer.send_async(message(shared_topic))
    instrumentor.uninstrument()
    assert Producer.send is plain
    future.result(30)
    assert len(recorded.wait("send")) == 1
    bound(message(shared_topic))
    producer.send(message(shared_topic))
    assert len(recorded.spans("send")) == 1


def test_another_wrapper_on_top(
    producer: Producer, instrument: Instrument, recorded: Recorded, shared_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrumentor = instrument()
    ours = Producer.send

    def theirs(producer: Producer, sent: Message) -> Any:
        return ours(producer, sent)

    monkeypatch.setattr(Producer, "send", theirs)
    producer.send(message(shared_topic))
    instrumentor.uninstrument()
    producer.send(message(shared_topic))
    assert len(recorded.spans("send")) == 1


def test_subclasses(configuration: ClientConfiguration, instrumented: Recorded, shared_topic: str) -> None:
    class Outbox(Producer):  # type: ignore[misc]
        def send(self, sent: Message, transaction: Any = None) -> Any:
            with instrumented.tracer.start_as_current_span("outbox"):
                return super().send(sent, transaction)

    outbox = Outbox(configuration)
    outbox.startup()
    try:
        outbox.send(message(shared_topic))
        outbox.send(sent=message(shared_topic))
    finally:
        outbox.shutdown()
    first, second = instrumented.spans("send")
    assert parent_of(first) != parent_of(second)
    assert {parent_of(first), parent_of(second)} == {
        span.context.span_id for span in instrumented.spans() if span.name == "outbox"
    }


def test_what_is_unanswered_at_the_shutdown(
    configuration: ClientConfiguration, instrumented: Recorded, shared_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = Producer(configuration)
    producer.startup()
    never: Future[Any] = Future()
    monkeypatch.setattr(producer.rpc_client, "send_message_async", lambda *_, **__: never)
    sent = message(shared_topic)
    producer.send_async(sent)
    assert instrumented.spans("send") == []
    producer.shutdown()
    attributes = instrumented.only("send").attributes
    assert attributes is not None
    assert attributes["error.type"] == "shutdown"
    assert instrumented.total("messaging.client.sent.messages", error_type="shutdown") == 1
    assert sent.properties == {}
    never.set_exception(TimeoutError())
    assert len(instrumented.spans("send")) == 1


def test_the_clients_own_metrics_stay_their_own(producer: Producer, instrumented: Recorded, shared_topic: str) -> None:
    producer.send(message(shared_topic))
    data = instrumented.reader.get_metrics_data()
    assert data is not None
    scopes = {scope.scope.name for resource in data.resource_metrics for scope in resource.scope_metrics}
    assert scopes == {"spanbridge_instrumentation.rocketmq"}


def test_a_version_that_is_not_supported(
    producer: Producer, instrument: Instrument, recorded: Recorded, shared_topic: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("spanbridge_instrumentation.rocketmq._instruments_any", ("rocketmq-python-client >= 99",))
    RocketMQInstrumentor().instrument(skip_dep_check=True, **recorded.providers)
    producer.send(message(shared_topic))
    assert recorded.spans() == []
    assert "rocketmq-python-client is not instrumented" in caplog.text
