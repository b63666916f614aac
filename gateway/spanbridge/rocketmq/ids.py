"""Message ids and client ids in the forms that RocketMQ 5 tools expect."""

from __future__ import annotations

import os
import secrets
import socket
import uuid
from collections.abc import Iterator
from itertools import chain, count, islice

_EPOCH_2021 = 1_609_459_200
"""2021-01-01T00:00:00Z in Unix seconds, where the id's clock starts."""
_LAST_DIGITS = tuple(b"%02X" % number for number in range(256))


class MessageIds:
    """Message ids of version 1: 17 bytes as 34 upper-case hex digits.

    ``01``, MAC address (6 bytes), process id (low 2 bytes), seconds since 2021 (4 bytes), sequence number (4 bytes),
    as ``MessageIdCodec`` of apache/rocketmq-clients writes them. The sequence starts at random, since in a container
    the process id is always 1 and a restart within the second would repeat ids.

    ``sequence()`` is the next number's eight digits. It is called for every message, and made of iterators in C:
    formatting a number takes longer than all the rest of the id.
    """

    __slots__ = ("_host", "sequence")

    def __init__(self, *, node: int | None = None, pid: int | None = None, start: int | None = None) -> None:
        mac = (uuid.getnode() if node is None else node) & 0xFFFF_FFFF_FFFF
        process = (os.getpid() if pid is None else pid) & 0xFFFF
        self._host = b"01%012X%04X" % (mac, process)
        self.sequence = _sequence(secrets.randbits(32) if start is None else start).__next__

    def prefix(self, seconds: int) -> bytes:
        """The id's first 26 digits for a Unix time in seconds."""
        return b"%b%08X" % (self._host, (seconds - _EPOCH_2021) & 0xFFFF_FFFF)


def _sequence(start: int) -> Iterator[bytes]:
    blocks = map(_block, count(start >> 8))
    return chain(islice(next(blocks), start & 0xFF, None), chain.from_iterable(blocks))


def _block(number: int) -> Iterator[bytes]:
    """The eight digits of 256 numbers in a row."""
    return map((b"%06X" % (number & 0xFF_FFFF)).__add__, _LAST_DIGITS)


def client_id() -> str:
    """Unique for each sink: host, process id and a random part, joined with ``@`` as the official clients do."""
    host = "".join(c if c.isascii() and c.isprintable() else "_" for c in socket.gethostname())
    return f"{host}@{os.getpid()}@{secrets.token_hex(6)}"
