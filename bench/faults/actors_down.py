"""The two ends of the way down: who numbers messages for a RocketMQ topic, and devices that note what comes."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import grpc
import paho.mqtt.client as paho
from google.protobuf.timestamp_pb2 import Timestamp
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from rocketmq.grpc_protocol import definition_pb2 as definition
from rocketmq.grpc_protocol import service_pb2 as service
from rocketmq.grpc_protocol.service_pb2_grpc import MessagingServiceStub

from bench.faults.actors import wait_until
from bench.faults.ledger import Arrival, Number

_TIMEOUT = 5.0
_AFTER_FAILURE = 0.2
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]


class Sender:
    """An application that sends to devices by RocketMQ's own client protocol. Acknowledged is what RocketMQ has stored.

    It works in rounds, a message for each device. With ``fifo`` each device is a message group, and its next message
    goes only after the answer to the one before; what fails is not sent again.
    """

    def __init__(self, endpoints: str, topic: str, run: str, *, devices: int, fifo: bool) -> None:
        self.sent = 0
        self.acknowledged: dict[Number, float] = {}
        """With the moment of RocketMQ's answer, Unix time in seconds."""
        self.failed = 0
        self._channel = grpc.insecure_channel(endpoints, options=_CHANNEL)
        self._stub = MessagingServiceStub(self._channel)
        self._topic = topic
        self._run = run
        self._devices = devices
        self._fifo = fifo
        self._seq = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, rate: float) -> None:
        """Send ``rate`` messages a second, or as many as RocketMQ takes, until :meth:`pause`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._send_at, args=(self._devices / rate,), daemon=True)
        self._thread.start()

    def _send_at(self, interval: float) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            pause = 0.0 if self.round() else _AFTER_FAILURE
            due = max(due + interval, time.monotonic() - 1.0)  # nothing is made up for that is more than 1 s late
            self._stop.wait(max(pause, due - time.monotonic()))

    def round(self) -> bool:
        """One message for each device; whether RocketMQ has them all."""
        numbers = [Number(self._run, device, self._seq) for device in range(self._devices)]
        self._seq += 1
        self.sent += len(numbers)
        parts = [[number] for number in numbers] if self._fifo else [numbers]
        calls = [(self._call(part), part) for part in parts]
        stored = [self._is_stored(call, part) for call, part in calls]
        return all(stored)

    def _call(self, numbers: Sequence[Number]) -> Any:
        request = service.SendMessageRequest(messages=[self._encoded(number) for number in numbers])
        return self._stub.SendMessage.future(request, timeout=_TIMEOUT, metadata=[("x-mq-client-id", self._run)])

    def _is_stored(self, call: Any, numbers: Sequence[Number]) -> bool:
        stored = False
        with contextlib.suppress(grpc.RpcError):
            stored = call.result().status.code == definition.OK
        if stored:
            self.acknowledged.update(dict.fromkeys(numbers, time.time()))
        else:
            self.failed += len(numbers)
        return stored

    def _encoded(self, number: Number) -> definition.Message:
        kind = definition.MessageType.FIFO if self._fifo else definition.MessageType.NORMAL
        system = definition.SystemProperties(
            message_id=f"01{uuid.uuid4().hex.upper()}",
            message_type=kind,
            body_encoding=definition.Encoding.IDENTITY,
            born_host="127.0.0.1",
            born_timestamp=Timestamp(seconds=int(time.time())),
            keys=[str(number.device)],
        )
        if self._fifo:
            system.message_group = str(number.device)
        return definition.Message(
            topic=definition.Resource(name=self._topic), system_properties=system, body=number.body()
        )

    def pause(self) -> None:
        """Send no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2 * _TIMEOUT)
            self._thread = None

    def close(self) -> None:
        """End for good."""
        self.pause()
        self._channel.close()


class Listener:
    """A device that subscribes to ``topic``, with a session that outlives its connection. It notes what comes.

    ``delay`` is what it takes for one message, in seconds.
    """

    def __init__(self, address: tuple[str, int], client_id: str, topic: str, arrivals: list[Arrival]) -> None:
        self.delay = 0.0
        self._address = address
        self._client_id = client_id
        self._topic = topic
        self._arrivals = arrivals
        self._granted = threading.Event()
        self._client: paho.Client | None = None

    def connect(self) -> None:
        """Connect and wait for the subscription; again after :meth:`leave`.

        :raises Stalled: the broker does not answer.
        """
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self._client_id, protocol=paho.MQTTv5)
        client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]
        client.on_message = self._on_message
        client.on_connect = lambda made, *_: made.subscribe(self._topic, 1)
        client.on_subscribe = lambda *_: self._granted.set()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        self._granted.clear()
        client.connect(*self._address, clean_start=False, properties=properties)
        client.loop_start()
        self._client = client
        wait_until(self._granted.is_set, f"the subscription of {self._client_id}")

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        if self.delay:
            time.sleep(self.delay)
        number = Number.read(bytes(message.payload))
        if number is not None:
            self._arrivals.append(Arrival(number, time.time()))

    def leave(self) -> None:
        """Disconnect. The session stays with the broker."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None
