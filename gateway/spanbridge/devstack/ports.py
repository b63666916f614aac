"""Free ports on loopback that stay ours across a broker's restart, and that two stacks never both take."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import stat
import tempfile
from pathlib import Path

from spanbridge.devstack.errors import DevstackError

LOOPBACK = "127.0.0.1"
_LOWEST = 15000
_ATTEMPTS = 500


class PortLease:
    """Ports reserved for one stack.

    A port is taken from below the kernel's ephemeral range, so that no outgoing connection gets it while its broker is
    being restarted, and is locked by a file (``flock(2)``) until :meth:`release` or the end of the process.
    """

    def __init__(self) -> None:
        self._locks: list[int] = []
        self._directory = Path(tempfile.gettempdir(), f"spanbridge-ports-{os.getuid()}")

    def take(self, *offsets: int) -> int:
        """Reserve a port P such that P and every P + offset are free, and return P.

        Raises:
            DevstackError: no such port was found, or the directory of the locks is not ours alone.
        """
        own_directory(self._directory)
        highest = _ephemeral_start() - 16
        for _ in range(_ATTEMPTS):
            port = random.randrange(_LOWEST, highest)  # noqa: S311 - spreads load, guards nothing
            if self._take_all([port, *(port + offset for offset in offsets)]):
                return port
        raise DevstackError(
            f"no free port between {_LOWEST} and {highest}", hint="look for leftover servers with `ss -ltn`"
        )

    def release(self) -> None:
        """Give every port back. Idempotent."""
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()

    def _take_all(self, ports: list[int]) -> bool:
        taken: list[int] = []
        for port in ports:
            lock = self._lock(port)
            if lock is None:
                break
            taken.append(lock)
            if not _is_free(port):
                break
        else:
            self._locks.extend(taken)
            return True
        for lock in taken:
            os.close(lock)
        return False

    def _lock(self, port: int) -> int | None:
        descriptor = os.open(self._directory / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        return descriptor


def own_directory(path: Path) -> None:
    """Make a directory that nobody else can write to, or see that it is one: names in /tmp can be guessed.

    Raises:
        DevstackError: it cannot be made, belongs to somebody else, others may write to it, or it is a link to another
            place.
    """
    hint = "set XDG_RUNTIME_DIR or TMPDIR to a directory that you may write to"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:  # a link to nowhere, a file
        pass
    except OSError as error:
        raise DevstackError(f"cannot make the directory {path}: {error.strerror}", hint=hint) from error
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise DevstackError(
            f"{path} is not a directory of yours that nobody else can write to",
            hint="remove it, or set XDG_RUNTIME_DIR or TMPDIR",
        )


def _is_free(port: int) -> bool:
    # The wildcard address, because some servers of RocketMQ listen on it.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _ephemeral_start() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32768


def accepts(port: int, host: str = LOOPBACK, timeout: float = 0.2) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except OSError:
        return False
