"""Python loads this first when its folder is on PYTHONPATH: Unix time as a file says, for a clock that is set.

Setting the machine's own clock would trouble everything else on it. Monotonic time stays as it is, as in the kernel.
gRPC's Python makes deadlines of Unix time, and its C compares them with the machine's: it gets that one.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

_PERIOD = 0.1
_time, _time_ns = time.time, time.time_ns
_offset = 0


def _follow(file: Path) -> None:
    global _offset  # noqa: PLW0603 - a clock is global
    while True:
        with contextlib.suppress(OSError, ValueError):
            _offset = int(file.read_text())
        time.sleep(_PERIOD)


def _now() -> float:
    caller = str(sys._getframe(1).f_globals.get("__name__"))
    return _time() if caller.startswith("grpc.") else _time() + _offset


def _install(file: Path) -> None:
    time.time = _now
    time.time_ns = lambda: _time_ns() + _offset * 1_000_000_000
    threading.Thread(target=_follow, args=(file,), name="clock", daemon=True).start()


if "SPANBRIDGE_FAULTS_CLOCK" in os.environ:
    _install(Path(os.environ["SPANBRIDGE_FAULTS_CLOCK"]))
