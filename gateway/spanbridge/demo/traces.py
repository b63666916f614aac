"""Traces put together from the spans that a receiver got: trees, and whether anything is missing in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from spanbridge.demo.otlp_model import Span


@dataclass(frozen=True, slots=True)
class Step:
    """One span that every message's trace must hold: made by ``service``, of this kind, for this messaging system.

    ``system`` and ``destination`` are the convention's ``messaging.system`` and ``messaging.destination.name``, "" for
    any.
    """

    service: str
    kind: str
    system: str = ""
    destination: str = ""

    def matches(self, span: Span) -> bool:
        """Whether a span is this step."""
        return (
            span.service == self.service
            and span.kind == self.kind
            and self.system in ("", span.attributes.get("messaging.system"))
            and self.destination in ("", span.attributes.get("messaging.destination.name"))
        )

    def __str__(self) -> str:
        return f"{self.service}'s {self.kind.lower()} span"


@dataclass(frozen=True, slots=True)
class Node:
    """A span in its trace's tree. ``linked`` are batch spans of other traces that link to it."""

    span: Span
    children: tuple[Node, ...]
    linked: tuple[Span, ...]

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """This node and all below, parents first, each with its depth."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


@dataclass(frozen=True, slots=True)
class Trace:
    """All spans of one trace id. ``roots`` are spans without parent, or whose parent never came."""

    trace_id: str
    roots: tuple[Node, ...]

    @property
    def nodes(self) -> list[Node]:
        """Every node, parents first."""
        return [node for root in self.roots for _, node in root.walk()]

    @property
    def start_ns(self) -> int:
        """Unix time in nanoseconds of the earliest span."""
        return min(node.span.start_ns for node in self.nodes)

    @property
    def end_ns(self) -> int:
        """Unix time in nanoseconds at which the last span ended, batch spans linked to the trace included."""
        return max(span.end_ns for node in self.nodes for span in (node.span, *node.linked))


@dataclass(slots=True)
class Traces:
    """Spans by trace, by parent and by what links to them; fed as they come."""

    _spans: dict[tuple[str, str], Span] = field(default_factory=dict)
    _by_trace: dict[str, list[Span]] = field(default_factory=lambda: defaultdict(list))
    _linking: dict[tuple[str, str], list[Span]] = field(default_factory=lambda: defaultdict(list))

    def add(self, spans: Iterable[Span]) -> None:
        """Take spans; one that is already here (an export tried again) is ignored."""
        for span in spans:
            key = (span.trace_id, span.span_id)
            if key in self._spans:
                continue
            self._spans[key] = span
            self._by_trace[span.trace_id].append(span)
            for link in span.links:
                self._linking[link.trace_id, link.span_id].append(span)

    def trace(self, trace_id: str) -> Trace:
        """The tree of one trace; siblings in the order they started.

        :raises KeyError: no span of it is here.
        """
        if trace_id not in self._by_trace:
            raise KeyError(trace_id)
        spans = sorted(self._by_trace[trace_id], key=lambda span: (span.start_ns, -span.end_ns))
        ids = {span.span_id for span in spans}
        children: dict[str, list[Span]] = defaultdict(list)
        for span in spans:
            children[span.parent_id if span.parent_id in ids else ""].append(span)
        return Trace(trace_id, tuple(self._node(span, children) for span in children[""]))

    def of_service(self, service: str) -> list[str]:
        """Ids of the traces that this service began, in the order of their beginning.

        A span that continues the trace of another process has a parent, so it begins none.
        """
        begun = [span for span in self._spans.values() if span.service == service and not span.parent_id]
        return [span.trace_id for span in sorted(begun, key=lambda span: span.start_ns)]

    def holds(self, trace_id: str, step: Step) -> bool:
        """Whether a span of this trace is the step."""
        return any(step.matches(span) for span in self._by_trace.get(trace_id, ()))

    def missing(self, trace_id: str, steps: Sequence[Step]) -> str | None:
        """What a trace lacks of an unbroken chain of steps, each the child of the one before; None when it is whole.

        A step that sends to RocketMQ also needs a span that links to it: of the request, or of who received it.
        """
        spans = self._by_trace.get(trace_id, [])
        above: list[Span] | None = None
        for step in steps:
            found = [span for span in spans if step.matches(span)]
            if not found:
                return f"{step} is missing"
            if above is not None:
                parents = {span.span_id for span in above}
                found = [span for span in found if span.parent_id in parents]
                if not found:
                    return f"{step} is not a child of the step before"
            if step.kind == "PRODUCER" and step.system == "rocketmq" and not self._batched(found):
                return f"no batch span links to {step}"
            above = found
        return None

    def _batched(self, spans: Iterable[Span]) -> bool:
        return any(self._linking.get((span.trace_id, span.span_id)) for span in spans)

    def _node(self, span: Span, children: dict[str, list[Span]]) -> Node:
        linked = [other for other in self._linking[span.trace_id, span.span_id] if other.trace_id != span.trace_id]
        return Node(
            span,
            tuple(self._node(child, children) for child in children[span.span_id] if child is not span),
            tuple(linked),
        )
