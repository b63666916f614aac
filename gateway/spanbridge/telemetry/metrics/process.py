"""What the process itself uses, under the names that Prometheus' client libraries give it; and the build."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spanbridge import __version__
from spanbridge.telemetry.metrics.meter import Instruments

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Kind:
    """One metric; ``grows`` makes it a counter. Names come to ``process_cpu_seconds_total`` and so on."""

    name: str
    unit: str
    description: str
    read: Callable[[Path], float | None]
    grows: bool = False


def _stat(proc: Path) -> list[str]:
    """The fields of /proc/self/stat from the third on: the second, the command in brackets, may hold anything."""
    return (proc / "self" / "stat").read_text().rpartition(")")[2].split()


def _cpu(proc: Path) -> float:
    stat = _stat(proc)
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def _started(proc: Path) -> float:
    lines = (proc / "stat").read_text().splitlines()
    booted = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
    return booted + int(_stat(proc)[19]) / os.sysconf("SC_CLK_TCK")


def _virtual(proc: Path) -> float:
    return int(_stat(proc)[20])


def _resident(proc: Path) -> float:
    return int(_stat(proc)[21]) * os.sysconf("SC_PAGE_SIZE")


def _open_files(proc: Path) -> float:
    return len(os.listdir(proc / "self" / "fd")) - 1  # without the one that this list is read through


def _most_files(_: Path) -> float | None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


_KINDS = (
    _Kind("process.cpu", "s", "Total user and system CPU time spent in seconds.", _cpu, grows=True),
    _Kind("process.resident_memory", "By", "Resident memory size in bytes.", _resident),
    _Kind("process.virtual_memory", "By", "Virtual memory size in bytes.", _virtual),
    _Kind("process.start_time", "s", "Start time of the process since unix epoch in seconds.", _started),
    _Kind("process.open_fds", "", "Number of open file descriptors.", _open_files),
    _Kind("process.max_fds", "", "Maximum number of open file descriptors.", _most_files),
)


def register(instruments: Instruments, proc: Path = _PROC) -> None:
    """Export them; those that this machine does not tell are left out."""
    for kind in _KINDS:
        if _read(kind, proc) is not None:
            add = instruments.sum if kind.grows else instruments.gauge
            add(kind.name, lambda kind=kind: _read(kind, proc) or 0.0, unit=kind.unit, description=kind.description)  # type: ignore[misc]
    labels = {"version": __version__, "python": platform.python_version()}
    text = "1, with the versions of spanbridge and of Python as labels."
    instruments.gauge("spanbridge.build_info", lambda: [(1, labels)], description=text)


def _read(kind: _Kind, proc: Path) -> float | None:
    try:
        return kind.read(proc)
    except (OSError, ValueError, IndexError, StopIteration):
        return None
