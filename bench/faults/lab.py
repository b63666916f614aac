"""Where scenarios run: brokers, and fault proxies between them and a gateway."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.faults.actors import GatewayProcess, Stalled
from bench.faults.front import Front, Protocol
from bench.faults.ledger import Ledger, Row
from spanbridge.devstack import Devstack, FaultProxy
from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.rocketmq import RocketmqBroker

_AGAIN = 60.0
QUIET = 90.0
"""Seconds without an arrival after which what is missing is lost."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """End what runs inside after ``seconds``, and its clean-up after a minute more. Main thread only.

    :raises Stalled: inside, from wherever it stands.
    """

    def over(_number: int, _frame: object) -> None:
        raise Stalled(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(kw_only=True, slots=True)
class Lab:
    """Where one scenario runs. ``seconds`` is how long its fault lasts where its name does not say it.

    ``rate`` is in messages a second. ``protocol`` is what the gateway speaks to RocketMQ.
    """

    rocketmq: RocketmqBroker
    protocol: Protocol
    directory: Path
    seconds: float
    rate: float
    rng: random.Random
    prefix: str
    kills: int = 50
    long: bool = False
    """Whether outages of minutes last minutes."""


class Way:
    """One direction: an MQTT broker of its own, RocketMQ, a gateway between them behind fault proxies.

    With ``fifo``, order is promised and judged. With ``spare``, the gateway has a second address of RocketMQ's,
    ``rocketmq_spare``, which refuses.
    """

    in_flight = 0
    """The gateway's bound on messages that are on their way."""
    gateway: GatewayProcess

    def __init__(self, lab: Lab, exits: ExitStack, *, fifo: bool, spare: bool = False) -> None:
        self.lab = lab
        self.run = lab.prefix
        self.ledger = Ledger()
        self.fifo = fifo
        self.returns: list[float] = []
        self.notes: list[str] = []
        self.failed: list[str] = []
        stack = exits.enter_context(Devstack.up(rocketmq=False, mqtt_v5=True, mqtt_v311=False))
        self.mqtt: MqttBroker = stack.mqtt_v5
        self.mqtt_proxy = exits.enter_context(FaultProxy(self.mqtt.host, self.mqtt.port))
        self.rocketmq_proxy = Front(lab.rocketmq, lab.protocol, exits)
        self.rocketmq_spare = Front(lab.rocketmq, lab.protocol, exits)
        self.rocketmq_spare.refuse()
        self._addresses = [self.rocketmq_proxy.endpoints, *([self.rocketmq_spare.endpoints] if spare else [])]

    def make_gateway(self, exits: ExitStack, text: str, settings: str, environment: Mapping[str, str]) -> None:
        """A gateway with this for its configuration; ``settings`` are tables, or lines of [rocketmq]."""
        follow = "follow_routes = false" if self.lab.protocol == "grpc" else ""  # past the fault proxy, those of gRPC
        config = f"""
name = "faults-{self.run}"
[[mqtt]]
url = "mqtt://{self.mqtt_proxy.endpoints}"
backoff_maximum = 1
keep_alive = 5
[rocketmq]
endpoints = "{";".join(self._addresses)}"
protocol = "{self.lab.protocol}"
{follow}
{settings}
{text}
"""
        self.gateway = GatewayProcess(self.lab.directory / self.run, config, environment)
        exits.callback(self.gateway.kill)

    def returned(self) -> None:
        """Note that the peer is back."""
        self.returns.append(time.time())

    def expect(self, what: str, condition: bool) -> None:
        """A promise of this scenario beside the numbers."""
        if not condition:
            self.failed.append(what)

    def kill_often(self, longest: float) -> None:
        """Kill the gateway (SIGKILL) and start it again, as often as the lab says.

        Each of its lives lasts from when its admin server listens, and at most ``longest`` seconds more.

        :raises Stalled: a life does not begin.
        """
        for _ in range(self.lab.kills):
            time.sleep(self.lab.rng.uniform(0.1, longest))
            self.gateway.kill()
            self.gateway.start(ready=False)
            self.gateway.wait_listening()
        self.notes.append(f"{self.lab.kills} kills")

    def wait_complete(self, is_complete: Callable[[], bool], progress: Callable[[], int]) -> None:
        """Wait for all that was acknowledged to arrive, for as long as more does.

        :raises Stalled: some is missing, and nothing has come for a while.
        """
        seen, since = progress(), time.monotonic()
        while not is_complete():
            time.sleep(0.5)
            if (now := progress()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > QUIET:
                raise Stalled(f"nothing came for {QUIET:g} s, and acknowledged messages are missing")

    def end_gateway(self) -> None:
        """Stop it in an orderly way, and look at what it logged.

        :raises Stalled: it does not end.
        """
        if not self.gateway.alive:
            self.gateway.start(ready=False)
        time.sleep(0.5)
        code = self.gateway.stop()
        self.expect(f"the gateway ended with {code}", code == 0)
        self.expect("internal error in the log", "internal error" not in self.gateway.log)
        self.expect("a stack trace in the log", "Traceback" not in self.gateway.log)

    def row(self, name: str) -> Row:
        """The result; at the end."""
        ledger = self.ledger
        return Row(
            name=name,
            sent=ledger.sent,
            acknowledged=len(ledger.acknowledged),
            delivered=len({arrival.number for arrival in ledger.arrivals}),
            lost=len(ledger.missing()),
            duplicated=ledger.duplicated(),
            out_of_order=ledger.out_of_order(),
            recovery_s=ledger.recovery(self.returns),
            rss_max_mib=round(self.gateway.rss_max, 1),
            order_promised=self.fifo,
            in_flight=self.in_flight,
            load=round(os.getloadavg()[0], 1),
            notes=self.notes,
            failed=self.failed,
        )
