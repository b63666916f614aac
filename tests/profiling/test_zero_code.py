"""A program under ``opentelemetry-instrument``: profiled because a variable says so, and told nothing of it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import ExportProfilesServiceRequest

from spanbridge_profiling import auto
from spanbridge_profiling.background import begin
from spanbridge_profiling.settings import read_settings
from tests.profiling.programs import burn
from tests.profiling.reading import read_pprof

PROGRAM = Path(__file__).with_name("program.py")
AGENT = Path(sys.executable).with_name("opentelemetry-instrument")


class Receiver(ThreadingHTTPServer):
    """Takes what is posted."""

    daemon_threads = True
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.taken: list[tuple[str, str | None, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast("Receiver", self.server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.taken.append((self.path, self.headers["X-Tenant"], body))
        self.send_response(server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SPANBRIDGE_"))}
    exporters = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    return subprocess.run(
        [AGENT, sys.executable, str(PROGRAM)],
        env={**clean, **exporters, "OTEL_SERVICE_NAME": "program", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def spans(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    return {name: (trace, span) for name, trace, span in map(json.loads, done.stdout.splitlines())}


def test_profiles_are_pushed_and_written_with_their_spans(receiver: Receiver, tmp_path: Path) -> None:
    done = run(
        SPANBRIDGE_PROFILING="otlp,file",
        SPANBRIDGE_PROFILING_RATE="250",
        SPANBRIDGE_PROFILING_DIRECTORY=str(tmp_path / "profiles"),
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_EXPORTER_OTLP_PROFILES_HEADERS="x-tenant=plant%20a",
    )
    assert (done.returncode, done.stderr) == (3, "")
    told = spans(done)
    [file] = (tmp_path / "profiles").iterdir()
    samples = [s for s in read_pprof(file.read_bytes()).samples if "burn" in [frame[0] for frame in s.frames]]
    for thread, name in (("MainThread", "task"), ("worker", "thread")):
        cpu: dict[tuple[str, str], int] = {}
        for sample in samples:
            if sample.labels["thread"] == thread:
                key = (sample.labels.get("trace_id", ""), sample.labels.get("span_id", ""))
                cpu[key] = cpu.get(key, 0) + sample.values[1]
        assert cpu[told[name]] >= 0.95 * sum(cpu.values())
        assert cpu[told[name]] > 0.25e9
    [(path, tenant, body)] = receiver.taken
    assert (path, tenant) == ("/v1development/profiles", "plant a")
    judge(ExportProfilesServiceRequest.FromString(body), told)


def judge(request: Any, told: dict[str, tuple[str, str]]) -> None:
    [of_resource] = request.resource_profiles
    attributes = {pair.key: pair.value.string_value for pair in of_resource.resource.attributes}
    assert attributes["service.name"] == "program"
    assert attributes["telemetry.sdk.language"] == "python"
    links = {(link.trace_id.hex(), link.span_id.hex()) for link in request.dictionary.link_table[1:]}
    assert links == set(told.values())


@pytest.mark.parametrize("variables", [{}, {"SPANBRIDGE_PROFILING": "off"}, {"OTEL_SDK_DISABLED": "true"}])
def test_it_is_off_unless_asked_for(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPANBRIDGE_PROFILING", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    if "OTEL_SDK_DISABLED" in variables:
        monkeypatch.setenv("SPANBRIDGE_PROFILING", "file")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    auto.start()
    assert "spanbridge-profiles" not in [thread.name for thread in threading.enumerate()]
    auto.stop()


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"SPANBRIDGE_PROFILING": "yes"}, "SPANBRIDGE_PROFILING='yes' is none of off, otlp, file"),
        ({"SPANBRIDGE_PROFILING": "file", "SPANBRIDGE_PROFILING_RATE": "0"}, "no number from 1 to 1000"),
        ({"SPANBRIDGE_PROFILING": "otlp", "OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT": "ftp://x"}, "is no http://"),
        ({"SPANBRIDGE_PROFILING": "otlp", "OTEL_EXPORTER_OTLP_HEADERS": "secret"}, "no list of name=value pairs"),
        ({"SPANBRIDGE_PROFILING": "otlp", "OTEL_EXPORTER_OTLP_TIMEOUT": "-1"}, "no number of milliseconds"),
        ({"SPANBRIDGE_PROFILING": "otlp", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/none"}, "No such file"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    variables: dict[str, str], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert begin(variables) is None
    [record] = [record for record in caplog.records if record.name == "spanbridge_profiling"]
    assert told in record.getMessage()
    assert "secret" not in record.getMessage()
    assert record.exc_info is None


def test_a_receiver_that_refuses_is_told_once_and_stops_nothing(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 404
    endpoint = f"{receiver.url}/x?key=secret"
    background = begin(
        {
            "SPANBRIDGE_PROFILING": "otlp",
            "SPANBRIDGE_PROFILING_INTERVAL": "1",
            "OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        }
    )
    assert background is not None
    while len(receiver.taken) < 2:
        burn(0.05)
    background.stop()
    background.stop()
    [record] = [record for record in caplog.records if record.name == "spanbridge_profiling"]
    assert "the receiver answered 404" in record.getMessage()
    assert "secret" not in record.getMessage()
    path, _, body = receiver.taken[0]
    assert path == "/x?key=secret"
    ExportProfilesServiceRequest.FromString(gzip.decompress(body))


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, "http://localhost:4318/v1development/profiles"),
        ({"ENDPOINT": "http://c:4317"}, "http://c:4318/v1development/profiles"),
        ({"ENDPOINT": "http://c:4317", "PROTOCOL": "http/protobuf"}, "http://c:4317/v1development/profiles"),
        ({"ENDPOINT": "https://c/otlp/"}, "https://c/otlp/v1development/profiles"),
        ({"PROFILES_ENDPOINT": "https://p/in", "ENDPOINT": "http://c"}, "https://p/in"),
    ],
)
def test_where_profiles_go(variables: dict[str, str], endpoint: str) -> None:
    named = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}
    settings = read_settings({"SPANBRIDGE_PROFILING": "otlp", **named})
    assert settings is not None
    assert settings.endpoint == endpoint
