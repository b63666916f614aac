"""OTLP profiles, ``v1development`` as of opentelemetry-proto 1.10 (``profiles/v1development/profiles.proto``).

Before 1.10, ``Sample.values`` was field 2: receivers of one version take what the other sends, and show nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from spanbridge_profiling.profile import Profile, Sample
from spanbridge_profiling.stacks import Frame
from spanbridge_profiling.tables import Labels, Table, no_labels
from spanbridge_profiling.wire import field, fixed64, integer, packed, text, varint

SCOPE = "spanbridge.profiling"
_FRAME_TYPE = ("profile.frame.type", "cpython")


class _Writer:
    """The dictionary: its tables, each with the null entry first, as the format wants it."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self.strings: Table[str] = Table(lambda value, _: value.encode("utf-8", "replace"))
        self.functions: Table[tuple[str, str, int] | None] = Table(self._function)
        self.locations: Table[Frame | None] = Table(self._location)
        self.stacks: Table[tuple[Frame, ...]] = Table(self._stack)
        self.links: Table[tuple[int, int]] = Table(_link)
        self.attributes: Table[tuple[str, str | int]] = Table(self._attribute)
        self.strings.add("")
        self.functions.add(None)
        self.locations.add(None)
        self.stacks.add(())
        self.links.add((0, 0))
        self.attributes.add(("", ""))

    def dictionary(self) -> bytes:
        tables = (
            [b""],  # mapping_table: there is nothing but Python code
            self.locations.rows,
            self.functions.rows,
            self.links.rows,
            self.strings.rows,
            self.attributes.rows,
            self.stacks.rows,
        )
        return b"".join(field(number, row) for number, rows in enumerate(tables, 1) for row in rows)

    def profile(self, profile: Profile) -> bytes:
        cpu = integer(1, self.strings.add("cpu")) + integer(2, self.strings.add("nanoseconds"))
        parts = [field(1, cpu)]  # sample_type
        parts += [field(2, self._sample(sample)) for sample in profile.samples]
        parts += [fixed64(3, profile.started_ns), integer(4, profile.duration_ns)]
        parts += [field(5, cpu), integer(6, profile.period_ns)]  # period_type, period: receivers insist on both
        parts.append(field(7, os.urandom(16)))  # profile_id
        counts = profile.counts
        told = {"linked": counts.linked, "without_span": counts.without_span}
        told |= {"unknown_span": counts.unknown, "lost": counts.lost}
        named = [self.attributes.add((f"spanbridge.samples.{key}", count)) for key, count in told.items()]
        return b"".join([*parts, packed(11, named)])  # attribute_indices

    def _sample(self, sample: Sample) -> bytes:
        labels = {"thread.name": sample.thread, **self._labels(sample)}
        link = self.links.add((sample.trace_id, sample.span_id)) if sample.span_id else 0
        return b"".join(
            (
                integer(1, self.stacks.add(sample.frames)),
                packed(2, [self.attributes.add(label) for label in labels.items()]),
                integer(3, link),
                packed(4, [sample.cpu_ns]),
            )
        )

    def _stack(self, frames: tuple[Frame, ...], _number: int) -> bytes:
        return packed(1, [self.locations.add(frame) for frame in frames])

    def _location(self, frame: Frame | None, _number: int) -> bytes:
        if frame is None:
            return b""
        function = self.functions.add((frame.function, frame.file, frame.first_line))
        line = integer(1, function) + integer(2, frame.line)
        return field(3, line) + packed(4, [self.attributes.add(_FRAME_TYPE)])

    def _function(self, function: tuple[str, str, int] | None, _number: int) -> bytes:
        if function is None:
            return b""
        name, file, first_line = function
        named = self.strings.add(name)
        return integer(1, named) + integer(2, named) + integer(3, self.strings.add(file)) + integer(4, first_line)

    def _attribute(self, attribute: tuple[str, str | int], _number: int) -> bytes:
        key, value = attribute
        return integer(1, self.strings.add(key)) + field(2, _any(value)) if key else b""


def _link(link: tuple[int, int], _number: int) -> bytes:
    trace_id, span_id = link
    if not span_id:
        return b""
    return field(1, trace_id.to_bytes(16, "big")) + field(2, span_id.to_bytes(8, "big"))


def write_otlp(
    profile: Profile,
    resource: Mapping[str, object],
    *,
    version: str = "",
    labels: Labels = no_labels,
) -> bytes:
    """An ``ExportProfilesServiceRequest`` with one profile. Takes milliseconds: not for an event loop."""
    writer = _Writer(labels)
    scope = field(1, text(1, SCOPE) + text(2, version)) + field(2, writer.profile(profile))
    about = field(1, b"".join(field(1, _pair(key, value)) for key, value in resource.items()))
    return field(1, about + field(2, scope)) + field(2, writer.dictionary())


def _pair(key: str, value: object) -> bytes:
    return text(1, key) + field(2, _any(value))


def _any(value: object) -> bytes:
    """An ``AnyValue`` (common.proto); what has no form there is told as text."""
    match value:
        case bool():
            return b"\x10" + (b"\x01" if value else b"\x00")
        case int():
            return b"\x18" + varint(value)
        case str():
            return field(1, value.encode("utf-8", "replace"))
        case Sequence():
            return field(5, b"".join(field(1, _any(item)) for item in value))
        case _:
            return text(1, str(value))
