"""Collapsed stacks, one a line: what flamegraph.pl, speedscope and inferno read."""

from __future__ import annotations

from collections import Counter

from spanbridge_profiling.flames import short
from spanbridge_profiling.profile import Profile


def write_collapsed(profile: Profile) -> str:
    """``outermost;...;innermost microseconds``, sorted."""
    lines: Counter[str] = Counter()
    for sample in profile.samples:
        names = [f"{frame.function} ({short(frame.file)})" for frame in reversed(sample.frames)]
        stack = [name.replace(";", ":").replace("\n", " ") for name in (sample.thread, *names)]
        lines[";".join(stack)] += sample.cpu_ns // 1000
    return "".join(f"{stack} {cpu}\n" for stack, cpu in sorted(lines.items()))
