"""``python -m bench.tether COMMAND...``: become COMMAND, ended by the kernel when the parent ends (Linux, prctl(2))."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the call
            sys.exit(1)
    os.execvp(sys.argv[1], sys.argv[1:])
