"""The stage of the pipeline that a stack belongs to, told by the files of its frames: sampling pays nothing for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import spanbridge
from spanbridge_profiling import Frame, Sample

STAGE = "spanbridge.stage"
ROUTE = "spanbridge.route"
OUTSIDE = "runtime"
"""The event loop, the collector, other libraries: no frame of ours below them."""

_ROOT = f"{Path(spanbridge.__file__).parent}/"
_DEEP = ("mqtt/codec", "rocketmq/grpc", "rocketmq/remoting", "telemetry/spans", "telemetry/metrics", "telemetry/otlp")
_ROOTS = ("cli", "app/run.py", "app/gateway.py")
"""Outermost frames of everything: they say nothing."""
_SHARED = ("core", "app", "ports")
"""Code that several stages call: the stage is the caller's."""


def labels(sample: Sample) -> Mapping[str, str]:
    """What a sample of the gateway says of itself: its stage, and its route where one was being worked for."""
    found = {STAGE: stage(sample.frames)}
    if sample.note:
        found[ROUTE] = sample.note
    return found


def stage(frames: tuple[Frame, ...]) -> str:
    """The innermost package of ours that is a stage (``mqtt.codec``, ``uplink``, ``telemetry.spans``, ``context``)."""
    shared = OUTSIDE
    for frame in frames:
        found = _package(frame.file)
        if not found:
            continue
        if found.partition(".")[0] not in _SHARED:
            return found
        shared = found if shared == OUTSIDE else shared
    return shared


def _package(file: str) -> str:
    """The part of the gateway that a file belongs to; "" for other code."""
    if "/spanbridge_context/" in file:
        return "context"
    if not file.startswith(_ROOT):
        return ""
    inside = file.removeprefix(_ROOT)
    if inside.startswith(_ROOTS):
        return ""
    folder, _, name = inside.rpartition("/")
    if folder in _DEEP:
        return folder.replace("/", ".")
    return folder.partition("/")[0] or name.removesuffix(".py")
