"""Trace ids and span ids: random ones, and those that a caller gives."""

import os

from .errors import TraceContextError


def random_id(size: int) -> bytes:
    """``size`` random bytes, not all zero."""
    while True:
        value = _random_bytes(size)
        if value != bytes(size):
            return value


if hasattr(os, "urandom"):
    _random_bytes = os.urandom
else:  # MicroPython ports without a source of entropy in ``os``

    def _random_bytes(size: int) -> bytes:
        from random import getrandbits  # noqa: PLC0415 - not where ``os`` has it

        return bytes([getrandbits(8) for _ in range(size)])


def id_bytes(value: "str | bytes", size: int) -> bytes:
    """The bytes of an id that is given as bytes or as hex digits. It may be all zero.

    :raises TraceContextError: not ``size`` bytes and not twice as many lower-case hex digits.
    """
    if isinstance(value, bytes) and len(value) == size:
        return value
    try:
        if len(value) == 2 * size:
            raw = bytes.fromhex(value)  # type: ignore[arg-type]
            if raw.hex() == value:
                return raw
    except (TypeError, ValueError):
        pass
    raise TraceContextError(f"id: not {size} bytes or {2 * size} lower-case hex digits")
