"""pprof's format (github.com/google/pprof, ``proto/profile.proto``): what `go tool pprof` and most other tools read."""

from __future__ import annotations

import gzip

from spanbridge_profiling.profile import Profile, Sample
from spanbridge_profiling.stacks import Frame
from spanbridge_profiling.tables import Labels, Table, no_labels
from spanbridge_profiling.wire import field, integer, packed


class _Writer:
    def __init__(self, labels: Labels) -> None:
        self._labels = labels  # all of them
        self.strings: Table[str] = Table(lambda value, _: field(6, value.encode("utf-8", "replace")))
        self.strings.add("")  # has to be the first
        self.functions: Table[tuple[str, str, int]] = Table(self._function, first=1)
        self.locations: Table[Frame] = Table(self._location, first=1)

    def write(self, profile: Profile) -> bytes:
        cpu = self._type("cpu", "nanoseconds")
        parts = [field(1, self._type("samples", "count")), field(1, cpu)]  # sample_type
        parts += [field(2, self._sample(sample)) for sample in profile.samples]
        parts += [field(4, row) for row in self.locations.rows]
        parts += [field(5, row) for row in self.functions.rows]
        parts += [integer(9, profile.started_ns), integer(10, profile.duration_ns)]
        parts += [field(11, cpu), integer(12, profile.period_ns)]  # period_type, period
        parts.append(packed(13, [self.strings.add(line) for line in _comments(profile)]))
        parts.append(integer(14, self.strings.add("cpu")))  # default_sample_type
        return b"".join([*parts, *self.strings.rows])

    def _sample(self, sample: Sample) -> bytes:
        labels = self._labels(sample)
        parts = [packed(1, [self.locations.add(frame) for frame in sample.frames])]
        parts.append(packed(2, [sample.count, sample.cpu_ns]))
        parts += [field(3, self._label(key, value)) for key, value in labels.items()]
        return b"".join(parts)

    def _label(self, key: str, value: str) -> bytes:
        return integer(1, self.strings.add(key)) + integer(2, self.strings.add(value))

    def _location(self, frame: Frame, number: int) -> bytes:
        function = self.functions.add((frame.function, frame.file, frame.first_line))
        return integer(1, number) + field(4, integer(1, function) + integer(2, frame.line))

    def _function(self, function: tuple[str, str, int], number: int) -> bytes:
        name, file, first_line = function
        named = self.strings.add(name)
        parts = [integer(1, number), integer(2, named), integer(3, named), integer(4, self.strings.add(file))]
        return b"".join([*parts, integer(5, first_line)])

    def _type(self, kind: str, unit: str) -> bytes:
        return integer(1, self.strings.add(kind)) + integer(2, self.strings.add(unit))


def _comments(profile: Profile) -> list[str]:
    counts = profile.counts
    return [
        f"samples with a span: {counts.linked}",
        f"samples without a span: {counts.without_span}",
        f"samples whose span could not be told: {counts.unknown}",
        f"samples not kept: {counts.lost}",
    ]


def write_pprof(profile: Profile, labels: Labels = no_labels) -> bytes:
    """The profile as pprof's protobuf, compressed with gzip. Takes milliseconds: not for an event loop."""
    return write_labelled(profile, lambda sample: _all_labels(sample, labels))


def write_labelled(profile: Profile, labels: Labels) -> bytes:
    """The same with no other labels than those."""
    return gzip.compress(_Writer(labels).write(profile), 6)


def _all_labels(sample: Sample, labels: Labels) -> dict[str, str]:
    found = {"thread": sample.thread, **dict(sample.labels), **labels(sample)}
    if sample.span_id:
        found |= {"trace_id": f"{sample.trace_id:032x}", "span_id": f"{sample.span_id:016x}"}
    return found
