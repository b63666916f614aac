"""Processes of a stack, started through the keeper so that none outlives this one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spanbridge.devstack.errors import ServiceError

_POLL_SECONDS = 0.02
_KEEPER = Path(__file__).with_name("keeper.py")


class KeeperClient:
    """Talks to one keeper process. Safe to use from several threads."""

    def __init__(self, directory: Path) -> None:
        """Start the keeper, which removes ``directory`` at its end."""
        self._lock = threading.Lock()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), str(os.getpid()), str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:  # Ctrl-C: there may be no keeper to remove it
            shutil.rmtree(directory, ignore_errors=True)
            raise

    @property
    def pid(self) -> int:
        """Process id of the keeper."""
        return self._process.pid

    def request(self, **request: Any) -> dict[str, Any]:
        """Send one request and return its answer.

        Raises:
            ServiceError: the keeper has gone, or could not do it.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None or stdin.closed:
            raise ServiceError("the stack is down", hint="start a new one with Devstack.up()")
        with self._lock:
            line = b""
            with contextlib.suppress(BrokenPipeError):
                stdin.write(json.dumps(request).encode() + b"\n")
                stdin.flush()
                line = stdout.readline()
        if not line:
            raise ServiceError("the stack's keeper process has gone, and every broker with it")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ServiceError(f"{request['name']}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End every process of the stack, and wait until the stack's directory has gone as well. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()


@dataclass(kw_only=True)
class ServerProcess:
    """One process of the stack: its command, where it logs, and whether it runs."""

    keeper: KeeperClient
    name: str
    argv: Sequence[str]
    directory: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def log_path(self) -> Path:
        """File that standard output and error of every run are appended to."""
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Process id of the latest run, or ``None`` before the first."""
        pid = self.keeper.request(do="poll", name=self.name)["pid"]
        return None if pid is None else int(pid)

    @property
    def running(self) -> bool:
        """Whether the process exists (a paused one does)."""
        answer = self.keeper.request(do="poll", name=self.name)
        return answer["pid"] is not None and answer["code"] is None

    def start(self) -> None:
        """Start the process; returns at once, before it is ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.keeper.request(
            do="start",
            name=self.name,
            argv=list(self.argv),
            env={**os.environ, **self.env},
            cwd=str(self.directory),
            log=str(self.log_path),
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process runs."""
        self.keeper.request(do="signal", name=self.name, signal=int(number))

    def stop(self, timeout: float = 15.0) -> None:
        """End the process the friendly way (SIGTERM), and the other way after ``timeout`` seconds."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if not self._wait(timeout):
            self.kill()

    def kill(self) -> None:
        """End the process with SIGKILL, as a crash would, and wait until it has gone."""
        self.signal(signal.SIGKILL)
        self._wait(10.0)

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): its sockets stay open and nothing answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self.signal(signal.SIGCONT)

    def log_tail(self, lines: int = 25) -> str:
        """The last lines of the log, or an empty string when there is none."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - 64 * 1024))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def _wait(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while self.running:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True
