"""speedscope's own file format (www.speedscope.app/file-format-schema.json): one sampled profile for each thread."""

from __future__ import annotations

import json
from typing import Any

from spanbridge_profiling.profile import Profile
from spanbridge_profiling.tables import Table

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def write_speedscope(profile: Profile, title: str) -> str:
    """The profile as JSON. Weights are nanoseconds of CPU time."""
    frames: list[dict[str, Any]] = []
    numbers: Table[tuple[str, str, int]] = Table(lambda _frame, _number: b"")
    threads: dict[str, dict[str, Any]] = {}
    for sample in profile.samples:
        stack = []
        for frame in reversed(sample.frames):
            number = numbers.add((frame.function, frame.file, frame.line))
            if number == len(frames):
                frames.append({"name": frame.function, "file": frame.file, "line": frame.line})
            stack.append(number)
        found = threads.setdefault(sample.thread, _empty(sample.thread))
        found["samples"].append(stack)
        found["weights"].append(sample.cpu_ns)
        found["endValue"] += sample.cpu_ns
    whole = {
        "$schema": _SCHEMA,
        "name": title,
        "exporter": "spanbridge",
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": list(threads.values()) or [_empty("")],
    }
    return json.dumps(whole, ensure_ascii=False)


def _empty(thread: str) -> dict[str, Any]:
    named = {"type": "sampled", "name": thread or "no samples", "unit": "nanoseconds", "startValue": 0, "endValue": 0}
    return {**named, "samples": [], "weights": []}
