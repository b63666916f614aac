"""A gateway's process, and devices that number what they publish."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bench.faults.ledger import Number

_LISTENS = "admin server listens on "


class Stalled(Exception):  # noqa: N818 - named for the state
    """Something that a scenario waits for does not happen."""


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60.0, every: float = 0.05) -> None:
    """Poll until ``condition`` holds; ``timeout`` and ``every`` in seconds.

    :raises Stalled: it does not.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Stalled(f"gave up after {timeout:g} s waiting for {what}")
        time.sleep(every)


class GatewayProcess:
    """``spanbridge run``, as users run it. ``rss_max`` is the most that any of its lives had resident, MiB."""

    def __init__(self, directory: Path, config: str, environment: Mapping[str, str]) -> None:
        directory.mkdir(parents=True)
        self._config = directory / "spanbridge.toml"
        self._config.write_text(config + "\n[admin]\nport = 0\nprobe_interval = 1\n")
        self._log = directory / "gateway.log"
        quiet = {"HOME": str(directory), "SPANBRIDGE__TELEMETRY__LOG_FORMAT": "text", "OTEL_TRACES_EXPORTER": "none"}
        self._environment = {**os.environ, **quiet, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = 0
        self.rss_max = 0.0
        self.starts = 0

    def start(self, *, ready: bool = True) -> None:
        """Start it, by default until it is ready.

        :raises Stalled: it does not get there.
        """
        with self._log.open("ab") as log:
            self._begun = log.tell()
            command = [str(Path(sys.executable).with_name("spanbridge")), "run", "-c", str(self._config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
        self.starts += 1
        if ready:
            self.wait_listening()
            wait_until(self.is_ready, "the gateway to be ready")

    def wait_listening(self) -> None:
        """Wait until its admin server listens: before, it has done nothing.

        :raises Stalled: it does not, or the gateway has ended.
        """
        wait_until(lambda: bool(self._url) or not self.alive, "the gateway's admin server")
        if not self.alive:
            raise Stalled(f"the gateway ended: {self.last_line}")

    @property
    def _url(self) -> str:
        """Of the admin server of its present life; empty before it listens."""
        with self._log.open("rb") as log:
            log.seek(self._begun)
            _, found, rest = log.read().decode(errors="replace").partition(_LISTENS)
        return rest.split()[0] if found and rest.endswith("\n") else ""

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def last_line(self) -> str:
        """The end of its log."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing logged"

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> tuple[int, Any]:
        """An admin page: status code and JSON; 0 where nobody answers."""
        url = self._url
        if not url:
            return 0, None
        try:
            with urllib.request.urlopen(url + path, timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, None
        except (OSError, ValueError):
            return 0, None

    def see(self, *path: str) -> Any:
        """A value of /status by the names that lead to it; None where there is none, or nobody answers."""
        found = self.get("/status")[1]
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def is_ready(self) -> bool:
        """What /readyz says."""
        return self.get("/readyz")[0] == 200

    def measure(self) -> None:
        """Take its peak memory into account. To be called before it ends."""
        if self._process is None:
            return
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
            peak = next(line for line in lines if line.startswith("VmHWM"))
            self.rss_max = max(self.rss_max, int(peak.split()[1]) / 1024)

    def kill(self) -> None:
        """SIGKILL."""
        self.measure()
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM; the exit code.

        :raises Stalled: it does not end.
        """
        assert self._process is not None
        self.measure()
        if not self.alive:
            return self._process.wait(0)
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
            raise Stalled(f"the gateway did not end within {timeout:g} s of SIGTERM") from None


class Fleet:
    """Devices behind one MQTT connection, each with a topic and a count of its own. QoS 1.

    ``topic`` is a format string over the device's number.
    """

    def __init__(self, host: str, port: int, run: str, topic: str, *, devices: int = 10) -> None:
        self.sent = 0
        self.acknowledged: set[Number] = set()
        self.devices = devices
        self._run = run
        self._topic = topic
        self._next = [0] * devices
        self._turn = 0
        self._lock = threading.Lock()
        self._waiting: dict[int, Number] = {}
        self._early: set[int] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"fleet-{run}", protocol=paho.MQTTv311)
        self._client.max_inflight_messages_set(100)
        self._client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]
        self._client.on_publish = self._on_publish
        self._client.connect(host, port)
        self._client.loop_start()
        wait_until(self._client.is_connected, "the devices to connect")

    def _on_publish(self, _c: Any, _u: Any, mid: int, _r: Any, _p: Any) -> None:
        with self._lock:  # it may run before publish() has returned
            number = self._waiting.pop(mid, None)
            if number is None:
                self._early.add(mid)
            else:
                self.acknowledged.add(number)

    def publish(self) -> None:
        """One message of the device whose turn it is."""
        device = self._turn = (self._turn + 1) % self.devices
        number = Number(self._run, device, self._next[device])
        self._next[device] += 1
        self.sent += 1
        info = self._client.publish(self._topic.format(device), number.body(), 1)
        with self._lock:
            if info.mid in self._early:
                self._early.remove(info.mid)
                self.acknowledged.add(number)
            else:
                self._waiting[info.mid] = number

    def publish_raw(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """One that is not counted: poison."""
        self._client.publish(topic, payload, qos)

    def begin(self, rate: float) -> None:
        """Publish ``rate`` messages a second from a thread of its own, until :meth:`pause`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._publish_at, args=(rate,), daemon=True)
        self._thread.start()

    def _publish_at(self, rate: float) -> None:
        begun, count = time.monotonic(), 0
        while not self._stop.is_set():
            due = int((time.monotonic() - begun) * rate)
            while count < due:
                self.publish()
                count += 1
            self._stop.wait(0.01)

    def pause(self) -> None:
        """Publish no more; what was published goes on to the broker."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def unacknowledged(self) -> int:
        """Messages that the MQTT broker has not answered."""
        return len(self._waiting)

    def settle(self, timeout: float = 90.0) -> None:
        """Wait until the MQTT broker has acknowledged everything.

        :raises Stalled: it does not.
        """
        wait_until(lambda: not self._waiting, "the MQTT broker's acknowledgements to devices", timeout)

    def close(self) -> None:
        """Disconnect."""
        self.pause()
        self._client.disconnect()
        self._client.loop_stop()
