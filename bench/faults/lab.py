"""Where scenarios run: brokers, fault proxies between them and a gateway, and numbered traffic."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.faults.actors import Fleet, GatewayProcess, Stalled, wait_until
from bench.faults.ledger import Arrival, Ledger, Number, Row
from bench.remoting import Broker
from spanbridge.devstack import Devstack, FaultProxy
from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.mqtt_setup import MqttSetup
from spanbridge.devstack.rocketmq import MessageType, RocketmqBroker

RATE = 300.0
"""Messages a second."""


@dataclass(kw_only=True, slots=True)
class Lab:
    """Where one scenario runs. ``seconds`` is how long its fault lasts where its name does not say it."""

    rocketmq: RocketmqBroker
    directory: Path
    seconds: float
    rng: random.Random
    prefix: str

    @contextmanager
    def uplink(self, **wanted: object) -> Iterator[Uplink]:
        """A gateway between a fresh MQTT broker and a fresh topic, with traffic on it; see :class:`Uplink`."""
        with ExitStack() as exits:
            way = Uplink(self, exits, **wanted)  # type: ignore[arg-type]
            yield way
            way.finish()


class Uplink:
    """MQTT to RocketMQ: devices, a broker of their own, a gateway behind fault proxies, a topic.

    There is a second address of RocketMQ, ``rocketmq_spare``, that refuses. The topic has one queue, or four and
    message groups with ``fifo``: then, order is promised and judged. ``settings`` are more lines for the top of the
    configuration, ``route`` more of the route.
    """

    def __init__(
        self,
        lab: Lab,
        exits: ExitStack,
        *,
        fifo: bool = False,
        devices: int = 10,
        rate: float = RATE,
        setup: MqttSetup | None = None,
        settings: str = "",
        route: str = "",
        topic: str | None = None,
        environment: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        self.lab = lab
        self.run = lab.prefix
        self.rate = rate
        self.ledger = Ledger()
        self.fifo = fifo
        self.returns: list[float] = []
        self.notes: list[str] = []
        self.failed: list[str] = []
        self._queues = 4 if fifo else 1
        kind: MessageType = "FIFO" if fifo else "NORMAL"
        self.topic = topic or lab.rocketmq.create_topic(None, kind, queues=self._queues)
        stack = exits.enter_context(Devstack.up(rocketmq=False, mqtt_v5=setup or True, mqtt_v311=False))
        self.mqtt: MqttBroker = stack.mqtt_v5
        self.mqtt_proxy = exits.enter_context(FaultProxy(self.mqtt.host, self.mqtt.port))
        self.rocketmq_proxy = exits.enter_context(FaultProxy(lab.rocketmq.endpoints))
        self.rocketmq_spare = exits.enter_context(FaultProxy(lab.rocketmq.endpoints))
        self.rocketmq_spare.refuse()
        self._begin = self._offsets() if topic is None else [0] * self._queues
        config = self._config(settings, route)
        directory = lab.directory / self.run
        self.gateway = GatewayProcess(directory, config, environment or {})
        exits.callback(self.gateway.kill)
        if start:
            self.gateway.start()
        self.fleet = Fleet(self.mqtt.host, self.mqtt.port, self.run, f"{self.run}/{{}}/t", devices=devices)
        exits.callback(self.fleet.close)

    def _config(self, settings: str, route: str) -> str:
        group = 'message_group = "{device}"' if self.fifo else ""
        return f"""
name = "faults-{self.run}"
{settings}
[[mqtt]]
url = "mqtt://{self.mqtt_proxy.endpoints}"
backoff_maximum = 1
keep_alive = 5
[rocketmq]
endpoints = "{self.rocketmq_proxy.endpoints};{self.rocketmq_spare.endpoints}"
follow_routes = false
[[routes]]
filter = "{self.run}/{{device}}/t"
topic = "{self.topic}"
{group}
{route}
"""

    # -- what scenarios do ------------------------------------------------------------------------------------------

    def steady(self, seconds: float = 2.0) -> None:
        """Traffic for a while: it begins with the first call."""
        if self.fleet.sent == 0:
            self.fleet.begin(self.rate)
        time.sleep(seconds)

    def returned(self) -> None:
        """Note that the peer is back."""
        self.returns.append(time.time())

    def expect(self, what: str, condition: bool) -> None:
        """A promise of this scenario beside the numbers."""
        if not condition:
            self.failed.append(what)

    # -- the end ----------------------------------------------------------------------------------------------------

    def finish(self, timeout: float = 90.0) -> None:
        """Stop the traffic, wait until all has arrived, or until nothing more does, and end the gateway."""
        self.fleet.pause()
        try:
            self.fleet.settle()
            self.ledger.acknowledged = set(self.fleet.acknowledged)
            wait_until(self._is_complete, "all acknowledged messages in RocketMQ", timeout, every=0.5)
            if not self.gateway.alive:
                self.gateway.start(ready=False)
            time.sleep(0.5)
            code = self.gateway.stop()
            self.expect(f"the gateway ended with {code}", code == 0)
        except Stalled as stalled:
            self.failed.append(str(stalled))
            self.gateway.kill()
        self.expect("internal error in the log", "internal error" not in self.gateway.log)
        self.expect("a stack trace in the log", "Traceback" not in self.gateway.log)
        self.ledger.sent = self.fleet.sent
        self.ledger.acknowledged = set(self.fleet.acknowledged)
        self.ledger.arrivals = self._read()

    def _offsets(self) -> list[int]:
        with Broker(f"{self.lab.rocketmq.host}:{self.lab.rocketmq.broker_port}") as broker:
            return broker.max_offsets(self.topic, self._queues)

    def _is_complete(self) -> bool:
        stored = sum(self._offsets()) - sum(self._begin)
        if stored < len(self.ledger.acknowledged):  # a cheap look first
            return False
        self.ledger.arrivals = self._read()
        return not self.ledger.missing()

    def _read(self) -> list[Arrival]:
        """What the topic holds of this run. Within a queue in order of offsets, and a device has one queue."""
        with Broker(f"{self.lab.rocketmq.host}:{self.lab.rocketmq.broker_port}") as broker:
            end = broker.max_offsets(self.topic, self._queues)
            found = [(Number.read(one.body), one.store_ms / 1000) for one in broker.read(self.topic, self._begin, end)]
        return [Arrival(number, at) for number, at in found if number is not None and number.run == self.run]

    def row(self, name: str) -> Row:
        """The result; after :meth:`finish`."""
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
            notes=self.notes,
            failed=self.failed,
        )
