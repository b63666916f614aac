"""One run of one case on the way down: commands wait in RocketMQ, the bridge takes them to subscribed devices."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from bench.commander import CHUNK
from bench.environment import Case, Place, log_of, start_gateway, started, surroundings
from bench.processes import Child, ChildError
from bench.procstat import rss_mib
from bench.run import POLL, WARM_UPS, Arrivals, Gauges, Load, Run, Timing
from bench.shapes import PLAIN
from bench.stats import Measurement, percentile

SHAPES_DOWN = (PLAIN.name, "ordered")
"""Shapes of work that there are on the way down. Of a shape only its number of devices and its message type matter."""
RATE = 100.0
"""Commands a second while latencies are measured."""
MARGIN = 1.3
"""How much more waits than the warm-up's rate would take in the measured time."""
LEAST = 2000
"""Messages that wait at any time."""
FILLING = 20.0
"""Seconds that filling may take."""


def config(place: Place, run_id: int, topic: str, *, remoting: bool = False, receive_by: str = "auto") -> str:
    """A configuration with one downlink and every other setting as it comes. ``receive_by`` is for remoting alone."""
    setting = place.setting(run_id)
    endpoints = f'"{setting.rocketmq}"'
    if remoting:
        endpoints = f'"{setting.name_server}"\nprotocol = "remoting"\nreceive_by = "{receive_by}"'
    return f"""\
name = "bench-{run_id}"

[mqtt]
url = "mqtt://{setting.mqtt}"

[rocketmq]
endpoints = {endpoints}

[[downlinks]]
topic = "{topic}"
consumer_group = "{topic}"
mqtt_topic = "bench/{run_id}/{{key}}"

[admin]
port = 0
"""


class Devices:
    """The far end: what the devices have received."""

    def __init__(self, device: Child) -> None:
        self._device = device

    def arrived(self) -> int:
        """Different messages since the run began."""
        return int(self._device.ask("received"))


class DownRun(Run):
    """From RocketMQ to devices: as on the way up, with the ends exchanged."""

    receive_by = "auto"
    """How the gateway receives by remoting."""

    def __init__(self, place: Place, case: Case, run_id: int, timing: Timing, say: Callable[[str], None]) -> None:
        super().__init__(place, case, run_id, replace(timing, rate=RATE), say)
        self._topic = f"bench-commands-{run_id}"

    def measure(self, spans_received: Callable[[], int]) -> Measurement:
        """Do it.

        :raises ChildError: a process ended or nothing went through.
        """
        spans_before = spans_received()
        self._place.commands(self._topic, self._case.shape.message_type)
        with (
            self._start_device() as device,
            self._start_bridge() as bridge,
            self._start_commander() as commander,
        ):
            devices = Devices(device)
            self._probe(commander, bridge, devices)
            self._say("idle")
            time.sleep(self._timing.idle)
            idle = rss_mib(bridge.pid)
            load = self._load(commander, bridge, devices)
            loaded = rss_mib(bridge.pid)
            self._pace(commander, devices)
            published = json.loads(commander.ask("stop"))["published"]
            self._drain(devices, published)
            bridge.stop()  # its last acknowledgements and spans leave
            lost = json.loads(device.ask(f"missing {published}"))
            result = json.loads(device.ask("stop"))
        if not result["latencies"]:
            raise ChildError(f"{self._case.label}: of {published} commands none of the paced ones arrived")
        if self._case.shape.message_type == "FIFO" and result["late"]:
            raise ChildError(f"{self._case.label}: {result['late']} commands came after later ones of their device")
        return Measurement(
            msgs_per_s=load.rate,
            cpu_us_per_msg=load.cpu,
            rss_mib=loaded,
            p50_ms=percentile(result["latencies"], 0.5),
            p99_ms=percentile(result["latencies"], 0.99),
            lost=len(lost),
            idle_rss_mib=idle,
            spans_per_msg=(self._settled(spans_received) - spans_before) / published,
            generator_waited=load.generator_waited,
            generator_us_per_msg=load.generator_cpu,
        )

    def _load(self, generator: Child, bridge: Child, far: Arrivals) -> Load:
        """Warm up, have as much wait in RocketMQ as the measured time will take, then measure.

        RocketMQ's JVM takes most of the processor for storing and most for handing out: what is to be measured is the
        bridge, so the two do not happen at once. Where the warm-up's rate was too low a guess, more is sent meanwhile.
        """
        self._say("warming up")
        self._feed(generator, bridge, far, self._timing.warm_up)
        for _ in range(WARM_UPS):
            began, arrived = time.perf_counter(), far.arrived()
            self._feed(generator, bridge, far, 1.0)
            rate = (far.arrived() - arrived) / (time.perf_counter() - began)
            if far.arrived() >= self._case.shape.devices:
                break
        self._say("filling RocketMQ")
        backlog = int(rate * self._timing.load * MARGIN) + LEAST
        limit = self._fill(generator, far, backlog)
        self._say("load")
        before = Gauges.read(generator, bridge, far)
        end = time.monotonic() + self._timing.load
        while time.monotonic() < end and bridge.alive:
            limit = max(limit, far.arrived() + LEAST)
            generator.tell(f"limit {limit}")
            time.sleep(POLL)
        after = Gauges.read(generator, bridge, far)
        if after.arrived == before.arrived:
            raise ChildError(f"{self._case.label}: nothing went through under load; {bridge.tail()}")
        return Load.between(before, after)

    def _fill(self, generator: Child, far: Arrivals, backlog: int) -> int:
        """Have so many messages wait, or as many as some seconds allow; return how many were to be sent in all."""
        limit, deadline = 0, time.monotonic() + FILLING
        while time.monotonic() < deadline:
            arrived = far.arrived()
            if int(generator.ask("published")) >= arrived + backlog:
                break
            limit = arrived + backlog + CHUNK * 4
            generator.tell(f"limit {limit}")
            time.sleep(POLL)
        return limit

    def _start_device(self) -> Child:
        place = self._place
        command = [sys.executable, "-m", "bench.device", "--host", place.mqtt_host, "--port", str(place.mqtt_port)]
        command += ["--run-id", str(self._run_id), "--devices", str(self._case.shape.devices)]
        return started(command, place.directory / f"{self._run_id}-device.log")

    def _start_commander(self) -> Child:
        place, shape = self._place, self._case.shape
        command = [sys.executable, "-m", "bench.commander", "--endpoints", place.rocketmq_endpoints]
        command += ["--topic", self._topic, "--run-id", str(self._run_id), "--devices", str(shape.devices)]
        command += ["--ordered"] if shape.message_type == "FIFO" else []
        return started(command, place.directory / f"{self._run_id}-commander.log")

    def _start_bridge(self) -> Child:
        place, case, run_id = self._place, self._case, self._run_id
        if case.mode.bridge == "gateway":
            made = config(place, run_id, self._topic, remoting=case.mode.remoting, receive_by=self.receive_by)
            return start_gateway(place, case, run_id, made)
        command = [sys.executable, "-m", "bench.baseline_downlink", "--host", place.mqtt_host]
        command += ["--port", str(place.mqtt_port), "--client-id", f"bench-{run_id}", "--topic", self._topic]
        command += ["--endpoints", place.rocketmq_endpoints, "--publish", f"bench/{run_id}"]
        return Child(command, log_of(place, case, run_id), surroundings(place))
