"""What the end-to-end tests hold in their hands: the gateway's process, devices, and what RocketMQ has stored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.remoting import Broker, Stored
from spanbridge.devstack.rocketmq import RocketmqBroker


def wait_until(
    condition: Callable[[], bool], what: str, timeout: float = 60.0, *, gateway: Gateway | None = None
) -> None:
    """Poll until ``condition`` holds, or fail the test, with what the gateway logged."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"gave up waiting: {what}\n{gateway.report if gateway else ''}"
        time.sleep(0.05)


class Gateway:
    """``spanbridge run`` as a process of its own, as users run it."""

    def __init__(self, directory: Path, config: str, environment: dict[str, str] | None = None) -> None:
        self._file = directory / "spanbridge.toml"
        self._log = directory / "gateway.log"
        self.write(config)
        self._environment = {
            **os.environ,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "SPANBRIDGE__TELEMETRY__LOG_FORMAT": "text",
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @property
    def file(self) -> Path:
        """The configuration file."""
        return self._file

    def write(self, config: str) -> None:
        """Write the configuration file."""
        self._file.write_text(config + "\n[admin]\nport = 0\nprobe_interval = 1\nmax_unacknowledged_age = 2\n")

    def reload(self, config: str) -> dict[str, Any]:
        """Have it read that again (SIGHUP); what /status says of it then."""
        assert self.process is not None
        before = self.status["services"]["reload"]
        self.write(config)
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.status["services"]["reload"] != before, "the configuration to be read", gateway=self)
        return dict(self.status["config"])

    def start(self, *, ready: bool = True) -> None:
        """Start it; by default wait until it is ready."""
        with self._log.open("ab") as log:
            started_at = log.tell()
            command = [str(Path(sys.executable).with_name("spanbridge")), "run", "-c", str(self._file)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
        marker = "admin server listens on "
        wait_until(lambda: marker in self._tail(started_at) or self.ended, "the admin server's address")
        assert not self.ended, self.log
        self._url = self._tail(started_at).split(marker)[1].split()[0]
        if ready:
            wait_until(self.is_ready, "the gateway to be ready", gateway=self)

    def _tail(self, start: int) -> str:
        return self._log.read_bytes()[start:].decode()

    @property
    def log(self) -> str:
        """Everything it has logged."""
        return self._log.read_text()

    @property
    def report(self) -> str:
        """What helps to understand a failure."""
        return f"{self.log[-4000:]}\nreadyz: {self.get('/readyz')}\nstatus: {self.get('/status')}"

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def address(self) -> str:
        """Host and port of its admin server."""
        return self._url.partition("://")[2]

    def get(self, path: str) -> tuple[int, Any]:
        """Status code and JSON body of an admin page."""
        try:
            with urllib.request.urlopen(self._url + path, timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return 0, None

    def text(self, path: str) -> str:
        with urllib.request.urlopen(self._url + path, timeout=5) as response:
            return str(response.read().decode())

    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    @property
    def status(self) -> dict[str, Any]:
        code, body = self.get("/status")
        assert code == 200, self.log
        assert isinstance(body, dict)
        return body

    def kill(self) -> None:
        """End it without warning (SIGKILL)."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self, timeout: float = 45.0) -> int:
        """Ask it to stop (SIGTERM); return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


class Device:
    """A real MQTT client that publishes numbered messages and knows which were acknowledged."""

    def __init__(self, host: str, port: int, *, version: str = "5", client_id: str = "") -> None:
        self.published: list[str] = []
        self._sent: dict[int, str] = {}
        self._acknowledged: set[int] = set()
        self._v5 = version == "5"
        protocol = paho.MQTTv5 if self._v5 else paho.MQTTv311
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol)
        self._client.max_inflight_messages_set(200)
        self._client.reconnect_delay_set(0.1, 0.5)
        self._client.on_publish = self._on_publish
        self._client.connect(host, port)
        self._client.loop_start()
        wait_until(self._client.is_connected, "the device to connect")

    def _on_publish(self, _c: Any, _u: Any, mid: int, _r: Any, _p: Any) -> None:
        # It may run before publish() has returned, and paho holds a lock meanwhile: only note the identifier.
        self._acknowledged.add(mid)

    @property
    def acknowledged(self) -> set[str]:
        """The bodies that the broker has acknowledged. No test publishes so much that an identifier comes twice."""
        done = self._acknowledged.copy()
        return {body for mid, body in self._sent.copy().items() if mid in done}

    def publish(
        self,
        topic: str,
        body: str,
        *,
        qos: int = 1,
        retain: bool = False,
        user: list[tuple[str, str]] | None = None,
        **properties: Any,
    ) -> None:
        """Queue one message. ``properties`` are v5 ones by paho's names."""
        packed = None
        if self._v5 and (user or properties):
            packed = Properties(PacketTypes.PUBLISH)
            for pair in user or []:
                packed.UserProperty = pair
            for name, value in properties.items():
                setattr(packed, name, value)
        info = self._client.publish(topic, body.encode(), qos, retain, packed)
        self._sent[info.mid] = body
        self.published.append(body)

    def stream(self, topic: str, count: int, *, rate: float, prefix: str = "m") -> threading.Thread:
        """Publish ``count`` messages at ``rate`` a second from a thread of its own."""

        def run() -> None:
            start = time.monotonic()
            for number in range(count):
                self.publish(topic.format(number % 10), f"{prefix}-{number}")
                time.sleep(max(0.0, start + (number + 1) / rate - time.monotonic()))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def settle(self, timeout: float = 30.0) -> None:
        """Wait until the broker has acknowledged everything."""
        wait_until(lambda: len(self.acknowledged) >= len(set(self.published)), "the broker's acknowledgements", timeout)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def stored(broker: RocketmqBroker, topic: str, queues: int = 4) -> list[Stored]:
    """Everything that ``topic`` holds, queue by queue, in order."""
    with Broker(f"{broker.host}:{broker.broker_port}", keys=broker.broker_keys) as reader:
        end = reader.max_offsets(topic, queues)
        return list(reader.read(topic, [0] * queues, end))


def bodies(broker: RocketmqBroker, topic: str, queues: int = 4) -> list[str]:
    """The payloads that ``topic`` holds."""
    return [message.body.decode() for message in stored(broker, topic, queues)]
