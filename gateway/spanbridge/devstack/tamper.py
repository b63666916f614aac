"""Changes to bytes on their way through the fault proxy."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

Side = str
"""``up`` is from the client to the upstream, ``down`` the way back."""


@dataclass(slots=True, kw_only=True)
class Tamper:
    """One change to make, once, ``after`` that many more bytes. None from ``change`` ends the connection there."""

    after: int
    change: Callable[[bytes], bytes | None]


@dataclass(slots=True)
class Tampering:
    """What is done to one direction: the changes ordered, and one inverted byte in a ``share`` of the pieces."""

    once: list[Tamper] = field(default_factory=list)
    share: float = 0.0
    rng: random.Random = field(default_factory=random.Random)

    def apply(self, chunk: bytes) -> tuple[bytes, bool]:
        """The chunk with what was ordered done to it, and whether the connection goes on."""
        if self.share and self.rng.random() < self.share:
            at = self.rng.randrange(len(chunk))
            chunk = chunk[:at] + bytes([chunk[at] ^ 0xFF]) + chunk[at + 1 :]
        while self.once and self.once[0].after < len(chunk):
            tamper = self.once.pop(0)
            rest = tamper.change(chunk[tamper.after :])
            if rest is None:
                return chunk[: tamper.after], False
            chunk = chunk[: tamper.after] + rest
        for tamper in self.once:
            tamper.after -= len(chunk)
        return chunk, True
