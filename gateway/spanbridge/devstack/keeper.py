"""The keeper: a process that owns a stack's broker processes and outlives nothing.

Run as a script by :mod:`spanbridge.devstack.process`, isolated and with the standard library only, so that it starts in
milliseconds and stays small. It reads one JSON request per line from its standard input and answers each with one line.

Three ties make sure that no broker outlives the process that started the stack, however that process ends:

- its standard input is a pipe from that process: end of file means that it has gone;
- a process forked from that one may hold the pipe open, so the parent's process id is looked at as well;
- on Linux, each broker gets SIGKILL from the kernel should the keeper itself be killed (``prctl(2)``, PR_SET_PDEATHSIG;
  it fires when the *thread* that forked ends, which is why a process with a single thread does the forking).
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_PARENT_CHECK_SECONDS = 0.5
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _prepare_child() -> None:
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)  # a signal that is ignored stays so across execve(2)
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Keeper:
    """Starts, signals and reaps the processes it is asked to."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Handle one request; the answer holds ``error`` when it could not be done."""
        name = str(request["name"])
        try:
            if request["do"] == "start":
                return self._start(name, request)
            process = self._processes.get(name)
            if process is None:
                return {"pid": None, "code": None}
            if request["do"] == "signal" and process.poll() is None:
                os.kill(process.pid, int(request["signal"]))
            return {"pid": process.pid, "code": process.poll()}
        except OSError as error:
            return {"error": str(error)}

    def _start(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        with open(request["log"], "ab") as log:
            process = subprocess.Popen(
                request["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=request["cwd"],
                env=request["env"],
                start_new_session=True,
                preexec_fn=_prepare_child,  # noqa: PLW1509 - there is one thread only
            )
        self._processes[name] = process
        return {"pid": process.pid, "code": None}

    def kill_all(self) -> None:
        """End every process, the stopped ones too (SIGKILL works on those), and reap it."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
        for process in self._processes.values():
            process.wait()


def _serve(keeper: Keeper, parent: int) -> None:
    buffered = b""
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], _PARENT_CHECK_SECONDS)
        if not readable:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, buffered = (buffered + chunk).split(b"\n")
        for line in lines:
            answer = json.dumps(keeper.answer(json.loads(line))).encode() + b"\n"
            try:
                os.write(1, answer)
            except BrokenPipeError:  # it has gone while this was done, as by Ctrl-C
                return


def main() -> None:
    """Serve until the parent has gone, then end everything and remove the stack's directory."""
    parent, directory = int(sys.argv[1]), sys.argv[2]
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)  # it ends with its parent, not by Ctrl-C to the whole group
    keeper = Keeper()
    try:
        _serve(keeper, parent)
    finally:
        keeper.kill_all()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
