"""Who plays in the demonstration: devices, consumer and who asks the devices, each the command of a process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spanbridge.demo.traces import Step
from spanbridge.deployment import files_root

GATEWAY = "spanbridge"
CONSUMER = "consumer"
BACKEND = "backend"

UP = "device → consumer"
ASKED = "question → answer"
"""What is at the ends of a flow."""


def example(name: str) -> Path:
    """The path of a script of ``examples/``.

    :raises FileNotFoundError: this installation has no examples.
    """
    path = files_root() / "examples" / name
    if not path.is_file():
        raise FileNotFoundError(f"the example {name} is not part of this installation")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Addresses that commands need."""

    v5_host: str
    v5_port: int
    v311_host: str
    v311_port: int
    endpoints: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Messages that ``service`` begins a trace with each, numbered from 1; of one device, which ``name`` says.

    ``steps`` is the chain of spans that the trace of each must hold; who makes the last one prints name and number.
    """

    service: str
    name: str
    about: str
    carrier: str
    ends: str
    messages: int
    burst: int = 0
    steps: tuple[Step, ...]
    title: str = ""

    @property
    def expected(self) -> set[tuple[str, int]]:
        """What must be printed at the end: the device's name and the number of the message."""
        return {(self.name, seq) for seq in range(1, self.messages + self.burst + 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(Flow):
    """A simulated device and its readings. It also answers what it is asked."""

    command: list[str]
    topic: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """All of them. Another cast (instrumented scripts, say) plays the same piece.

    ``questions`` are what ``backend``, a command, asks the devices from RocketMQ.
    """

    devices: tuple[Device, ...]
    consumer: list[str]
    questions: tuple[Flow, ...]
    backend: list[str]

    @property
    def flows(self) -> tuple[Flow, ...]:
        """All messages that are counted."""
        return (*self.devices, *self.questions)

    @property
    def services(self) -> tuple[str, ...]:
        """Every service name, in the order in which a message meets them."""
        return (*(device.service for device in self.devices), GATEWAY, CONSUMER, BACKEND)


def steps(service: str, last: str = CONSUMER) -> tuple[Step, ...]:
    """The spans of one message on its way up: the device's send, the gateway's two, those of who consumes it."""
    return (
        Step(service, "PRODUCER", "mqtt"),
        Step(GATEWAY, "CONSUMER", "mqtt"),
        Step(GATEWAY, "PRODUCER", "rocketmq"),
        Step(last, "CONSUMER", "rocketmq"),
    )


def question_steps(service: str, topic: str) -> tuple[Step, ...]:
    """The spans of a question that is sent to ``topic``, and of its answer, which comes up as any other message."""
    return (
        Step(BACKEND, "PRODUCER", "rocketmq", topic),
        Step(GATEWAY, "CONSUMER", "rocketmq"),
        Step(GATEWAY, "PRODUCER", "mqtt"),
        Step(service, "CONSUMER", "mqtt"),
        *steps(service, BACKEND),
    )


def hand_instrumented(places: Places, messages: int) -> Cast:
    """The scripts of ``examples/``, which use ``spanbridge_context`` and the OpenTelemetry SDK themselves.

    Half of ``messages`` are single ones of the v5 device, a quarter is its burst, a quarter the v3.1.1 device sends.
    """
    single, burst, meter, asked = _shares(messages)
    leaving = "--commands", asked
    v5 = _python("device_v5.py", places.v5_host, places.v5_port, "--messages", single, "--burst", burst, *leaving)
    v311 = _python("device_v311.py", places.v311_host, places.v311_port, "--messages", meter, *leaving)
    consumer = [sys.executable, str(example("consumer.py")), "--endpoints", places.endpoints]
    sensors = _sensor(v5, single, burst), _meter(v311, meter)
    for device in sensors:
        consumer += ["--topic", device.topic]
    backend = [sys.executable, str(example("ask.py")), "--endpoints", places.endpoints, "--count", str(asked)]
    backend += ["--device", sensors[0].name, "--meter", sensors[1].name]
    return Cast(devices=sensors, consumer=consumer, questions=_questions(sensors, asked), backend=backend)


def zero_code(places: Places, messages: int) -> Cast:
    """Plain scripts of ``examples/zero_code/`` under ``opentelemetry-instrument``: no line of theirs knows of tracing.

    The same shares as in :func:`hand_instrumented`.
    """
    single, burst, meter, asked = _shares(messages)
    agent = [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable]
    script = [*agent, str(example("zero_code/sensor.py"))]
    v5 = [places.v5_host, str(places.v5_port), "5", "devices/sensor-1", "telemetry", "sensor-1"]
    v311 = [places.v311_host, str(places.v311_port), "3.1.1", "meters/meter-1", "reading", "meter-1"]
    # What a topic is called in spans is for the operator to say; a v3.1.1 context travels only when asked for.
    v5_says = {"SPANBRIDGE_MQTT_TOPIC_TEMPLATES": _templates("devices", "telemetry")}
    v311_says = {"SPANBRIDGE_MQTT_TOPIC_TEMPLATES": _templates("meters", "reading")}
    v311_says["SPANBRIDGE_MQTT_V311_CARRIER"] = "topic"
    sensors = (
        _sensor([*script, *v5, str(single), str(burst), str(asked)], single, burst, v5_says),
        _meter([*script, *v311, str(meter), "0", str(asked)], meter, v311_says),
    )
    consumer = [*agent, str(example("zero_code/consumer.py")), places.endpoints, "demo-consumers"]
    names = [device.name for device in sensors]
    return Cast(
        devices=sensors,
        consumer=[*consumer, *(device.topic for device in sensors)],
        questions=_questions(sensors, asked),
        backend=[*agent, str(example("zero_code/ask.py")), places.endpoints, *names, str(asked)],
    )


def _templates(kind: str, reading: str) -> str:
    return ",".join(f"{kind}/+/{last}" for last in (reading, "commands", "answers"))


def _sensor(command: list[str], single: int, burst: int, environment: Mapping[str, str] | None = None) -> Device:
    return Device(
        service="device-v5",
        name="sensor-1",
        about="MQTT v5 device" if environment is None else "plain MQTT v5 device",
        carrier="user property tp",
        ends=UP,
        messages=single,
        burst=burst,
        topic="telemetry",
        command=command,
        steps=steps("device-v5"),
        environment=environment or {},
    )


def _meter(command: list[str], messages: int, environment: Mapping[str, str] | None = None) -> Device:
    return Device(
        service="meter-v311",
        name="meter-1",
        about="MQTT v3.1.1 device" if environment is None else "plain MQTT v3.1.1 device",
        carrier="topic suffix /~tp/…",
        ends=UP,
        messages=messages,
        topic="meter-readings",
        command=command,
        steps=steps("meter-v311"),
        environment=environment or {},
    )


def _questions(devices: tuple[Device, Device], asked: int) -> tuple[Flow, ...]:
    return tuple(
        Flow(
            service=BACKEND,
            name=device.name,
            about=f"{device.about}, asked",
            carrier=device.carrier,
            ends=ASKED,
            messages=asked,
            steps=question_steps(device.service, topic),
            title="command and answer are one trace",
        )
        for device, topic in zip(devices, ("commands", "meter-commands"), strict=True)
    )


def _shares(messages: int) -> tuple[int, int, int, int]:
    """Single messages and burst of the v5 device, messages of the v3.1.1 device; questions to each beside them."""
    quarter = max(1, messages // 4)
    return max(1, messages - 2 * quarter), quarter, quarter, min(5, max(1, messages // 8))


def _python(script: str, host: str, port: int, *options: object) -> list[str]:
    return [sys.executable, str(example(script)), "--host", host, "--port", str(port), *map(str, options)]
