"""One run of one case: start the bridge, load it, time it, read everything back, stop it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bench.environment import Case, Place, start_bridge, start_generator
from bench.payload import Phase, unpack
from bench.processes import Child, ChildError
from bench.procstat import busy_seconds, cpu_seconds, family, rss_mib
from bench.remoting import Broker
from bench.shapes import QUEUES
from bench.stats import Measurement, percentile

POLL = 0.04
STARTING = 60.0
"""Seconds until the first message has to be through: a busy machine starts a bridge slowly."""
WARM_UPS = 20
"""Seconds that a slow bridge gets to see every topic before the measured time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Durations in seconds."""

    idle: float = 2.0
    warm_up: float = 2.5
    load: float = 6.0
    paced: float = 4.0
    rate: float = 200.0
    drain: float = 30.0

    @classmethod
    def brief(cls, load: float) -> Timing:
        """For comparing gateways under load: as much load, little else."""
        return cls(idle=0.7, warm_up=1.3, load=load, paced=1.0)


_GIVE_UP = 15.0
"""Seconds without a message after which the rest counts as lost: more than a request's deadline and the pause after."""


class Arrivals(Protocol):
    """The far end of the bridge."""

    def arrived(self) -> int:
        """Messages that have come through since the run began."""


class Queues:
    """What RocketMQ holds of this run, by the offsets of the topic's queues."""

    def __init__(self, broker: Broker, case: Case, run_id: int) -> None:
        self._broker = broker
        self._topic = case.shape.topic
        self._size = case.shape.payload
        self._run_id = run_id
        self.begin = broker.max_offsets(self._topic, QUEUES)

    def arrived(self) -> int:
        """Messages stored since the run began."""
        return sum(self._broker.max_offsets(self._topic, QUEUES)) - sum(self.begin)

    def read(self) -> tuple[set[int], list[float]]:
        """Sequence numbers found, and latencies in ms of the paced messages."""
        found: set[int] = set()
        latencies = []
        end = self._broker.max_offsets(self._topic, QUEUES)
        for message in self._broker.read(self._topic, self.begin, end):
            stamp = unpack(message.body, self._size)
            if stamp.seq in found or stamp.run != self._run_id:
                continue
            found.add(stamp.seq)
            if stamp.phase == Phase.PACED:
                # RocketMQ cuts its time to whole milliseconds: half of one is what that loses on average.
                latencies.append(message.store_ms + 0.5 - stamp.sent_ns / 1e6)
        return found, latencies


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is read before and after the measured time. Times in seconds."""

    at: float
    arrived: int
    bridge_cpu: float
    generator_cpu: float
    generator_waited: float
    published: int
    machine_cpu: float

    @classmethod
    def read(cls, generator: Child, bridge: Child, far: Arrivals) -> Gauges:
        """Read them, the ones that are divided by each other next to each other."""
        waited, published = float(generator.ask("waited")), int(generator.ask("published"))
        machine_cpu = busy_seconds()
        generator_cpu, bridge_cpu = cpu_seconds(generator.pid), sum(map(cpu_seconds, family(bridge.pid)))
        return cls(
            arrived=far.arrived(),
            at=time.perf_counter(),
            bridge_cpu=bridge_cpu,
            generator_cpu=generator_cpu,
            generator_waited=waited,
            published=published,
            machine_cpu=machine_cpu,
        )


@dataclass(frozen=True, slots=True)
class Load:
    """The measured time: messages a second, microseconds a message, share of the time, cores in use."""

    rate: float
    cpu: float
    generator_cpu: float
    generator_waited: float
    bridge_cores: float
    other_cores: float

    @classmethod
    def between(cls, a: Gauges, b: Gauges) -> Load:
        """What happened from one reading to the next. Something arrived in between."""
        messages, seconds = b.arrived - a.arrived, b.at - a.at
        return cls(
            rate=messages / seconds,
            cpu=(b.bridge_cpu - a.bridge_cpu) / messages * 1e6,
            generator_cpu=(b.generator_cpu - a.generator_cpu) / max(1, b.published - a.published) * 1e6,
            generator_waited=(b.generator_waited - a.generator_waited) / seconds,
            bridge_cores=(b.bridge_cpu - a.bridge_cpu) / seconds,
            other_cores=(b.machine_cpu - a.machine_cpu - (b.bridge_cpu - a.bridge_cpu)) / seconds,
        )


class Run:
    """From devices to RocketMQ: the steps of a run, in order. ``say`` is told what happens now."""

    def __init__(self, place: Place, case: Case, run_id: int, timing: Timing, say: Callable[[str], None]) -> None:
        self._place = place
        self._case = case
        self._run_id = run_id
        self._timing = timing
        self._say = say
        self._unheard = 0
        """Probes sent before the bridge had subscribed: nobody's messages."""

    def measure(self, spans_received: Callable[[], int]) -> Measurement:
        """Do it.

        :raises ChildError: a process ended or nothing went through.
        :raises RemotingError: RocketMQ's broker did not let itself be read.
        """
        spans_before = spans_received()
        with Broker(self._place.broker_address) as broker:
            queues = Queues(broker, self._case, self._run_id)
            with (
                start_bridge(self._place, self._case, self._run_id) as bridge,
                start_generator(self._place, self._case, self._run_id) as generator,
            ):
                self._probe(generator, bridge, queues)
                self._say("idle")
                time.sleep(self._timing.idle)
                idle = sum(map(rss_mib, family(bridge.pid)))
                self._unheard = int(generator.ask("published")) - queues.arrived()
                load = self._load(generator, bridge, queues)
                loaded = sum(map(rss_mib, family(bridge.pid)))
                self._pace(generator, queues)
                result = json.loads(generator.ask("stop"))
                self._drain(queues, result["published"] - len(result["unacked"]))
                self._say("stopping")
            self._say("reading back")
            found, latencies = queues.read()
        promised = set(range(result["published"])) - set(result["unacked"])
        first_heard = min(found, default=0)  # probes that nobody heard are the lowest numbers
        heard = {seq for seq in promised if seq >= first_heard}
        if not latencies:
            raise ChildError(f"{self._case.label}: of {result['published']} messages none of the paced ones was stored")
        spans = self._settled(spans_received) - spans_before
        return Measurement(
            msgs_per_s=load.rate,
            cpu_us_per_msg=load.cpu,
            rss_mib=loaded,
            p50_ms=percentile(latencies, 0.5),
            p99_ms=percentile(latencies, 0.99),
            lost=len(heard - found),
            idle_rss_mib=idle,
            spans_per_msg=spans / max(1, len(found)),
            generator_waited=load.generator_waited,
            generator_us_per_msg=load.generator_cpu,
            bridge_cores=load.bridge_cores,
            other_cores=load.other_cores,
        )

    def _probe(self, generator: Child, bridge: Child, far: Arrivals) -> None:
        self._say("starting")
        deadline = time.monotonic() + STARTING
        while not far.arrived():
            if time.monotonic() > deadline or not bridge.alive:
                raise ChildError(f"{self._case.label}: no message came through; {bridge.tail()}")
            generator.tell("probe")
            time.sleep(0.1)

    def _load(self, generator: Child, bridge: Child, far: Arrivals) -> Load:
        self._say("warming up")
        self._feed(generator, bridge, far, self._timing.warm_up)
        for _ in range(WARM_UPS):
            if far.arrived() >= self._case.shape.devices:  # each topic has come once: what that costs is not measured
                break
            self._feed(generator, bridge, far, 1.0)
        self._say("load")
        before = Gauges.read(generator, bridge, far)
        self._feed(generator, bridge, far, self._timing.load)
        after = Gauges.read(generator, bridge, far)
        if after.arrived == before.arrived:
            raise ChildError(f"{self._case.label}: nothing went through under load; {bridge.tail()}")
        return Load.between(before, after)

    def _feed(self, generator: Child, bridge: Child, far: Arrivals, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not bridge.alive:
                raise ChildError(f"{self._case.label}: the bridge ended; {bridge.tail()}")
            generator.tell(f"limit {far.arrived() + self._case.backlog}")
            time.sleep(POLL)

    def _pace(self, generator: Child, far: Arrivals) -> None:
        self._say("draining")
        generator.tell("limit 0")
        self._drain(far, int(generator.ask("published")))
        self._say(f"{self._timing.rate:.0f} messages/s")
        count = int(self._timing.paced * self._timing.rate)
        generator.ask(f"pace {self._timing.rate} {count}", timeout=self._timing.paced * 3 + 10)

    def _drain(self, far: Arrivals, wanted: int) -> None:
        """Wait until everything published has arrived, or nothing more comes for some seconds: then it is lost."""
        deadline = time.monotonic() + self._timing.drain
        seen, since = -1, time.monotonic()
        while (now := far.arrived()) < wanted - self._unheard and time.monotonic() < deadline:
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > _GIVE_UP:
                return
            time.sleep(POLL)

    def _settled(self, spans_received: Callable[[], int]) -> int:
        """Spans received once no more come: the bridge flushed them when it stopped."""
        spans = spans_received()
        while True:
            time.sleep(0.1)
            if (now := spans_received()) == spans:
                return now
            spans = now
