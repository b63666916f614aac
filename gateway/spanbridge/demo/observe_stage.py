"""The processes of ``spanbridge demo --observe``: a consumer that is too slow, and those who look at it."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from spanbridge.demo.cast import CONSUMER, GATEWAY, example
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.demo.prometheus import ExportedMetrics, PrometheusClient, command, configuration, prometheus_program
from spanbridge.demo.stage import Stage
from spanbridge.devstack import Devstack
from spanbridge.devstack.ports import PortLease
from spanbridge.devstack.process import ServerProcess

TOPIC, GROUP, DEVICE = "readings", "billing", "device"
_PROFILED = {
    "SPANBRIDGE_PROFILING": "file",
    "SPANBRIDGE_PROFILING_RATE": "100",  # a few seconds are to be seen, not a day
    "SPANBRIDGE_PROFILING_INTERVAL": "2",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",  # milliseconds
}
_TEMPLATES = {"SPANBRIDGE_MQTT_TOPIC_TEMPLATES": "meters/+/reading"}


class ObserveStage(Stage):
    """Brokers, gateway, a slow consumer and a device; Prometheus where it is on the PATH.

    ``settings`` is what the gateway's configuration has beside its own: routes, downlinks. ``stack`` are brokers that
    run already, and go on running.
    """

    def __init__(self, receiver: OtlpReceiver, settings: str = "", stack: Devstack | None = None) -> None:
        super().__init__(receiver)
        self._settings = settings
        self._stack = self._lent = stack
        self.prometheus: PrometheusClient | None = None
        self.exported = ExportedMetrics(receiver)
        self._more_ports = PortLease()

    def __enter__(self) -> Self:
        super().__enter__()
        self.exported.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lent is not None:
            self._stack = None
        super().__exit__(kind, error, trace)
        self._more_ports.release()
        self.exported.__exit__()

    @property
    def profiles(self) -> Path:
        """Where the consumer writes its profiles."""
        return self.directory / "profiles"

    @property
    def consumer(self) -> ServerProcess:
        """The slow consumer; only after :meth:`start_observed`."""
        assert self._consumer is not None
        return self._consumer

    def start_observed(self) -> None:
        """Start gateway and consumer, and wait until both are ready.

        :raises ServiceError: one ended, or was not ready in time; holds the end of its log.
        """
        self.stack.rocketmq.create_topic(TOPIC)
        self.stack.rocketmq.create_group(GROUP)
        self.config_path.write_text(self._configuration())
        run = [str(Path(sys.executable).with_name("spanbridge")), "run", "-c", str(self.config_path)]
        self._gateway = self._service(GATEWAY, run, "grpc")
        slow = [*_agent(), str(example("zero_code/consumer_slow.py")), self.places.endpoints, GROUP, TOPIC]
        extra = {**_PROFILED, "SPANBRIDGE_PROFILING_DIRECTORY": str(self.profiles)}
        self._consumer = self._service(CONSUMER, slow, extra=extra)
        self._gateway.start()
        self._consumer.start()
        self._await(self._gateway, self._gateway_ready)
        self._await(self._consumer, lambda: "ready" in self._lines(CONSUMER))

    def start_prometheus(self, rules: Sequence[Path] = ()) -> bool:
        """Start Prometheus, where it is on the PATH, and wait until it answers.

        :raises ServiceError: it ended, or did not answer in time; holds the end of its log.
        """
        program = prometheus_program()
        if program is None:
            return False
        targets = {"spanbridge": self.admin_url.partition("://")[2], "otelcol": self.exported.address}
        (self.directory / "prometheus.yml").write_text(configuration(targets, rules))
        port = self._more_ports.take()
        service = self._service("prometheus", command(program, self.directory, port))
        service.start()
        self.prometheus = PrometheusClient(port)
        self._await(service, self.prometheus.ready)
        return True

    def start_device(self, messages: int) -> ServerProcess:
        """A plain device that sends its readings at once."""
        places = self.places
        sends = [places.v5_host, str(places.v5_port), "meters/meter-1/reading", "meter-1", str(messages)]
        device = self._service(DEVICE, [*_agent(), str(example("zero_code/device_burst.py")), *sends], extra=_TEMPLATES)
        device.start()
        return device

    def status(self) -> dict[str, Any]:
        """The gateway's /status."""
        with urllib.request.urlopen(f"{self.admin_url}/status", timeout=5) as answer:  # noqa: S310 - loopback
            found: dict[str, Any] = json.load(answer)
        return found

    def handled(self) -> int:
        """How many readings the consumer is done with."""
        return sum(line.startswith("{") for line in self._lines(CONSUMER))

    def _configuration(self) -> str:
        places = self.places
        return f"""\
name = "demo"

[[mqtt]]
url = "mqtt://{places.v5_host}:{places.v5_port}"
client_id = "demo-observe"

[rocketmq]
endpoints = "{places.endpoints}"

[[routes]]
filter = "meters/{{meter}}/reading"
topic = "{TOPIC}"

[admin]
port = {self.admin_port}

[lag]
name_servers = "{self.stack.rocketmq.namesrv}"
period = 1

[[lag.groups]]
name = "{GROUP}"
topics = ["{TOPIC}"]

[profiling]
enabled = true
{self._settings}"""


def _agent() -> list[str]:
    return [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable]
