"""The tree of calls that a flame graph draws, and what a profile says in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from spanbridge_profiling.profile import Profile, Sample
from spanbridge_profiling.stacks import Frame

Name = tuple[str, str]
"""A function and its file."""


@dataclass(slots=True)
class Node:
    """A function as called by those above it. ``total_ns`` includes what it called, ``self_ns`` does not."""

    function: str
    file: str = ""
    total_ns: int = 0
    self_ns: int = 0
    samples: int = 0
    called: dict[Name, Node] = field(default_factory=dict)

    def child(self, name: Name) -> Node:
        """What it called by that name."""
        found = self.called.get(name)
        if found is None:
            found = self.called[name] = Node(*name)
        return found

    def add(self, sample: Sample) -> None:
        """Count a sample that passed here."""
        self.total_ns += sample.cpu_ns
        self.samples += sample.count


Group = Callable[[Sample], str]
"""What stands between the root and a sample's stack; "" for nothing."""


def tree(samples: Iterable[Sample], group: Group | None = None) -> Node:
    """All stacks, joined at their outermost frames. Functions are joined by name and file, whatever the line."""
    root = Node("all")
    for sample in samples:
        root.add(sample)
        node = root
        names = [(frame.function, frame.file) for frame in reversed(sample.frames)]
        if group is not None and (above := group(sample)):
            names.insert(0, (above, ""))
        for name in names:
            node = node.child(name)
            node.add(sample)
        node.self_ns += sample.cpu_ns
    return root


def label(sample: Sample, name: str) -> str:
    """What a sample says of itself: its thread, ``trace_id``, ``span_id``, or a label; "" for nothing."""
    match name:
        case "thread":
            return sample.thread
        case "trace_id":
            return f"{sample.trace_id:032x}" if sample.trace_id else ""
        case "span_id":
            return f"{sample.span_id:016x}" if sample.span_id else ""
        case _:
            return dict(sample.labels).get(name, "")


def by_label(profile: Profile, name: str) -> list[tuple[str, int]]:
    """CPU time in nanoseconds for each value of a label, the most first. "" has what has no such label."""
    found: Counter[str] = Counter()
    for sample in profile.samples:
        found[label(sample, name)] += sample.cpu_ns
    return found.most_common()


def hottest(samples: Iterable[Sample], most: int = 10) -> list[tuple[Frame, int]]:
    """The functions in which the CPU time was spent, without what they called; the line is that of most of it."""
    times: Counter[Name] = Counter()
    lines: dict[Name, Counter[Frame]] = {}
    for sample in samples:
        if sample.frames:
            frame = sample.frames[0]
            name = frame.function, frame.file
            times[name] += sample.cpu_ns
            lines.setdefault(name, Counter())[frame] += sample.cpu_ns
    return [(lines[name].most_common(1)[0][0], cpu) for name, cpu in times.most_common(most)]


def short(file: str) -> str:
    """A path's last two parts, which mostly tell which file it is."""
    return "/".join(file.rsplit("/", 2)[-2:])
