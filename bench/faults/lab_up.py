"""The way up: numbered messages of devices over MQTT, and what a RocketMQ topic holds of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from bench.faults.actors import Fleet, Stalled
from bench.faults.lab import Lab, Way
from bench.faults.ledger import Arrival, Number
from bench.remoting import Broker, RemotingError
from spanbridge.devstack.rocketmq import MessageType


@contextmanager
def uplink(lab: Lab, **wanted: object) -> Iterator[Uplink]:
    """A gateway between a fresh MQTT broker and a fresh topic, with traffic on it; see :class:`Uplink`."""
    with ExitStack() as exits:
        way = Uplink(lab, exits, **wanted)  # type: ignore[arg-type]
        yield way
        way.finish()


class Uplink(Way):
    """Devices that number what they publish, and a topic.

    The topic has one queue; with ``fifo`` it has ``queues``, and each device is a message group: with several queues a
    message is a request of its own (so the gRPC proxy wants it), with one they share requests. ``settings`` are tables
    of the configuration, or lines of [rocketmq]; ``route`` is more of the route, and tables behind it.
    """

    in_flight = 4096  # uplink.max_in_flight

    def __init__(
        self,
        lab: Lab,
        exits: ExitStack,
        *,
        fifo: bool = False,
        queues: int = 4,
        devices: int = 10,
        rate: float | None = None,
        settings: str = "",
        route: str = "",
        environment: Mapping[str, str] | None = None,
        spare: bool = False,
    ) -> None:
        super().__init__(lab, exits, fifo=fifo, spare=spare)
        self.rate = rate or lab.rate
        self._queues = queues if fifo else 1
        kind: MessageType = "FIFO" if fifo else "NORMAL"
        self.topic = lab.rocketmq.create_topic(None, kind, queues=self._queues)
        self.make_gateway(exits, self._route(route), settings, environment or {})
        self.gateway.start()
        self.fleet = Fleet(self.mqtt.host, self.mqtt.port, self.run, f"{self.run}/{{}}/t", devices=devices)
        exits.callback(self.fleet.close)

    def _route(self, more: str) -> str:
        group = 'message_group = "{device}"' if self.fifo else ""
        return f"""
[[routes]]
filter = "{self.run}/{{device}}/t"
topic = "{self.topic}"
{group}
{more}
"""

    def steady(self, seconds: float = 2.0) -> None:
        """Traffic for a while: it begins with the first call."""
        if self.fleet.sent == 0:
            self.fleet.begin(self.rate)
        time.sleep(seconds)

    def finish(self) -> None:
        """Stop the traffic, wait until all has arrived, and end the gateway. What stalls is a failure of the row."""
        self.fleet.pause()
        try:
            self.fleet.settle()
            self.ledger.acknowledged = set(self.fleet.acknowledged)
            self.wait_complete(self._is_complete, self._stored)
            self.end_gateway()
        except Stalled as stalled:
            self.failed.append(str(stalled))
            self.gateway.kill()
        self.ledger.sent = self.fleet.sent
        self.ledger.acknowledged = set(self.fleet.acknowledged)
        self.ledger.arrivals = self._read()

    def _is_complete(self) -> bool:
        if self._stored() < len(self.ledger.acknowledged):  # a cheap look first
            return False
        self.ledger.arrivals = self._read()
        return not self.ledger.missing()

    def _stored(self) -> int:
        """Messages in the topic; 0 where the broker does not say."""
        try:
            with self._broker() as broker:
                return sum(broker.max_offsets(self.topic, self._queues))
        except (RemotingError, OSError):
            return 0

    def _read(self) -> list[Arrival]:
        """What the topic holds of this run. Within a queue in order of offsets, and a device has one queue."""
        with self._broker() as broker:
            end = broker.max_offsets(self.topic, self._queues)
            stored = broker.read(self.topic, [0] * self._queues, end)
            found = [(Number.read(one.body), one.store_ms / 1000) for one in stored]
        return [Arrival(number, at) for number, at in found if number is not None and number.run == self.run]

    def _broker(self) -> Broker:
        return Broker(f"{self.lab.rocketmq.host}:{self.lab.rocketmq.broker_port}")
