"""Who plays in the demonstration: the devices and the consumer, each the command of a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spanbridge.demo.traces import Step
from spanbridge.deployment import files_root

GATEWAY = "spanbridge"
CONSUMER = "consumer"


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
class Device:
    """A simulated device. Its readings carry ``name`` and are numbered from 1; its spans are those of ``service``.

    ``steps`` is the chain of spans that the trace of each of its messages must hold.
    """

    service: str
    name: str
    about: str
    carrier: str
    messages: int
    burst: int
    command: list[str]
    topic: str
    steps: tuple[Step, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def readings(self) -> set[tuple[str, int]]:
        """What the consumer must print of this device: its name and the number of the reading."""
        return {(self.name, seq) for seq in range(1, self.messages + self.burst + 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """All of them. Another cast (instrumented scripts, say) plays the same piece."""

    devices: tuple[Device, ...]
    consumer: list[str]

    @property
    def services(self) -> tuple[str, ...]:
        """Every service name, in the order in which a message meets them."""
        return (*(device.service for device in self.devices), GATEWAY, CONSUMER)


def steps(service: str) -> tuple[Step, ...]:
    """The spans of one message: the device's send, the gateway's two, the consumer's."""
    return (
        Step(service, "PRODUCER", "mqtt"),
        Step(GATEWAY, "CONSUMER", "mqtt"),
        Step(GATEWAY, "PRODUCER", "rocketmq"),
        Step(CONSUMER, "CONSUMER", "rocketmq"),
    )


def hand_instrumented(places: Places, messages: int) -> Cast:
    """The scripts of ``examples/``, which use ``spanbridge_context`` and the OpenTelemetry SDK themselves.

    Half of ``messages`` are single ones of the v5 device, a quarter is its burst, a quarter the v3.1.1 device sends.
    """
    single, burst, meter = _shares(messages)
    v5 = _python("device_v5.py", places.v5_host, places.v5_port, "sensor-1", single)
    v311 = _python("device_v311.py", places.v311_host, places.v311_port, "meter-1", meter)
    consumer = [sys.executable, str(example("consumer.py")), "--endpoints", places.endpoints]
    sensors = _sensor([*v5, "--burst", str(burst)], single, burst), _meter(v311, meter)
    for device in sensors:
        consumer += ["--topic", device.topic]
    return Cast(devices=sensors, consumer=consumer)


def zero_code(places: Places, messages: int) -> Cast:
    """Plain scripts of ``examples/zero_code/`` under ``opentelemetry-instrument``: no line of theirs knows of tracing.

    The same shares as in :func:`hand_instrumented`.
    """
    single, burst, meter = _shares(messages)
    agent = [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable]
    script = [*agent, str(example("zero_code/sensor.py"))]
    v5 = [places.v5_host, str(places.v5_port), "5", "devices/sensor-1/telemetry", "sensor-1", str(single), str(burst)]
    v311 = [places.v311_host, str(places.v311_port), "3.1.1", "meters/meter-1/reading", "meter-1", str(meter), "0"]
    # What a topic is called in spans is for the operator to say; a v3.1.1 context travels only when asked for.
    v5_says = {"SPANBRIDGE_MQTT_TOPIC_TEMPLATES": "devices/+/telemetry"}
    v311_says = {"SPANBRIDGE_MQTT_TOPIC_TEMPLATES": "meters/+/reading", "SPANBRIDGE_MQTT_V311_CARRIER": "topic"}
    sensors = _sensor([*script, *v5], single, burst, v5_says), _meter([*script, *v311], meter, v311_says)
    consumer = [*agent, str(example("zero_code/consumer.py")), places.endpoints, "demo-consumers"]
    return Cast(devices=sensors, consumer=[*consumer, *(device.topic for device in sensors)])


def _sensor(command: list[str], single: int, burst: int, environment: Mapping[str, str] | None = None) -> Device:
    return Device(
        service="device-v5",
        name="sensor-1",
        about="MQTT v5 device" if environment is None else "plain MQTT v5 device",
        carrier="user property tp",
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
        messages=messages,
        burst=0,
        topic="meter-readings",
        command=command,
        steps=steps("meter-v311"),
        environment=environment or {},
    )


def _shares(messages: int) -> tuple[int, int, int]:
    """Single messages and burst of the v5 device, and messages of the v3.1.1 device."""
    quarter = max(1, messages // 4)
    return max(1, messages - 2 * quarter), quarter, quarter


def _python(script: str, host: str, port: int, name: str, messages: int) -> list[str]:
    command = [sys.executable, str(example(script)), "--host", host, "--port", str(port), "--name", name]
    return [*command, "--messages", str(messages)]
