"""How many bytes wait in a socket, unread."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios


def unread_bytes(transport: asyncio.BaseTransport) -> int:
    """Bytes in the kernel's buffer of a transport's socket; 0 where they cannot be counted.

    With TLS these are records, of which the event loop holds some in its own buffer: their number says nothing about
    messages, so it counts as 0.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("ssl_object") is not None:
        return 0
    try:
        found = fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0" * 4)
    except OSError:
        return 0
    return int(struct.unpack("i", found)[0])
