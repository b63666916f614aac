"""One downlink: its deliveries become publications, and the MQTT broker's answers acks, nacks and rejections."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from spanbridge.core.cache import Generations
from spanbridge.core.delivery import Delivery
from spanbridge.core.downlinks import Away, Downlink
from spanbridge.core.errors import NoSubscribers, SinkError, SinkRejected, bare
from spanbridge.core.mapping import Unroutable
from spanbridge.core.message import Message
from spanbridge.core.text import quoted
from spanbridge.downlink.accounts import Accounts
from spanbridge.downlink.maker import Maker
from spanbridge.downlink.order import MessageGroups
from spanbridge.downlink.outbound import Outbound
from spanbridge.downlink.parking import DownlinkSettings, Parking, is_the_devices
from spanbridge.downlink.recipe import DownlinkEnds
from spanbridge.ports import Clock, Publisher, QueueSource, Reporter
from spanbridge.telemetry import DownlinkMetrics, Tracer

_TRIES = 3
"""How often a message may meet a fault of ours: after that it is rejected, so that those behind it go on."""
_BEHIND = "an earlier message of its group comes again"


class Forwarder:
    """Carries the messages of one downlink from its source to its publisher."""

    def __init__(
        self,
        downlink: Downlink,
        source: QueueSource[Message],
        publisher: Publisher[Outbound],
        *,
        ends: DownlinkEnds,
        settings: DownlinkSettings,
        tracer: Tracer,
        metrics: DownlinkMetrics,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self.source = source
        self.publisher = publisher
        self.empty = asyncio.Event()
        self.empty.set()
        self.paused = False
        self.accounts = Accounts(downlink, tracer=tracer, metrics=metrics, reporter=reporter, clock=clock)
        self._tracer = tracer
        self._reporter = reporter
        self._clock = clock
        self._groups = MessageGroups()
        self.parking = Parking(settings, clock, self._retry)
        self.under_way: dict[Outbound, None] = {}
        """Messages that wait here, are parked, or are in the publisher's hands, in the order in which they came."""
        self._ready: deque[Outbound] = deque()
        self._publishing = False
        self._stopped = False
        self._faults: Generations[str, int] = Generations(256)
        self._worked_ns = 0
        self.use(downlink, ends, settings)

    def use(self, downlink: Downlink, ends: DownlinkEnds, settings: DownlinkSettings) -> None:
        """Make messages by these from now on. What is under way goes where it was meant to go."""
        self.downlink = self.accounts.downlink = downlink
        self.ends = ends
        self.settings = settings
        self.parking.use(settings)
        self._maker = Maker(downlink, ends, tracer=self._tracer, reporter=self._reporter, clock=self._clock)
        self.relieve()

    async def stop(self) -> None:
        """Publish nothing more: what is not answered goes back to RocketMQ. Idempotent."""
        self._stopped = True
        await self.parking.stop()

    def deliver(self, deliveries: list[Delivery[Message]]) -> None:
        """Take all deliveries of one receive call, in order. Never raises."""
        self.empty.clear()
        broken: set[str] = set()
        for delivery in deliveries:
            group = delivery.message.group
            if group is not None and group in broken:
                self._nack([delivery], "order", _BEHIND)
                continue
            try:
                outbound = self._maker.make(delivery)
            except Exception as error:  # noqa: BLE001 - one message must not stop those behind it
                if not self._refuse(delivery, bare(error)) and group is not None:
                    broken.add(group)
                continue
            self.under_way[outbound] = None
            if group is None or self._groups.admit(group, outbound):
                self._ready.append(outbound)
        self.accounts.received(deliveries, self._maker.outcomes)
        self._publish()
        self._hold()
        self.relieve()

    def published(self, outbounds: Sequence[Outbound], error: SinkError | None) -> None:
        """Take the MQTT broker's answer to these. Never raises."""
        try:
            mine = [outbound for outbound in outbounds if outbound in self.under_way]
            if mine:
                self._answered(mine, error)
        except Exception as fault:  # noqa: BLE001 - the source brings again what is not answered
            cause = self.accounts.fault(fault, "downlink.forwarder", len(outbounds))
            self._give_up([outbound for outbound in outbounds if outbound in self.under_way], "internal", cause)
        self._publish()
        self.relieve()

    def relieve(self) -> None:
        """Receive again when a quarter is free: not at every message, or pausing would be all we do."""
        source, settings = self.source, self.settings
        if not source.unacked:
            self.empty.set()
        if (
            self.paused
            and source.unacked < settings.max_in_flight * 3 // 4 + 1
            and source.held_bytes < settings.max_in_flight_bytes * 3 // 4 + 1
        ):
            self.paused = False
            source.resume()

    def _hold(self) -> None:
        source, settings = self.source, self.settings
        if not self.paused and (
            source.unacked >= settings.max_in_flight or source.held_bytes >= settings.max_in_flight_bytes
        ):
            self.paused = True
            source.pause()

    def _answered(self, outbounds: list[Outbound], error: SinkError | None) -> None:
        if error is None or (isinstance(error, NoSubscribers) and self.downlink.away is not Away.RETRY):
            self._arrived(outbounds, error)
        elif self._stopped:
            return  # it is given back
        elif isinstance(error, SinkRejected):
            for outbound in outbounds:
                cause = f"MQTT topic {quoted(outbound.made.topic)}: {error}"
                end = self._drop if error.reason == "expired" else self._reject
                end(outbound, error.reason, cause)
        else:
            self._give_up([one for one in outbounds if one.delivery.message.group is None], error.reason, str(error))
            for outbound in outbounds:
                if outbound.delivery.message.group is not None:
                    self._hindered(outbound, error)

    def _arrived(self, outbounds: list[Outbound], error: SinkError | None) -> None:
        """The MQTT broker has these: acknowledge them, then tell of it."""
        self._worked_ns = self._clock.monotonic_ns()
        for outbound in outbounds:
            del self.under_way[outbound]
            group = outbound.delivery.message.group
            if group is not None:
                self._next_of(group)
        self.source.ack([outbound.delivery for outbound in outbounds])
        self.accounts.arrived(outbounds, None if error is None else error.reason)

    def _hindered(self, outbound: Outbound, error: SinkError) -> None:
        """A message of a group cannot go now. Its whole queue would wait while it is nacked, so it is parked first."""
        if self.parking.park(outbound):
            self.accounts.parked(outbound, error.reason, str(error))
        elif is_the_devices(error, outbound, self._worked_ns):
            cause = f"MQTT topic {quoted(outbound.made.topic)}: {error}, after {self.settings.attempts} more attempt(s)"
            self._reject(outbound, error.reason, cause)
        else:
            self._give_up([outbound], error.reason, str(error))

    def _retry(self, outbound: Outbound) -> None:
        """The pause of a parked message is over."""
        self._ready.append(outbound)
        self._publish()
        self.relieve()

    def _publish(self) -> None:
        """Hand over what is ready. The publisher may answer at once: then this is called while it runs."""
        if self._publishing or self._stopped:
            return
        self._publishing = True
        try:
            while self._ready:
                batch = self._take_ready()
                if not batch:
                    continue
                try:
                    self.publisher.publish(batch, self.published)
                except Exception as fault:  # noqa: BLE001 - the source brings again what is not answered
                    cause = self.accounts.fault(fault, "downlink.forwarder", len(batch))
                    self._give_up([outbound for outbound in batch if outbound in self.under_way], "internal", cause)
        finally:
            self._publishing = False

    def _take_ready(self) -> list[Outbound]:
        """What is ready, without what nobody wants any more: it may have waited behind another."""
        now, sent_ns = self._clock.monotonic_ns(), self._clock.now_ns()
        ready, self._ready = self._ready, deque()
        batch: list[Outbound] = []
        for outbound in ready:
            if outbound.expires_ns is not None and now >= outbound.expires_ns:
                self._drop(outbound, "expired", "it expired while it waited")
            else:
                outbound.sent_ns = sent_ns
                batch.append(outbound)
        return batch

    def _next_of(self, group: str) -> None:
        behind = self._groups.leave(group)
        if behind is not None:
            self._ready.append(behind)

    def _done(self, outbound: Outbound, reason: str) -> None:
        """This one is neither published nor nacked: those behind it go on."""
        del self.under_way[outbound]
        self.accounts.ended(outbound, reason)
        group = outbound.delivery.message.group
        if group is not None:
            self._next_of(group)

    def _drop(self, outbound: Outbound, reason: str, cause: str) -> None:
        self._done(outbound, reason)
        self.source.ack([outbound.delivery])
        self.accounts.dropped(outbound.delivery.message, reason, cause)

    def _reject(self, outbound: Outbound, reason: str, cause: str) -> None:
        self.accounts.failed(outbound, reason)
        self._done(outbound, reason)
        self.source.reject([outbound.delivery], cause)
        self.accounts.rejected(outbound.delivery.message, reason, cause)

    def _give_up(self, outbounds: list[Outbound], reason: str, cause: str) -> None:
        """Nack these, and what waits behind them in their groups: it must not overtake them."""
        if not outbounds:
            return
        behind: list[Outbound] = []
        for outbound in outbounds:
            self.accounts.failed(outbound, reason)
            group = outbound.delivery.message.group
            if group is not None:
                behind += self._groups.behind(group)
        for outbound in (*outbounds, *behind):
            del self.under_way[outbound]
            self.accounts.ended(outbound, reason)
        self._nack([outbound.delivery for outbound in outbounds], reason, cause)
        if behind:
            self._nack([outbound.delivery for outbound in behind], "order", _BEHIND)

    def _nack(self, deliveries: list[Delivery[Message]], reason: str, cause: str) -> None:
        self.source.nack(deliveries, cause)
        self.accounts.nacked([delivery.message for delivery in deliveries], reason, cause)

    def _refuse(self, delivery: Delivery[Message], error: Exception) -> bool:
        """What becomes of a message that has no publication. False: a fault of ours, and it comes again."""
        message = delivery.message
        if isinstance(error, Unroutable):
            reason, cause = error.reason, str(error)
        else:
            reason, cause = "internal", self.accounts.fault(error, "downlink.maker")
            key = message.message_id or str(hash(message.body))
            met = (self._faults.get(key) or 0) + 1
            self._faults.put(key, met)
            if met < _TRIES:
                self._nack([delivery], reason, cause)
                return False
        if reason == "expired":
            self.source.ack([delivery])
            self.accounts.dropped(message, reason, cause)
        else:
            self.source.reject([delivery], cause)
            self.accounts.rejected(message, reason, cause)
        return True
