"""Plain programs as processes under ``opentelemetry-instrument``, and what they exported."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spanbridge.demo.otlp import OtlpReceiver, Span

EXAMPLES = Path(__file__).parents[3] / "examples" / "zero_code"
AGENT = Path(sys.executable).with_name("opentelemetry-instrument")
TWICE = "Attempting to instrument while already instrumented"
"""What OpenTelemetry's ``BaseInstrumentor`` says of a second ``instrument()``."""


def harness() -> Any:
    """``tests/e2e/harness.py``, by its path: `tests` is no package of ours, and other distributions install one."""
    path = Path(__file__).parents[2] / "e2e" / "harness.py"
    spec = importlib.util.spec_from_file_location("gateway_harness", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Program:
    """One process. What it prints is read all the time, so that it never waits for us."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines)),
            threading.Thread(target=self._read, args=(self.process.stderr, self._errors)),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, into: list[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    into.append(line.rstrip("\n"))
                    self._changed.notify_all()

    def wait_lines(self, *expected: str, timeout: float = 60.0) -> None:
        """Wait until it has printed these lines, in any order, perhaps among others."""
        with self._changed:
            found = self._changed.wait_for(lambda: set(expected) <= set(self.lines), timeout)
        assert found, (self.lines, self._errors)

    def say(self, text: str) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Close its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def finish(self, *complaints: str, timeout: float = 60.0) -> None:
        """Wait for its end, which must be a good one, with nothing on standard error but these lines."""
        assert self.process.wait(timeout) == 0, (self.lines, self._errors)
        for reader in self._readers:
            reader.join(timeout)
        assert self._errors == list(complaints)

    def stop(self) -> None:
        """Ask it to end (SIGTERM), as a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        self.finish()

    def kill(self) -> None:
        self.end_input()
        self.process.kill()
        self.process.wait(10)
        for reader in self._readers:
            reader.join(10)


Run = Callable[..., Program]


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
def run(receiver: OtlpReceiver) -> Iterator[Run]:
    """Starts a script under the agent as service ``service``; every process of the test exports to the receiver."""
    started: list[Program] = []

    def run(script: str | Path, *arguments: str, service: str, **variables: str) -> Program:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SPANBRIDGE_"))},
            **receiver.environment("http/protobuf"),
            "OTEL_SERVICE_NAME": service,
            "OTEL_LOGS_EXPORTER": "none",
            **variables,
        }
        started.append(Program([str(AGENT), sys.executable, str(EXAMPLES / script), *arguments], environment))
        return started[-1]

    yield run
    for program in started:
        program.kill()


def of(receiver: OtlpReceiver, service: str, operation: str) -> list[Span]:
    """A service's spans of an operation, in the order in which they started."""
    found = [
        span
        for span in receiver.spans
        if (span.service, span.attributes.get("messaging.operation.name")) == (service, operation)
    ]
    return sorted(found, key=lambda span: span.start_ns)


def counted(receiver: OtlpReceiver, service: str, metric: str, **labels: str) -> float:
    """Messages counted, or durations recorded, in the service's last export, with these labels (``_`` for ``.``)."""
    wanted = {key.replace("_", "."): value for key, value in labels.items()}
    exports = [m for m in receiver.metrics if m.name == metric and m.resource.get("service.name") == service]
    points = exports[-1].points if exports else ()
    return sum(point.count or point.value or 0 for point in points if wanted.items() <= point.attributes.items())
