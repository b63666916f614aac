"""Child processes that answer lines with lines, and that end with the benchmark whatever happens to it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self


class ChildError(Exception):
    """A process of the benchmark ended, or did not answer in time."""


class Child:
    """A process in a group of its own, talked to over its standard input and output.

    Standard error goes to ``log``. On Linux the kernel ends it with the benchmark (``PR_SET_PDEATHSIG``).
    """

    def __init__(self, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self._log = log
        self._name = log.stem
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.tether", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | (env or {}),
            )
        self.pid = self._process.pid
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def tell(self, line: str) -> None:
        """Send a line.

        :raises ChildError: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(f"{self._name} ended: {self.tail()}") from None

    def hear(self, timeout: float = 15.0) -> str:
        """The next line it prints; ``timeout`` in seconds.

        :raises ChildError: it ended or stayed silent.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise ChildError(f"{self._name} did not answer in {timeout:g} s: {self.tail()}")
                data = os.read(self._process.stdout.fileno(), 1 << 16)
                if not data:
                    raise ChildError(f"{self._name} ended: {self.tail()}")
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def ask(self, line: str, timeout: float = 15.0) -> str:
        """Send a line and return the answer.

        :raises ChildError: it ended or stayed silent.
        """
        self.tell(line)
        return self.hear(timeout)

    def tail(self) -> str:
        """The last line it logged."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"nothing logged in {self._log}"

    def stop(self, timeout: float = 15.0) -> None:
        """SIGTERM, and SIGKILL to what is left after ``timeout`` seconds."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
