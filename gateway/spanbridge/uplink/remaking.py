"""Records of the spool as messages again: ready to be sent, by the routes of the day, or dropped with a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spanbridge.core import spooled as form
from spanbridge.core.delivery import Acknowledger, Delivery
from spanbridge.core.message import Publish
from spanbridge.core.partition import Partition
from spanbridge.core.spooled import AGAIN, Record, Spooled, SpooledError
from spanbridge.ports import Clock, Reporter, Spool
from spanbridge.uplink import events
from spanbridge.uplink.dead_letters import Kept
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.recipe import Outgoing
from spanbridge.uplink.rejects import Rejects

_new = object.__new__

Remade = tuple["SpooledDelivery", Outgoing | Kept]


class SpooledDelivery(Delivery[Publish]):
    """A message out of the spool, by its number there. ``partition`` is where it was given.

    :class:`Remaker` makes these without a constructor, which would take as long again.
    """

    __slots__ = ("intake", "number", "partition")

    intake: Intake
    number: int
    partition: Partition[Outgoing] | None


class Remaker:
    """Makes deliveries for ``acknowledger``. ``max_age`` is in seconds since a message was received."""

    def __init__(
        self,
        spool: Spool,
        intakes: Sequence[Intake],
        *,
        rejects: Rejects,
        reporter: Reporter,
        clock: Clock,
        boot_ns: Callable[[], int],
        max_age: float | None,
    ) -> None:
        self.max_age = max_age
        self.oldest_ns: int | None = None
        """When the message was received that was read last (Unix time, ns)."""
        self._spool = spool
        self._intakes = intakes
        self._rejects = rejects
        self._reporter = reporter
        self._clock = clock
        self._boot_ns = boot_ns

    def make(self, record: Record, acknowledger: Acknowledger[Publish], now_ns: int, begun_ns: int) -> Remade | None:
        """The message of a record, ready to be sent; None: it is none, or was dropped. Hot path while a backlog drains.

        ``now_ns`` (monotonic) and ``begun_ns`` (Unix time) are when it was read: the same for many.
        """
        try:
            spooled = form.decode(record.body)
        except SpooledError as error:
            self._reporter.report(events.SpoolUnreadable(cause=f"message {record.number} is no message: {error}"))
            return None
        publish = spooled.publish
        self.oldest_ns = publish.received_ns
        intakes = self._intakes
        intake = intakes[0] if intakes and not spooled.source else self.intake_of(spooled)
        if intake is None:
            return None
        expires: int | None = None
        if publish.expiry is not None or self.max_age is not None:
            left, reason = self._left_of(record, spooled)
            if reason is not None:
                cause = "it was in the spool for too long"
                self._rejects.dropped(publish, intake.tallies.get(intake.filter_of(publish.topic)), reason, cause)
                return None
            expires = None if left is None else now_ns + left
        delivery = _new(SpooledDelivery)
        delivery.message = publish
        delivery.source = acknowledger
        delivery.size = len(record.body)
        delivery.arrived_ns = now_ns
        delivery.expires_ns = expires
        delivery.number = record.number
        delivery.intake = intake
        delivery.partition = None
        outgoing = intake.replay(delivery, spooled, begun_ns)
        return None if outgoing is None else (delivery, outgoing)

    def intake_of(self, spooled: Spooled) -> Intake | None:
        """The way in of the source that a message came from, or of another; None: there is none at all."""
        if spooled.source:
            for intake in self._intakes:
                if intake.source.name == spooled.source:
                    return intake
        return self._intakes[0] if self._intakes else None

    def _left_of(self, record: Record, spooled: Spooled) -> tuple[int | None, str | None]:
        """Nanoseconds until a message expires, if it does, and why it is to be dropped, if it is."""
        boot, now = self._spool.boot, self._clock.now_ns()
        same_boot = bool(boot) and self._spool.boot_of(record.number) == boot
        boot_now = self._boot_ns()
        left = form.left_ns(spooled, now_ns=now, boot_now_ns=boot_now, same_boot=same_boot)
        if left is not None and left <= 0:
            return left, "expired"
        received = spooled.publish.received_ns
        age = form.age_ns(spooled, received, now_ns=now, boot_now_ns=boot_now, same_boot=same_boot)
        too_old = self.max_age is not None and age > self.max_age * 1e9 and record.kind != AGAIN
        return left, "max_age" if too_old else None
