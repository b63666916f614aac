"""The way down: numbered messages in a RocketMQ topic, and what devices get of them over MQTT."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.faults.actors import Stalled, wait_until
from bench.faults.actors_down import Listener, Sender
from bench.faults.lab import Lab, Way
from bench.faults.ledger import Arrival

_ATTEMPTS = 64  # of the consumer group: kills use up one each


@contextmanager
def downlink(lab: Lab, **wanted: object) -> Iterator[Downlink]:
    """A gateway between a fresh topic and a fresh MQTT broker, with traffic on it; see :class:`Downlink`."""
    with ExitStack() as exits:
        way = Downlink(lab, exits, **wanted)  # type: ignore[arg-type]
        yield way
        way.finish()


class Downlink(Way):
    """A sender, a topic of four queues, devices with sessions, of which ``absent`` ones have not yet been there.

    With ``fifo`` each device is a message group. ``away`` is the downlink's; ``settings`` are tables or lines of
    [rocketmq].
    """

    in_flight = 1024  # downlink.max_in_flight

    def __init__(
        self,
        lab: Lab,
        exits: ExitStack,
        *,
        fifo: bool = False,
        devices: int = 10,
        absent: int = 0,
        away: str = "wait",
        settings: str = '[downlink]\ninvisible_time = "10s"',
    ) -> None:
        super().__init__(lab, exits, fifo=fifo)
        self.rate = lab.rate / 2
        topic = lab.rocketmq.create_topic(None, "FIFO" if fifo else "NORMAL", queues=4)
        group = lab.rocketmq.create_group(fifo=fifo, max_attempts=_ATTEMPTS)
        text = f"""
[[downlinks]]
topic = "{topic}"
consumer_group = "{group}"
mqtt_topic = "{self.run}/{{key}}/c"
away = "{away}"
"""
        self.make_gateway(exits, text, settings, {})
        self.gateway.start()
        self.arrived: list[Arrival] = []
        address = (self.mqtt.host, self.mqtt.port)
        self.devices = [
            Listener(address, f"{self.run}-{number}", f"{self.run}/{number}/c", self.arrived)
            for number in range(devices)
        ]
        for number, device in enumerate(self.devices):
            exits.callback(device.leave)
            if number >= absent:
                device.connect()
        self.sender = Sender(lab.rocketmq.endpoints, topic, self.run, devices=devices, fifo=fifo)
        exits.callback(self.sender.close)

    def steady(self, seconds: float = 2.0) -> None:
        """Traffic for a while: it begins with the first call, which also waits until the first message has come."""
        if self.sender.sent == 0:
            self.sender.begin(self.rate)
            wait_until(lambda: bool(self.arrived), "the first message to arrive")
        time.sleep(seconds)

    def delay(self, device: int) -> float:
        """The longest time from RocketMQ's answer to a device's first copy, of messages that came; seconds."""
        first: dict[int, float] = {}
        for number, at in list(self.arrived):
            if number.device == device:
                first.setdefault(number.seq, at - self.sender.acknowledged.get(number, at))
        return max(first.values(), default=0.0)

    def finish(self) -> None:
        """Send no more, wait until all has arrived, and end the gateway. What stalls is a failure of the row."""
        self.sender.pause()
        self._tally()
        try:
            self.wait_complete(self._is_complete, lambda: len(self.arrived))
            self.end_gateway()
        except Stalled as stalled:
            self.failed.append(str(stalled))
            self.gateway.kill()
        time.sleep(0.5)  # for copies that are on their way
        self._tally()
        if self.sender.failed:
            self.notes.append(f"RocketMQ took {self.sender.failed} not")

    def _is_complete(self) -> bool:
        self._tally()
        return not self.ledger.missing()

    def _tally(self) -> None:
        """What RocketMQ has answered for, and what devices have of that: of the rest no order is known."""
        self.ledger.sent = self.sender.sent
        self.ledger.acknowledged = set(self.sender.acknowledged)
        self.ledger.arrivals = [one for one in list(self.arrived) if one.number in self.ledger.acknowledged]
