"""Which clients are instrumented, when, and how often."""

from __future__ import annotations

import gc
import inspect
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from opentelemetry.instrumentation import dependencies

from spanbridge_instrumentation.paho import PahoInstrumentor
from spanbridge_instrumentation.paho.pending import PENDING

METHODS = ["publish", "subscribe", "_handle_on_message", "_do_on_publish", "_do_on_disconnect", "message_callback_add"]


def originals() -> list[Any]:
    return [mqtt.Client.__dict__[name] for name in METHODS] + [mqtt.MQTTMessageInfo._set_as_published]


def test_uninstrument_gives_every_method_back(instrument: Any) -> None:
    before = originals()
    instrument()
    assert not any(now is then for now, then in zip(originals(), before, strict=True))
    PahoInstrumentor().uninstrument()
    assert originals() == before
    instrument()
    PahoInstrumentor().uninstrument()
    assert originals() == before


def test_clients_made_before(instrument: Any, recorded: Any, connect: Any, topic: str) -> None:
    arrived = threading.Event()
    client = connect(subscribe=topic, on_message=lambda *_: arrived.set())
    client.message_callback_add("unused/#", lambda *_: None)
    instrument()
    client.publish(topic, b"x", qos=1)
    assert arrived.wait(30)
    (send,), (process,) = recorded.sends(), recorded.processes()
    assert process.parent.span_id == send.context.span_id


