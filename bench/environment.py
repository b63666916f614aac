"""Where the benchmark runs: the devstack's addresses, and how each bridge is started on them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench.modes import Mode
from bench.processes import Child

TOPIC = "bench"
QUEUES = 8
TOPICS = 100

# Nothing of the caller's settings may reach a bridge: the measurement is of the defaults.
_NEUTRAL = {"OTEL_METRIC_EXPORT_INTERVAL": "10000", "OTEL_SERVICE_NAME": "bench"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Addresses of a running devstack and of the OTLP receiver (``otlp``: its environment variables)."""

    mqtt_host: str
    mqtt_port: int
    rocketmq_endpoints: str
    broker_address: str
    directory: Path
    otlp: dict[str, str] = field(default_factory=dict)


def prefix(run_id: int) -> str:
    """Topics of a run. New for each run: a session left in the broker never sees a later run's messages."""
    return f"bench/{run_id}"


def gateway_config(place: Place, run_id: int) -> str:
    """The gateway's configuration: one route, everything else as it comes."""
    return f"""\
name = "bench-{run_id}"

[mqtt]
url = "mqtt://{place.mqtt_host}:{place.mqtt_port}"

[rocketmq]
endpoints = "{place.rocketmq_endpoints}"

[[routes]]
filter = "{prefix(run_id)}/{{device}}"
topic = "{TOPIC}"

[admin]
port = 0
"""


def start_bridge(place: Place, mode: Mode, run_id: int) -> Child:
    """Start the bridge of a mode as a user would."""
    log = place.directory / f"{run_id}-{mode.name}.log"
    env = _NEUTRAL | place.otlp | {"HOME": str(place.directory)}  # rocketmq-python-client logs into the home directory
    if mode.bridge == "gateway":
        config = place.directory / f"{run_id}.toml"
        config.write_text(gateway_config(place, run_id))
        env |= {"OTEL_TRACES_EXPORTER": "otlp" if mode.exports else "none", "OTEL_METRICS_EXPORTER": "otlp"}
        command = [str(Path(sys.executable).with_name("spanbridge")), "run", "-c", str(config)]
    else:
        command = [sys.executable, "-m", "bench.baseline", "--host", place.mqtt_host, "--port", str(place.mqtt_port)]
        command += ["--filter", f"{prefix(run_id)}/+", "--client-id", f"bench-{run_id}"]
        command += ["--endpoints", place.rocketmq_endpoints, "--topic", TOPIC]
        command += ["--traced"] if mode.exports else []
    return Child(command, log, env)


def start_generator(place: Place, mode: Mode, run_id: int) -> Child:
    """Start the load generator, connected and waiting for commands."""
    command = [sys.executable, "-m", "bench.loadgen", "--host", place.mqtt_host, "--port", str(place.mqtt_port)]
    command += ["--run-id", str(run_id), "--prefix", prefix(run_id), "--topics", str(TOPICS)]
    command += ["--carrier", mode.carrier, "--sampled", str(mode.sampled)]
    generator = Child(command, place.directory / f"{run_id}-generator.log")
    try:
        generator.hear()  # "ready"
    except BaseException:
        generator.stop()
        raise
    return generator
