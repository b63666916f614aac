"""Plain programs under ``opentelemetry-instrument``, judged by what their processes exported."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from spanbridge.demo.otlp import OtlpReceiver, Span

pytestmark = pytest.mark.brokers

EXAMPLES = Path(__file__).parents[3] / "examples" / "zero_code"
AGENT = Path(sys.executable).with_name("opentelemetry-instrument")


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(receiver: OtlpReceiver, mqtt_devstack: Any) -> Iterator[Run]:
    """Starts a program under the agent; every process of the test exports to the receiver."""
    started: list[subprocess.Popen[str]] = []

    def run(
        script: str | Path, *arguments: str, service: str, version: str = "5", broker: Any = None, **variables: str
    ) -> Any:
        broker = broker or (mqtt_devstack.mqtt_v5 if version == "5" else mqtt_devstack.mqtt_v311)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SPANBRIDGE_"))},
            **receiver.environment("http/protobuf"),
            "OTEL_SERVICE_NAME": service,
            "OTEL_LOGS_EXPORTER": "none",
            "PYTHONWARNINGS": "default,ignore::ResourceWarning",  # the exporter's HTTP client leaves sockets open
            **variables,
        }
        process = subprocess.Popen(
            [AGENT, sys.executable, str(EXAMPLES / script), broker.host, str(broker.port), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def wait_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def of(receiver: OtlpReceiver, service: str, kind: str) -> list[Span]:
    found = [span for span in receiver.spans if (span.service, span.kind) == (service, kind)]
    return sorted(found, key=lambda span: span.start_ns)


def counted(receiver: OtlpReceiver, name: str, service: str) -> float:
    newest = [m for m in receiver.metrics if m.name == name and m.resource.get("service.name") == service][-1]
    return sum(point.count or point.value or 0 for point in newest.points)


def test_a_plain_device(run: Run, receiver: OtlpReceiver, topic: str) -> None:
    finish(run("device.py", topic, service="device"))
    spans = of(receiver, "device", "PRODUCER")
    assert [span.name for span in spans] == ["send tests/+"] * 3
    assert {span.attributes["messaging.destination.name"] for span in spans} == {topic}
    assert {span.scope for span in spans} == {"spanbridge_instrumentation.paho"}
    assert {span.status for span in spans} == {"UNSET"}
    assert counted(receiver, "messaging.client.sent.messages", "device") == 3
    assert counted(receiver, "messaging.client.operation.duration", "device") == 3
    metric = receiver.metric("messaging.client.operation.duration")
    assert metric is not None
    assert (metric.unit, metric.points[0].bounds[0], metric.points[0].bounds[-1]) == ("s", 0.005, 10.0)


def test_two_plain_devices_are_one_trace(run: Run, receiver: OtlpReceiver, connect: Any) -> None:
    answering = run("device_commands.py", service="answering")
    wait_ready(answering)
    finish(run("device.py", "devices/d7/commands", service="asking"))
    receiver.wait(lambda r: len(of(r, "asking", "PRODUCER")) == 3)
    connect().publish("devices/d7/commands", b"stop", qos=1)
    finish(answering)
    asks = of(receiver, "asking", "PRODUCER")
    processes = of(receiver, "answering", "CONSUMER")
    answers = of(receiver, "answering", "PRODUCER")
    assert [span.parent_id for span in processes[:3]] == [span.span_id for span in asks]
    assert [span.parent_id for span in answers] == [span.span_id for span in processes[:3]]
    assert {span.name for span in processes} == {"process devices/+/commands"}
    assert len({span.trace_id for span in [*asks, *processes[:3], *answers]}) == 3
    assert counted(receiver, "messaging.client.consumed.messages", "answering") == 4
    assert counted(receiver, "messaging.process.duration", "answering") == 4


def test_an_aiomqtt_program(run: Run, receiver: OtlpReceiver) -> None:
    program = run("device_aiomqtt.py", service="alarm")
    wait_ready(program)
    finish(run("device.py", "rooms/kitchen/temperature", service="sensor"))
    finish(program)
    sensor = of(receiver, "sensor", "PRODUCER")[0]
    (processing,) = of(receiver, "alarm", "CONSUMER")
    (alarm,) = of(receiver, "alarm", "PRODUCER")
    assert processing.parent_id == sensor.span_id
    assert alarm.parent_id == processing.span_id
    assert processing.name == "process rooms/+/temperature"


def test_a_plain_loop(run: Run, receiver: OtlpReceiver) -> None:
    program = run("plain_loop.py", "3", service="alarm")
    wait_ready(program)
    finish(run("device.py", "devices/d7/state", service="sensor"))
    finish(program)
    processes = of(receiver, "alarm", "CONSUMER")
    assert [span.parent_id for span in processes] == [span.span_id for span in of(receiver, "sensor", "PRODUCER")]
    assert [span.parent_id for span in of(receiver, "alarm", "PRODUCER")] == [span.span_id for span in processes]


def test_a_version_3_device(run: Run, receiver: OtlpReceiver, connect: Any, topic: str) -> None:
    seen: list[str] = []
    arrived = threading.Event()

    def on_message(_client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        seen.append(message.topic)
        arrived.set()

    connect("3.1.1", subscribe=f"{topic}/#", on_message=on_message)
    program = run(
        "device_v311.py", topic, service="old", version="3.1.1", SPANBRIDGE_MQTT_V311_CARRIER="topic"
    )  # fmt: skip
    finish(program)
    assert arrived.wait(30)
    assert seen[0].startswith(f"{topic}/~tp/")
    (span,) = of(receiver, "old", "PRODUCER")
    assert span.attributes["messaging.destination.name"] == topic


HASTY = """
import sys
import paho.mqtt.client as mqtt
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.connect(sys.argv[1], int(sys.argv[2]))
sent = []
client.on_connect = lambda *_: sent.append(client.publish("a", b"x", qos=1))
while not sent or client.want_write():
    client.loop()
"""


def test_what_is_unacknowledged_when_the_program_ends_is_told(
    run: Run, receiver: OtlpReceiver, tmp_path: Path, scripted: Any
) -> None:
    script = tmp_path / "hasty.py"
    script.write_text(HASTY)
    program = run(script, service="hasty", broker=scripted)
    scripted.accept()
    finish(program)
    scripted.expect("PUBLISH")
    (span,) = of(receiver, "hasty", "PRODUCER")
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "client_gone")
    assert counted(receiver, "messaging.client.sent.messages", "hasty") == 1


def test_the_instrumentation_can_be_disabled(run: Run, receiver: OtlpReceiver, topic: str) -> None:
    finish(run("device.py", topic, service="device", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="paho"))
    assert receiver.spans == []