def test_two_clients_at_once_do_not_mix(instrumented: Any, connect: Any, topic: str) -> None:
    count = 40
    done = threading.Semaphore(0)

    def answer(client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        client.publish(f"{topic}/done/{message.topic.rsplit('/', 1)[1]}", message.payload, qos=1)

    clients = [connect(subscribe=f"{topic}/{name}/+", on_message=answer) for name in ("a", "b")]
    connect(subscribe=f"{topic}/done/+", on_message=lambda *_: done.release())

    def publish(client: mqtt.Client, name: str) -> None:
        for number in range(count):
            client.publish(f"{topic}/{name}/{name}{number}", b"x", qos=number % 3)

    threads = [
        threading.Thread(target=publish, args=(client, name)) for client, name in zip(clients, "ab", strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(2 * count):
        assert done.acquire(timeout=30)
    sends, processes = instrumented.sends(4 * count), instrumented.processes(4 * count)
    by_id = {span.context.span_id: span for span in [*sends, *processes]}
    assert len(by_id) == 8 * count
    last = [span for span in processes if "/done/" in span.attributes["messaging.destination.name"]]
    for span in last:
        chain = [span]
        while chain[-1].parent is not None:
            chain.append(by_id[chain[-1].parent.span_id])
        names = {each.attributes["messaging.destination.name"].rsplit("/", 1)[1] for each in chain}
        assert (len(chain), len(names)) == (4, 1)
    assert len(PENDING) == 0


def test_instrumenting_twice_is_instrumenting_once(
    instrument: Any, recorded: Any, connect: Any, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    arrived = threading.Event()
    instrumentor = instrument()
    client = connect(subscribe=topic, on_message=lambda *_: arrived.set())
    with caplog.at_level(logging.ERROR, "opentelemetry"):
        instrumentor.instrument(**recorded.providers)
        instrumentor.instrument_client(client, **recorded.providers)
        instrumentor.instrument_client(client, **recorded.providers)
    client.publish(topic, b"x", qos=1)
    assert arrived.wait(30)
    recorded.processes()
    assert len(recorded.sends()) == len(recorded.processes()) == 1
    assert recorded.total("messaging.client.sent.messages") == 1
    assert recorded.total("messaging.client.consumed.messages") == 1


def test_one_client_alone(recorded: Any, connect: Any, topic: str) -> None:
    before = originals()
    instrumentor = PahoInstrumentor()
    one, other = connect(), connect()
    instrumentor.instrument_client(one, **recorded.providers)
    other.publish(topic, b"x", qos=1).wait_for_publish(5)
    one.publish(f"{topic}/one", b"x", qos=1).wait_for_publish(5)
    (send,) = recorded.sends()
    assert send.attributes["messaging.destination.name"] == f"{topic}/one"
    instrumentor.uninstrument_client(one)
    one.publish(topic, b"x", qos=1).wait_for_publish(5)
    assert len(recorded.sends()) == 1
    assert originals() == before


def test_uninstrument_ends_single_clients_too(
    recorded: Any, connect: Any, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = originals()
    client = connect()
    PahoInstrumentor().instrument_client(client, **recorded.providers)
    PahoInstrumentor().uninstrument()
    assert originals() == before
    client.publish(topic, b"x", qos=1).wait_for_publish(5)
    assert recorded.spans() == []
    assert caplog.text == ""


def test_all_clients_but_one(instrumented: Any, connect: Any, topic: str) -> None:
    client = connect()
    PahoInstrumentor().uninstrument_client(client)
    client.publish(topic, b"x", qos=1).wait_for_publish(5)
    assert instrumented.spans() == []
    PahoInstrumentor().reset_client(client)
    client.publish(topic, b"x", qos=1).wait_for_publish(5)
    instrumented.sends()


def test_uninstrument_while_a_callback_runs_and_a_publish_waits(instrument: Any, recorded: Any, scripted: Any) -> None:
    before = originals()
    inside, go_on = threading.Event(), threading.Event()

    def on_message(client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        inside.set()
        go_on.wait(30)
        client.publish("b", b"after", qos=0)

    instrument()
    client = scripted.client()
    client.on_message = on_message
    info = client.publish("a", b"x", qos=1)
    scripted.expect("PUBLISH")
    scripted.publish("a", b"x")
    assert inside.wait(30)
    publish = client.publish
    PahoInstrumentor().uninstrument()
    go_on.set()
    (process,) = recorded.processes()
    assert process.status.is_unset
    assert b"tp" not in scripted.expect("PUBLISH")
    scripted.puback(info.mid)
    (send,) = recorded.sends()
    assert send.status.is_unset
    publish("c", b"y", qos=0)
    assert b"tp" not in scripted.expect("PUBLISH")
    assert len(recorded.spans()) == 2
    instrument()
    PahoInstrumentor().uninstrument()
    assert originals() == before


def test_wrappers_of_others_on_top_survive(recorded: Any, monkeypatch: pytest.MonkeyPatch, scripted: Any) -> None:
    calls = []
    PahoInstrumentor().instrument(**recorded.providers)
    ours = mqtt.Client.publish

    def theirs(client: mqtt.Client, *args: Any, **kwargs: Any) -> mqtt.MQTTMessageInfo:
        calls.append(args)
        return ours(client, *args, **kwargs)

    theirs.__wrapped__ = ours  # type: ignore[attr-defined]
    monkeypatch.setattr(mqtt.Client, "publish", theirs)
    PahoInstrumentor().uninstrument()
    assert mqtt.Client.publish is theirs
    client = scripted.client()
    client.publish("a", b"x")
    assert recorded.spans() == []
    PahoInstrumentor().instrument(**recorded.providers)
    client.publish("a", b"x")
    assert len(recorded.sends()) == 1
    assert len(calls) == 2
    PahoInstrumentor().uninstrument()


def test_a_failure_inside_never_reaches_the_message(
    instrumented: Any, connect: Any, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spanbridge_instrumentation.paho import consuming, publishing

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("bug")

    arrived = threading.Event()
    client = connect(subscribe=topic, on_message=lambda *_: arrived.set())
    monkeypatch.setattr(publishing, "_start", broken)
    monkeypatch.setattr(consuming, "delivery", broken)
    monkeypatch.setattr(PENDING, "acknowledged", broken)
    client.publish(topic, b"x", qos=1).wait_for_publish(5)
    assert arrived.wait(30)
    assert instrumented.spans() == []


def test_a_version_outside_the_bounds_is_left_alone(
    instrument: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = originals()
    monkeypatch.setattr(dependencies, "version", lambda name: "1.6.1")
    PahoInstrumentor().instrument(skip_dep_check=True)
    assert originals() == before
    assert "1.6.1" in caplog.text
    assert list(PahoInstrumentor().instrumentation_dependencies()) == ["paho-mqtt >= 2.0, < 3"]


def test_importing_the_package_loads_no_client() -> None:
    program = "import sys, spanbridge_instrumentation as s; s.process; print(*[m for m in sys.modules if 'mqtt' in m])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_client_instrumented_by_hand_that_is_dropped_ends_its_spans(recorded: Any, scripted: Any) -> None:
    client = scripted.client(loop=False)
    PahoInstrumentor().instrument_client(client, **recorded.providers)
    client.publish("a", b"x", qos=1)
    scripted.forget()
    client._reset_sockets()
    del client
    gc.collect()
    PahoInstrumentor().uninstrument()
    assert recorded.sends()[0].attributes["error.type"] == "client_gone"
    with pytest.raises(TypeError, match="object"):
        PahoInstrumentor().instrument_client(object())


def test_many_threads_publish_with_one_client(instrumented: Any, connect: Any, topic: str) -> None:
    client = connect()
    threads = [
        threading.Thread(target=lambda: [client.publish(topic, b"x", qos=1) for _ in range(150)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = instrumented.sends(600)
    assert len({span.context.span_id for span in spans}) == len(spans) == 600
    assert all(span.status.is_unset for span in spans)
    assert len(PENDING) == 0
    assert instrumented.total("messaging.client.sent.messages") == 600


def test_every_option_is_documented() -> None:
    from spanbridge_instrumentation.paho import options, pending

    page = (Path(__file__).parents[3] / "docs" / "instrumentation-paho.md").read_text()
    variables = [value for name, value in vars(options).items() if name.startswith("ENV_")]
    keywords = list(inspect.signature(options.read_options).parameters)
    errors = [pending.ACK_TIMEOUT, pending.TOO_MANY, pending.DISCONNECTED, pending.CLIENT_GONE, pending.DROPPED]
    assert [name for name in [*variables, *keywords, *errors] if f"`{name}" not in page] == []
