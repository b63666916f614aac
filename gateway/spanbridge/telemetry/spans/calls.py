"""Spans of calls that concern several messages at once: a trace of their own, with links to the messages' contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from opentelemetry.trace import Link, SpanKind

from spanbridge.core.protobuf import text, varint
from spanbridge.telemetry.spans import ids, wire
from spanbridge.telemetry.spans.bounds import ALWAYS, NEVER, Bounds
from spanbridge.telemetry.spans.hop import Hop, cut

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

    from spanbridge_context import TraceContext

_COUNT = "messaging.batch.message_count"


class SpanSink(Protocol):
    """Takes framed spans that have ended. Never blocks, never raises."""

    def add(self, pieces: Sequence[bytes], each: int = 1) -> None:
        """Take them, in so many pieces each."""


class CallLimits(NamedTuple):
    """The SDK's limits: characters of an attribute's value, links of a span; None for no limit."""

    value: int | None
    links: int | None


def _no_contexts() -> Sequence[TraceContext]:
    return ()


class CallSpans:
    """Makes the CLIENT spans of one kind of call. The sampler decides about each as about the root of a trace."""

    def __init__(self, hop: Hop, sink: SpanSink, sampler: Sampler, bounds: Bounds | None, limits: CallLimits) -> None:
        self._hop = hop
        self._sink = sink
        self._sampler = sampler
        self._bound = None if bounds is None else bounds.root
        self._limits = limits
        self._fixed = self._fields(hop.attributes())

    def record(
        self,
        count: int,
        start_ns: int,
        end_ns: int,
        *,
        contexts: Callable[[], Sequence[TraceContext]] = _no_contexts,
        error: str | None = None,
    ) -> None:
        """Record a call that ended, with ``count`` messages. ``contexts`` are asked for only when it is sampled.

        Times are Unix time in nanoseconds; ``error`` is an ``error.type``.
        """
        trace_id = ids.trace_id()
        fixed, linked = self._fixed, None
        if self._bound is None:
            linked = contexts()
            asked = self._asked(trace_id, count, linked)
            if asked is None:
                return
            fixed = asked
        elif self._bound != ALWAYS and (self._bound == NEVER or int.from_bytes(trace_id[8:]) >= self._bound):
            return
        else:
            fixed += wire.attribute(9, _COUNT, count)
        if error is not None:
            error = error[: self._limits.value]
        parts = [fixed, wire.LOCAL, wire.identity(trace_id, ids.span_id(), b"", start_ns, end_ns)]
        parts += self._links(contexts() if linked is None else linked)
        parts.append(wire.status(error))
        self._sink.add((wire.framed(b"".join(parts)),))

    def _asked(self, trace_id: bytes, count: int, contexts: Sequence[TraceContext]) -> bytes | None:
        """What the sampler makes of a call; None: it is not recorded."""
        from spanbridge.telemetry.spans import sampling  # noqa: PLC0415 - the SDK is loaded where spans are made

        links = tuple(Link(sampling.remote_context(context)) for context in contexts)
        attributes = self._hop.attributes() | {_COUNT: count}
        named = (self._hop.name, SpanKind.CLIENT)
        verdict = sampling.ask(self._sampler, None, trace_id, named, attributes, links)
        if not verdict.sampled:
            return None
        return self._fields(dict(verdict.attributes)) + text(3, verdict.tracestate)

    def _fields(self, attributes: dict[str, object]) -> bytes:
        return wire.fixed_fields(self._hop.name, SpanKind.CLIENT.value, cut(attributes, self._limits.value))

    def _links(self, contexts: Sequence[TraceContext]) -> list[bytes]:
        most = self._limits.links
        over = len(contexts) - most if most is not None else 0
        if over > 0:  # as in the SDK, the last ones stay: dropped_links_count (14) says how many are missing
            return [*self._links(contexts[over:]), b"p" + varint(over)]
        return [wire.link(one.trace_id_bytes, one.span_id_bytes, remote=True) for one in contexts]
