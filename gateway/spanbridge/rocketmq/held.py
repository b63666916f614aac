"""The messages in our hands: handed over and not known to be acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from spanbridge.core.delivery import Acknowledger, Delivery
from spanbridge.core.message import Message

_OVERHEAD = 1024
"""Bytes of memory that a message takes besides its body, about."""


class DeliveryAnswer(IntEnum):
    """What the holder of a delivery said of it."""

    NONE = 0
    ACK = 1
    NACK = 2
    REJECT = 3


@dataclass(frozen=True, slots=True)
class Arrival:
    """What messages of one read share. Both times are monotonic, in nanoseconds."""

    source: Acknowledger[Message]
    broker: str
    arrived_ns: int
    visible_ns: int


class ReceivedMessage(Delivery[Message]):
    """A delivery of RocketMQ's, with the receipt handle that answers it: text by gRPC, a checkpoint by remoting.

    ``visible_ns`` is when others may get the message (monotonic time in nanoseconds). ``changing`` is true while a
    request is under way that brings another handle: nothing else is done with the one we have. ``lost`` is true once
    RocketMQ does not know the handle any more: the message will come again.
    """

    __slots__ = ("answer", "broker", "changing", "handle", "key", "lost", "offset", "visible_ns")

    def __init__(self, message: Message, arrival: Arrival, handle: Any, offset: int) -> None:
        # Not through super(): once a message.
        self.message = message
        self.source = arrival.source
        self.size = len(message.body) + _OVERHEAD
        self.arrived_ns = arrival.arrived_ns
        self.expires_ns = None
        self.broker = arrival.broker
        self.handle = handle
        self.offset = offset
        self.visible_ns = arrival.visible_ns
        self.key: str = message.message_id
        self.answer = DeliveryAnswer.NONE
        self.changing = False
        self.lost = False


class Held:
    """Deliveries by message id, in the order in which their invisible time ends."""

    def __init__(self) -> None:
        self.unacked = 0
        self.bytes = 0
        self._known: dict[str, ReceivedMessage] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[ReceivedMessage]:
        return iter(list(self._known.values()))

    def take(self, delivery: ReceivedMessage) -> ReceivedMessage | None:
        """Add a delivery that has just come; or None, and the one that is in our hands has its handle now.

        The same id with the same place in the same queue is the same message. So is one with more attempts: a message
        that was not acknowledged in time comes from the group's retry topic, where it has another place. Otherwise it
        is a second copy (a producer that heard no answer sends again), which is acknowledged on its own.
        """
        known = self._known.get(delivery.key)
        if known is not None and not _same(known, delivery):
            delivery.key = f"{delivery.key} {delivery.message.queue} {delivery.offset}"
            known = self._known.get(delivery.key)
        if known is not None:
            known.handle, known.broker, known.lost = delivery.handle, delivery.broker, False
            self.keep(known, delivery.visible_ns)
            return known
        self._known[delivery.key] = delivery
        self.unacked += 1
        self.bytes += delivery.size
        return None

    def keep(self, delivery: ReceivedMessage, visible_ns: int) -> None:
        """A delivery is ours for longer."""
        delivery.visible_ns = visible_ns
        if self._known.get(delivery.key) is delivery:
            del self._known[delivery.key]
            self._known[delivery.key] = delivery

    def answer(self, delivery: ReceivedMessage, answer: DeliveryAnswer) -> bool:
        """Note an answer. False when there was one before."""
        if delivery.answer is not DeliveryAnswer.NONE or self._known.get(delivery.key) is not delivery:
            return False
        delivery.answer = answer
        self.unacked -= 1
        return True

    def forget(self, delivery: ReceivedMessage) -> None:
        """A delivery that was answered is no longer ours. Where it was forgotten before, it may be here once more."""
        if self._known.get(delivery.key) is delivery:
            del self._known[delivery.key]
            self.bytes -= delivery.size

    def ending(self, before_ns: int) -> list[ReceivedMessage]:
        """Unacked deliveries whose invisible time ends before a moment (monotonic, ns)."""
        ending = []
        for delivery in self._known.values():
            if delivery.visible_ns >= before_ns:
                break
            if delivery.answer is DeliveryAnswer.NONE and not delivery.changing and not delivery.lost:
                ending.append(delivery)
        return ending

    def oldest_ns(self) -> int | None:
        """When the oldest unacked delivery arrived (monotonic, ns)."""
        unacked = (known.arrived_ns for known in self._known.values() if known.answer is DeliveryAnswer.NONE)
        return min(unacked, default=None)


def _same(known: ReceivedMessage, again: ReceivedMessage) -> bool:
    one, other = known.message, again.message
    return (known.offset == again.offset and one.queue == other.queue) or other.attempt > one.attempt
