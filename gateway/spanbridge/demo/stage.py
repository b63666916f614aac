"""The demonstration's processes: brokers, gateway, consumer, devices and who asks them, all ending with this one."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from spanbridge.demo.cast import BACKEND, CONSUMER, GATEWAY, Cast, Places
from spanbridge.demo.configuration import GROUPS, TOPICS, gateway_config
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.devstack import Devstack, ServiceError
from spanbridge.devstack.mqtt_setup import choice
from spanbridge.devstack.ports import LOOPBACK, PortLease
from spanbridge.devstack.process import KeeperClient, ServerProcess
from spanbridge.devstack.progress import Progress, silent

_READY_SECONDS = 30.0
_DEVICE_SECONDS = 120.0
_POLL_SECONDS = 0.02

# What the caller's shell says about OpenTelemetry is not for the demonstration. An empty value counts as none
# (OpenTelemetry specification, "Environment Variable Specification", "Parsing empty value").
_NEUTRAL = dict.fromkeys(
    (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_SDK_DISABLED",
    ),
    "",
)
_NOTHING: Mapping[str, str] = {}
_SETTINGS = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_TRACES_SAMPLER": "parentbased_always_on",
    "OTEL_PROPAGATORS": "tracecontext,baggage",
    "OTEL_BSP_SCHEDULE_DELAY": "200",  # milliseconds; nobody wants to wait for five seconds here
}


class Stage:
    """Everything the demonstration runs. A context manager: leaving it ends every process.

    Usage: :meth:`start_brokers`, :meth:`start_bridge`, then :meth:`play` for the devices.
    """

    def __init__(self, receiver: OtlpReceiver) -> None:
        self.receiver = receiver
        self.directory = Path(tempfile.mkdtemp(prefix="spanbridge-demo-"))
        self._ports = PortLease()
        self.admin_port = self._ports.take()
        self._keeper = KeeperClient(self.directory)
        self._stack: Devstack | None = None
        self._consumer: ServerProcess | None = None
        self._gateway: ServerProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.close()
        self._ports.release()
        if self._stack is not None:
            self._stack.down()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def stack(self) -> Devstack:
        """The brokers; only after :meth:`start_brokers`."""
        assert self._stack is not None
        return self._stack

    @property
    def places(self) -> Places:
        """Addresses for the cast's commands."""
        v5, v311 = self.stack.mqtt_v5, self.stack.mqtt_v311
        return Places(
            v5_host=v5.host,
            v5_port=v5.port,
            v311_host=v311.host,
            v311_port=v311.port,
            endpoints=self.stack.rocketmq.endpoints,
        )

    @property
    def config_path(self) -> Path:
        """The gateway's configuration."""
        return self.directory / "spanbridge.toml"

    @property
    def admin_url(self) -> str:
        """The gateway's admin server."""
        return f"http://{LOOPBACK}:{self.admin_port}"

    def start_brokers(self, progress: Progress = silent) -> None:
        """Start RocketMQ and both MQTT brokers, and create topics and groups.

        :raises DevstackError: one did not come up, or its parts could not be fetched.
        """
        self._stack = Devstack.up(mqtt=choice(without_mosquitto="amqtt"), progress=progress)
        for topic in TOPICS:
            self._stack.rocketmq.create_topic(topic)
        for group in GROUPS:
            self._stack.rocketmq.create_group(group)

    def start_bridge(self, cast: Cast) -> None:
        """Start gateway and consumer, and wait until both are ready.

        :raises ServiceError: one ended, or was not ready in time; holds the end of its log.
        """
        self.config_path.write_text(gateway_config(self.places, self.admin_port))
        command = [str(Path(sys.executable).with_name("spanbridge")), "run", "-c", str(self.config_path)]
        self._gateway = self._service(GATEWAY, command, "grpc")
        self._consumer = self._service(CONSUMER, cast.consumer)
        self._gateway.start()
        self._consumer.start()
        self._await(self._gateway, self._gateway_ready)
        self._await(self._consumer, lambda: "ready" in self._lines(CONSUMER))

    def play(self, cast: Cast) -> None:
        """Run the devices side by side, and who asks them, until each has done all it was to do.

        A question that comes before its device is there would go nowhere: it is asked once all of them listen.

        :raises ServiceError: one of them failed, or took too long; holds the end of its log.
        """
        services = [self._service(device.service, device.command, extra=device.environment) for device in cast.devices]
        for service in services:
            service.start()
        for service in services:
            self._await(service, lambda name=service.name: "ready" in self._lines(name))  # type: ignore[misc]
        backend = self._service(BACKEND, cast.backend)
        backend.start()
        self._await_end([*services, backend])

    def _await_end(self, running: list[ServerProcess]) -> None:
        """Until all have ended. The first that fails is told of: the others may wait for it."""
        deadline = time.monotonic() + _DEVICE_SECONDS
        while running:
            for service in tuple(running):
                code = self._keeper.request(do="poll", name=service.name)["code"]
                if code:
                    raise ServiceError(f"{service.name} failed (exit code {code})", log=_tail(service))
                if code is not None:
                    running.remove(service)
            if running and time.monotonic() > deadline:
                raise ServiceError(f"{running[0].name} did not end in time", log=_tail(running[0]))
            time.sleep(_POLL_SECONDS)

    def printed(self) -> dict[str, list[tuple[str, int]]]:
        """What was printed so far, by service: device and number of readings, and of questions that were answered."""
        return {CONSUMER: self._numbered(CONSUMER, "seq"), BACKEND: self._numbered(BACKEND, "question")}

    def _numbered(self, service: str, number: str) -> list[tuple[str, int]]:
        found = [json.loads(line) for line in self._lines(service) if line.startswith("{")]
        return [(str(each["device"]), int(each[number])) for each in found]

    def failure(self) -> str | None:
        """Why gateway or consumer no longer run, with the end of the log; None while both do."""
        for service in (self._gateway, self._consumer):
            if service is not None and not service.running:
                return f"{service.name} ended:\n{_tail(service)}"
        return None

    def log_path(self, name: str) -> Path:
        """Where a process logs, by its service name."""
        return self.directory / f"{name}.log"

    def environment(self, service: str, protocol: str = "http/protobuf") -> dict[str, str]:
        """The environment that makes a process export its spans here under a name."""
        return {**_NEUTRAL, **_SETTINGS, **self.receiver.environment(protocol), "OTEL_SERVICE_NAME": service}

    def _service(
        self, name: str, command: list[str], protocol: str = "http/protobuf", extra: Mapping[str, str] = _NOTHING
    ) -> ServerProcess:
        # The home directory, because rocketmq-python-client logs into it.
        env: Mapping[str, str] = {
            **self.environment(name, protocol),
            "HOME": str(self.directory),
            **extra,
        }
        return ServerProcess(keeper=self._keeper, name=name, argv=command, directory=self.directory, env=env)

    def _await(self, service: ServerProcess, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not ready():
            if not service.running:
                raise ServiceError(f"{service.name} ended before it was ready", log=_tail(service))
            if time.monotonic() > deadline:
                raise ServiceError(f"{service.name} was not ready in {_READY_SECONDS:.0f} s", log=_tail(service))
            time.sleep(_POLL_SECONDS)

    def _gateway_ready(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.admin_port, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _lines(self, name: str) -> list[str]:
        try:
            text = self.log_path(name).read_text(errors="replace")
        except FileNotFoundError:
            return []
        return text[: text.rfind("\n") + 1].splitlines()


def _tail(service: ServerProcess) -> str:
    """The end of a log, short enough to be read: a line of JSON may hold a whole stack trace."""
    return "\n".join(line[:400] for line in service.log_tail(6).splitlines())
