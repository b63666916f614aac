"""What is told of one downlink's messages: counts, metrics, events and the ends of their spans. Never raises."""

from __future__ import annotations

from collections.abc import Sequence

from spanbridge.core.delivery import Delivery
from spanbridge.core.downlinks import Downlink
from spanbridge.core.errors import bare
from spanbridge.core.message import Message
from spanbridge.downlink import events
from spanbridge.downlink.outbound import Outbound
from spanbridge.downlink.tally import DownlinkTally
from spanbridge.ports import Clock, Reporter
from spanbridge.telemetry import DownlinkMetrics, Tracer
from spanbridge.telemetry.quiet import quietly, report_fault


class Accounts:
    """Keeps the tally of one downlink and tells telemetry."""

    def __init__(
        self, downlink: Downlink, *, tracer: Tracer, metrics: DownlinkMetrics, reporter: Reporter, clock: Clock
    ) -> None:
        self.tally = DownlinkTally()
        self.downlink = downlink
        self._tracer = tracer
        self._metrics = metrics
        self._reporter = reporter
        self._clock = clock

    def received(self, deliveries: Sequence[Delivery[Message]], outcomes: dict[str, int]) -> None:
        """Messages of one receive call. ``outcomes`` are of their contexts, and cleared."""
        self.tally.received += len(deliveries)
        self.tally.last_ns = deliveries[-1].message.received_ns
        quietly(self._reporter, self._metrics.consumed, self.downlink.topic, self.downlink.group, len(deliveries))
        for outcome, count in outcomes.items():
            quietly(self._reporter, self._metrics.context, outcome, count)
        outcomes.clear()

    def arrived(self, outbounds: Sequence[Outbound], error: str | None) -> None:
        """The MQTT broker has these. ``error`` tells of what it said beside that."""
        self.tally.published += len(outbounds)
        try:
            now = self._clock.now_ns()
            self._tracer.stored([outbound.trace for outbound in outbounds], now)
            self._count_arrived(outbounds, now, error)
        except Exception as fault:  # noqa: BLE001 - telemetry never stops a message
            report_fault(self._reporter, bare(fault), "telemetry")

    def failed(self, outbound: Outbound, reason: str) -> None:
        """The MQTT broker did not take this one."""
        if outbound.sent_ns:
            seconds = seconds_between(outbound.sent_ns, self._clock.now_ns())
            quietly(self._reporter, self._metrics.published, self.downlink.publish.text, seconds, error=reason)
            if outbound.trace is not None:
                outbound.trace.tried = True

    def parked(self, outbound: Outbound, reason: str, cause: str) -> None:
        """The MQTT broker did not take this one, and it is tried again here."""
        self.failed(outbound, reason)
        self._reporter.report(events.DownlinkParked(downlink=self.downlink.name, reason=reason, cause=cause))

    def ended(self, outbound: Outbound, reason: str) -> None:
        """This one is not published, or not now: its spans end with an error."""
        quietly(self._reporter, self._tracer.dropped, outbound.trace, self._clock.now_ns(), reason)

    def rejected(self, message: Message, reason: str, cause: str) -> None:
        """A message goes to the dead letters."""
        self.tally.rejected[reason] += 1
        self._reporter.report(events.DownlinkRejected(downlink=self.downlink.name, reason=reason, cause=cause))
        self._processed(message, reason)

    def dropped(self, message: Message, reason: str, cause: str) -> None:
        """A message goes nowhere, on purpose."""
        self.tally.dropped[reason] += 1
        self._reporter.report(events.DownlinkDropped(downlink=self.downlink.name, reason=reason, cause=cause))
        self._processed(message, reason)

    def nacked(self, messages: Sequence[Message], reason: str, cause: str) -> None:
        """Messages come again."""
        self.tally.nacked[reason] += len(messages)
        name, count = self.downlink.name, len(messages)
        self._reporter.report(events.DownlinkNacked(downlink=name, reason=reason, cause=cause, count=count))
        for message in messages:
            self._processed(message, reason)

    def fault(self, fault: Exception, where: str, count: int = 1) -> str:
        """A fault of ours; its cause in one line."""
        return report_fault(self._reporter, bare(fault), where, count)

    def _processed(self, message: Message, reason: str) -> None:
        seconds = seconds_between(message.received_ns, self._clock.now_ns())
        topic, group = self.downlink.topic, self.downlink.group
        quietly(self._reporter, self._metrics.process_duration, topic, group, seconds, error=reason)

    def _count_arrived(self, outbounds: Sequence[Outbound], now: int, error: str | None) -> None:
        """Messages of one receive call, published in one call, are counted together."""
        runs: dict[tuple[int, int], int] = {}
        for outbound in outbounds:
            run = (outbound.delivery.message.received_ns, outbound.sent_ns)
            runs[run] = runs.get(run, 0) + 1
        downlink, metrics = self.downlink, self._metrics
        for (received, sent), count in runs.items():
            metrics.published(downlink.publish.text, seconds_between(sent, now), count, error)
            metrics.process_duration(downlink.topic, downlink.group, seconds_between(received, now), count)


def seconds_between(start: int, end: int) -> float:
    """From one moment of Unix time to another. It may have been set back between them."""
    return max(0.0, (end - start) / 1e9)
