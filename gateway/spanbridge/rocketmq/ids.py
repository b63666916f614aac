"""Message ids and client ids in the forms that RocketMQ 5 tools expect."""

from __future__ import annotations

import os
import secrets
import socket
import uuid

_EPOCH_2021 = 1_609_459_200
"""2021-01-01T00:00:00Z in Unix seconds, where the id's clock starts."""


class MessageIds:
    """Message ids of version 1: 17 bytes as 34 upper-case hex digits.

    ``01``, MAC address (6 bytes), process id (low 2 bytes), seconds since 2021 (4 bytes), sequence number (4 bytes),
    as ``MessageIdCodec`` of apache/rocketmq-clients writes them. The sequence starts at random, since in a container
    the process id is always 1 and a restart within the second would repeat ids.
    """

    __slots__ = ("_host", "_next")

    def __init__(self, *, node: int | None = None, pid: int | None = None, start: int | None = None) -> None:
        mac = (uuid.getnode() if node is None else node) & 0xFFFF_FFFF_FFFF
        process = (os.getpid() if pid is None else pid) & 0xFFFF
        self._host = b"01%012X%04X" % (mac, process)
        self._next = secrets.randbits(32) if start is None else start

    def prefix(self, seconds: int) -> bytes:
        """The id's first 26 digits for a Unix time in seconds."""
        return b"%b%08X" % (self._host, (seconds - _EPOCH_2021) & 0xFFFF_FFFF)

    def sequence(self) -> int:
        """The next sequence number."""
        number = self._next
        self._next = (number + 1) & 0xFFFF_FFFF
        return number


def client_id() -> str:
    """Unique for each sink: host, process id and a random part, joined with ``@`` as the official clients do."""
    host = "".join(c if c.isascii() and c.isprintable() else "_" for c in socket.gethostname())
    return f"{host}@{os.getpid()}@{secrets.token_hex(6)}"
