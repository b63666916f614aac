"""Collapsed stacks, one a line: what flamegraph.pl, speedscope and inferno read."""

from __future__ import annotations

from collections import Counter

from spanbridge_profiling.profile import Profile


def write_collapsed(profile: Profile) -> str:
    """``outermost;...;innermost microseconds``, sorted."""
    lines: Counter[str] = Counter()
    for sample in profile.samples:
        names = [f"{frame.function} ({_short(frame.file)})" for frame in reversed(sample.frames)]
        lines[";".join([sample.thread, *names]).replace("\n", " ")] += sample.cpu_ns // 1000
    return "".join(f"{stack} {cpu}\n" for stack, cpu in sorted(lines.items()))


def _short(file: str) -> str:
    return "/".join(file.replace(";", ":").rsplit("/", 2)[-2:])
