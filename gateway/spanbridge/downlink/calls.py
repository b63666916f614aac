"""Telemetry of a consumer's calls to RocketMQ: what it asks for and acknowledges is told here, call by call."""

from __future__ import annotations

from collections.abc import Sequence

from spanbridge.core.downlinks import Downlink
from spanbridge.core.message import Message
from spanbridge.downlink.accounts import seconds_between
from spanbridge.downlink.carriers import context_of
from spanbridge.downlink.recipe import queue_hop
from spanbridge.ports import Reporter
from spanbridge.telemetry import DownlinkMetrics, Peer, Tracer
from spanbridge.telemetry.quiet import quietly
from spanbridge_context import TraceContext


class ConsumerCalls:
    """Spans and durations of one downlink's ``receive`` and ``ack`` calls. Synchronous; never raises.

    Times are Unix time in nanoseconds, ``error`` is an ``error.type``.
    """

    def __init__(
        self, downlink: Downlink, cluster: Peer, *, tracer: Tracer, metrics: DownlinkMetrics, reporter: Reporter
    ) -> None:
        self._downlink = downlink
        self._metrics = metrics
        self._reporter = reporter
        self._received = tracer.calls(queue_hop("receive", downlink, cluster))
        self._acked = tracer.calls(queue_hop("ack", downlink, cluster))

    def received(self, messages: Sequence[Message], start_ns: int, end_ns: int) -> None:
        """A call that brought messages. One that brought none is nothing to tell of."""
        if messages:
            quietly(self._reporter, self._tell_received, messages, start_ns, end_ns)

    def acked(self, topic: str, count: int, start_ns: int, end_ns: int, error: str | None = None) -> None:
        """A call that acknowledged ``count`` messages of ``topic``, or failed to."""
        quietly(self._reporter, self._tell_acked, topic, count, start_ns, end_ns, error)

    def _tell_received(self, messages: Sequence[Message], start_ns: int, end_ns: int) -> None:
        downlink = self._downlink
        self._metrics.called("receive", downlink.topic, downlink.group, seconds_between(start_ns, end_ns))
        if self._received is not None:

            def contexts() -> list[TraceContext]:
                return _contexts(messages) if downlink.trust else []

            self._received.record(len(messages), start_ns, end_ns, contexts=contexts)

    def _tell_acked(self, topic: str, count: int, start_ns: int, end_ns: int, error: str | None) -> None:
        self._metrics.called("ack", topic, self._downlink.group, seconds_between(start_ns, end_ns), error)
        if self._acked is not None:
            self._acked.record(count, start_ns, end_ns, error=error)


def _contexts(messages: Sequence[Message]) -> list[TraceContext]:
    found = (context_of(message).context for message in messages)
    return [context for context in found if context is not None]
