"""The gateway's tracer: begins messages' traces and ends their spans a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Protocol

from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanKind

from spanbridge.core.policy import ContextPolicy
from spanbridge.telemetry import ids, sampling, trace, wire
from spanbridge.telemetry.asking import AskingRoute
from spanbridge.telemetry.env import TelemetryConfigError
from spanbridge.telemetry.peer import Peer
from spanbridge.telemetry.route import (
    DESTINATION,
    RecordingRoute,
    RouteSpans,
    RouteTracer,
    SilentRoute,
)
from spanbridge.telemetry.trace import MessageTrace

_CHILD = Struct("<2s16s2s8s2s8sBQBQ").pack
_ROOT = Struct("<2s16s2s8sBQBQ").pack

_KEPT = 4096
"""Routes and RocketMQ topics prepared at a time: devices may have a say in a topic's name."""


class SpanSink(Protocol):
    """Takes framed spans that have ended. Never blocks, never raises."""

    def add(self, spans: Sequence[bytes]) -> None:
        """Take them."""


class Tracer:
    """One per gateway; not for several threads.

    ``sink`` is where ended spans go, None when tracing is off. ``source`` and ``target`` describe the MQTT broker and
    RocketMQ. Times are Unix time in nanoseconds.

    :raises TelemetryConfigError: a variable of the SDK's span limits cannot be used.
    """

    def __init__(
        self,
        sink: SpanSink | None,
        *,
        sampler: Sampler | None = None,
        source: Peer | None = None,
        target: Peer | None = None,
        limits: SpanLimits | None = None,
    ) -> None:
        self._sink = sink
        self._sampler = sampler or sampling.sampler_from_environment()
        self._bounds = sampling.bounds(self._sampler)
        self._source = source or Peer()
        self._target = target or Peer()
        limits = limits or _limits_from_environment()
        self._value_limit = limits.max_span_attribute_length
        self._max_links = limits.max_links
        self._routes: dict[tuple[str, str, ContextPolicy, bool, Peer, bool], RouteTracer] = {}
        self._batches: dict[str, bytes] = {}

    @property
    def enabled(self) -> bool:
        """Whether any spans are made."""
        return self._sink is not None

    def route(
        self,
        *,
        filter: str,  # noqa: A002 - the word of MQTT
        topic: str,
        policy: ContextPolicy,
        trust: bool,
        source: Peer | None = None,
        per_message: bool = False,
    ) -> RouteTracer:
        """The tracer for messages matched by ``filter`` on their way to the RocketMQ topic ``topic``. Cached.

        ``source`` is the MQTT broker they came from, when there are several. ``per_message`` says that messages of one
        MQTT topic may have different tags, keys, groups or delivery times.
        """
        key = (filter, topic, policy, trust, source or self._source, per_message)
        found = self._routes.get(key)
        if found is None:
            if len(self._routes) >= _KEPT:
                self._routes.clear()
            found = self._routes[key] = self._make(*key)
        return found

    def _make(  # noqa: PLR0917 - the key of a cache
        self, template: str, topic: str, policy: ContextPolicy, trust: bool, source: Peer, per_message: bool
    ) -> RouteTracer:
        if self._sink is None:
            return SilentRoute(trust=trust)
        spans = RouteSpans(
            process_name=f"process {template}",
            send_name=f"send {topic}",
            process_attributes={
                "messaging.system": "mqtt",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.template": template,
                **source.attributes(),
            },
            send_attributes=self._send_attributes(topic),
            per_message=per_message,
            value_limit=self._value_limit,
        )
        follow = trust and policy is not ContextPolicy.LINK
        link = trust and policy is ContextPolicy.LINK
        passthrough = policy is ContextPolicy.PASSTHROUGH
        if self._bounds is None:
            return AskingRoute(spans, self._sampler, follow=follow, link=link, passthrough=passthrough)
        return RecordingRoute(spans, self._bounds, follow=follow, link=link, passthrough=passthrough)

    def _send_attributes(self, topic: str) -> dict[str, object]:
        return {
            "messaging.system": "rocketmq",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            DESTINATION: topic,
            **self._target.attributes(),
        }

    def sent(
        self, traces: Sequence[MessageTrace], start_ns: int, end_ns: int, topic: str, error: str | None = None
    ) -> None:
        """Record one attempt to send a batch to the RocketMQ topic ``topic``.

        Makes a CLIENT span, with a link per recorded message, unless none is. ``error`` is its ``error.type``. An
        attempt that worked also ends the messages' own ``send`` spans.
        """
        if self._sink is None:
            return
        recorded = [one for one in traces if one.send]
        if not recorded:
            return
        error = error[: self._value_limit] if error is not None else None
        spans = [self._batch_span(recorded, len(traces), start_ns, end_ns, topic, error)]
        if error is None:
            tail = trace.ended(end_ns)
            spans += [one.send + tail for one in recorded]
        else:
            for one in recorded:
                one.try_failed()
        self._sink.add(spans)

    def settled(self, traces: Sequence[MessageTrace], end_ns: int) -> None:
        """End the ``process`` spans of messages that are stored."""
        if self._sink is None:
            return
        tail = trace.ended(end_ns)
        spans = [one.process + tail for one in traces if one.process]
        if spans:
            self._sink.add(spans)

    def dropped(self, message: MessageTrace, end_ns: int, reason: str) -> None:
        """End a message's spans with an error: it will not be sent. ``reason`` becomes ``error.type``.

        Its ``send`` span appears only when sending was tried.
        """
        if self._sink is None:
            return
        reason = reason[: self._value_limit]
        spans = [trace.failed(message.process, end_ns, reason)] if message.process else []
        if message.tried and message.send:
            spans.append(trace.failed(message.send, end_ns, reason))
        if spans:
            self._sink.add(spans)

    def _batch_span(  # noqa: PLR0917
        self, recorded: list[MessageTrace], count: int, start_ns: int, end_ns: int, topic: str, error: str | None
    ) -> bytes:
        """A child of the message's span when it is alone, else a root of its own, since it belongs to all of them."""
        own = ids.span_id()
        times = (0x39, start_ns, 0x41, end_ns)
        if count == 1:
            only = recorded[0]
            identity = _CHILD(b"\n\x10", only.trace_id, b"\x12\x08", own, b'"\x08', only.send_id, *times)
            identity += wire.text(3, only.tracestate)
        else:
            identity = _ROOT(b"\n\x10", ids.trace_id(), b"\x12\x08", own, *times)
        parts = [
            self._batches.get(topic) or self._learn(topic),
            identity,
            wire.attribute(9, "messaging.batch.message_count", count),
        ]
        parts += self._links(recorded)
        if error is None:
            parts.append(trace.STATUS_UNSET)
        else:
            parts += (trace.STATUS_ERROR, wire.attribute(9, "error.type", error))
        body = b"".join(parts)
        return wire.span_prefix(len(body)) + body

    def _links(self, recorded: list[MessageTrace]) -> list[bytes]:
        over = len(recorded) - self._max_links if self._max_links is not None else 0
        if over <= 0:
            return [trace.link(one.trace_id, one.send_id, remote=False) for one in recorded]
        # As in the SDK, the last ones stay: dropped_links_count (14) says how many are missing.
        kept = recorded[over:]
        return [trace.link(one.trace_id, one.send_id, remote=False) for one in kept] + [b"p" + wire.varint(over)]

    def _learn(self, topic: str) -> bytes:
        spans = RouteSpans(
            process_name="", send_name="", process_attributes={}, send_attributes={}, value_limit=self._value_limit
        )
        encoded = spans.encode(f"send {topic}", SpanKind.CLIENT, self._send_attributes(topic)) + trace.LOCAL
        if len(self._batches) >= _KEPT:
            self._batches.clear()
        self._batches[topic] = encoded
        return encoded


def _limits_from_environment() -> SpanLimits:
    try:
        return SpanLimits()
    except ValueError as error:  # its text names the variable
        raise TelemetryConfigError(str(error)) from error
