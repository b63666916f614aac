"""What a running stack tells other processes: a JSON file, locked (``flock(2)``) for as long as the stack is up.

The lock, and not the process id in the file, says whether the stack is up: it cannot go stale or be somebody else's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from spanbridge.devstack.errors import DevstackError
from spanbridge.devstack.ports import own_directory
from spanbridge.devstack.stack import Devstack


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """One stack: who runs it, where its parts listen, and the log of each process."""

    name: str
    pid: int
    env: dict[str, str]
    parts: dict[str, dict[str, str | int]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, stack: Devstack) -> StackState:
        """Describe a stack that this process runs."""
        parts: dict[str, dict[str, str | int]] = {}
        for version, key in (("5", "mqtt_v5"), ("3.1.1", "mqtt_v311")):
            if broker := stack.mqtt_brokers.get(version):  # type: ignore[call-overload]
                parts[key] = {"host": broker.host, "port": broker.port, "kind": broker.kind, "version": version}
        if rocketmq := stack.rocketmq_or_none:
            has_proxy = rocketmq.setup.has_proxy
            parts["rocketmq"] = {
                "host": rocketmq.host,
                "port": rocketmq.port if has_proxy else rocketmq.namesrv_port,
                "protocol": "grpc" if has_proxy else "remoting",
                "version": rocketmq.setup.version,
                "broker_port": rocketmq.broker_port,
                "namesrv_port": rocketmq.namesrv_port,
            }
        logs = {service.name: str(service.log_path) for service in stack.services}
        return cls(name=name, pid=os.getpid(), env=stack.env(), parts=parts, logs=logs)

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write it into the claimed file, for :func:`find`."""
        path.write_text(json.dumps(self.as_dict()))


def state_path(name: str) -> Path:
    """The file of the stack of this name, in the user's runtime directory.

    Raises:
        DevstackError: not a name for a file.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise DevstackError(f"{name!r} cannot be a stack's name", hint="use letters, digits, '.', '_' and '-'")
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        directory = Path(base, "spanbridge")
    else:
        directory = Path(tempfile.gettempdir(), f"spanbridge-{os.getuid()}")
    own_directory(directory)
    return directory / f"{name}.json"


@contextlib.contextmanager
def claim(name: str) -> Iterator[Path]:
    """Hold the name for as long as the context lasts; the file is removed at its end.

    Raises:
        DevstackError: a stack of this name is up already.
    """
    path = state_path(name)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino
        except OSError as error:
            raise DevstackError(
                f"a stack named {name!r} is up already",
                hint=f"`spanbridge devstack down --name {name}` ends it, `up --name OTHER` starts one beside it",
            ) from error
        if gone:  # its last holder removed it between our open and our lock
            raise DevstackError(f"a stack named {name!r} went down just now", hint="try again")
        file.truncate(0)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def find(name: str) -> StackState | None:
    """The state of the stack of this name, or ``None`` when it is not up (or not yet)."""
    path = state_path(name)
    try:
        with path.open("r+") as file:
            if not _locked(file.fileno()):
                return None
            content = file.read()
    except FileNotFoundError:
        return None
    return StackState(**json.loads(content)) if content else None


def is_claimed(name: str) -> bool:
    """Whether some process holds the name."""
    try:
        with state_path(name).open("r+") as file:
            return _locked(file.fileno())
    except FileNotFoundError:
        return False


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False
