"""A sampler that a comparison can decide, as three numbers."""

from __future__ import annotations

from dataclasses import dataclass

NEVER = 0
ALWAYS = 1 << 64


@dataclass(frozen=True, slots=True)
class Bounds:
    """Trace ids whose low 64 bits are below the number are sampled (``TraceIdRatioBased`` in the SDK).

    For roots, for children of a sampled and of an unsampled remote parent.
    """

    root: int
    sampled_parent: int
    unsampled_parent: int
