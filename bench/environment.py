"""Where the benchmark runs: the devstack's addresses, and how each bridge is started on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.modes import Mode
from bench.processes import Child
from bench.revision import THIS, Code
from bench.shapes import PLAIN, QUEUES, Setting, Shape
from spanbridge.devstack import Devstack

NEUTRAL = {"OTEL_METRIC_EXPORT_INTERVAL": "10000", "OTEL_SERVICE_NAME": "bench"}
"""Nothing of the caller's settings may reach a bridge: the measurement is of the defaults."""


def _no_commands(topic: str, message_type: str) -> None:
    raise NotImplementedError("no topics for commands can be made here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Addresses of a running devstack and of the OTLP receiver (``otlp``: its environment variables).

    ``commands`` makes a RocketMQ topic of that name and type, and a consumer group of the same name.
    """

    mqtt_host: str
    mqtt_port: int
    rocketmq_endpoints: str
    broker_address: str
    directory: Path
    otlp: dict[str, str] = field(default_factory=dict)
    commands: Callable[[str, str], None] = _no_commands

    def setting(self, run_id: int) -> Setting:
        """What a configuration needs to know of this place."""
        return Setting(mqtt=f"{self.mqtt_host}:{self.mqtt_port}", rocketmq=self.rocketmq_endpoints, run_id=run_id)


def place_on(stack: Devstack, shapes: Iterable[Shape], directory: Path, otlp: dict[str, str]) -> Place:
    """Create the topics that the shapes need, and return the addresses."""
    for topic, message_type in {(PLAIN.topic, PLAIN.message_type)} | {(s.topic, s.message_type) for s in shapes}:
        stack.rocketmq.create_topic(topic, message_type, queues=QUEUES)  # type: ignore[arg-type]

    def commands(topic: str, message_type: str) -> None:
        stack.rocketmq.create_topic(topic, message_type, queues=QUEUES)  # type: ignore[arg-type]
        stack.rocketmq.create_group(topic, fifo=message_type == "FIFO")

    return Place(
        mqtt_host=stack.mqtt_v5.host,
        mqtt_port=stack.mqtt_v5.port,
        rocketmq_endpoints=stack.rocketmq.endpoints,
        broker_address=f"{stack.rocketmq.host}:{stack.rocketmq.broker_port}",
        directory=directory,
        otlp=otlp,
        commands=commands,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one measurement is of: a shape, a mode, and whose code."""

    shape: Shape
    mode: Mode
    code: Code = THIS

    @property
    def label(self) -> str:
        """A name for progress, logs and errors."""
        rev = f" {self.code.rev}" if self.code.rev else ""
        return f"{self.shape.name} {self.mode.name}{rev}"

    @property
    def file_name(self) -> str:
        """The same for files."""
        return self.label.replace(" ", "-")

    @property
    def carrier(self) -> str:
        """How the devices send their context: the baseline reads no other than the mode's."""
        return self.shape.carrier if self.mode.bridge == "gateway" else self.mode.carrier

    @property
    def backlog(self) -> int:
        """How many messages the generator may be ahead of RocketMQ."""
        return min(self.mode.backlog, self.shape.backlog)


def start_bridge(place: Place, case: Case, run_id: int) -> Child:
    """Start the bridge of a case as a user would."""
    if case.mode.bridge == "gateway":
        return start_gateway(place, case, run_id, case.shape.config(place.setting(run_id)))
    command = [sys.executable, "-m", "bench.baseline", "--host", place.mqtt_host, "--port", str(place.mqtt_port)]
    command += ["--filter", case.shape.topics(run_id).replace("{device}", "+"), "--client-id", f"bench-{run_id}"]
    command += ["--endpoints", place.rocketmq_endpoints, "--topic", case.shape.topic]
    command += ["--traced"] if case.mode.exports else []
    return Child(command, log_of(place, case, run_id), surroundings(place))


def start_gateway(place: Place, case: Case, run_id: int, config: str) -> Child:
    """Start the gateway with a configuration."""
    file = place.directory / f"{run_id}.toml"
    file.write_text(config)
    exporter = "otlp" if case.mode.exports else "none"  # the default is none; metrics are there for Prometheus anyway
    env = surroundings(place) | {"OTEL_TRACES_EXPORTER": exporter, "OTEL_METRICS_EXPORTER": exporter}
    env |= case.code.environment | case.shape.environment
    return Child(case.code.command("run", "-c", str(file)), log_of(place, case, run_id), env)


def surroundings(place: Place) -> dict[str, str]:
    """Environment variables of a bridge. rocketmq-python-client logs into the home directory."""
    return NEUTRAL | place.otlp | {"HOME": str(place.directory)}


def log_of(place: Place, case: Case, run_id: int) -> Path:
    """Where a bridge's log goes."""
    return place.directory / f"{run_id}-{case.file_name}.log"


def start_generator(place: Place, case: Case, run_id: int) -> Child:
    """Start the load generator, connected and waiting for commands."""
    command = [sys.executable, "-m", "bench.loadgen", "--host", place.mqtt_host, "--port", str(place.mqtt_port)]
    command += ["--run-id", str(run_id), "--shape", case.shape.name]
    command += ["--carrier", case.carrier, "--sampled", str(case.mode.sampled)]
    return started(command, place.directory / f"{run_id}-generator.log")


def started(command: list[str], log: Path) -> Child:
    """A process that says when it is ready, and is."""
    child = Child(command, log)
    try:
        child.hear(timeout=60.0)  # "ready"
    except BaseException:
        child.stop()
        raise
    return child
