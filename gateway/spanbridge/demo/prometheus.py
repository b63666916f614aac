"""A real Prometheus that scrapes a gateway and what instrumented processes exported."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from spanbridge.demo.exposition import CONTENT_TYPE, write_exposition
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.devstack.ports import LOOPBACK


def prometheus_program() -> str | None:
    """Where Prometheus is; None where it is not on the PATH."""
    return shutil.which("prometheus")


class ExportedMetrics:
    """``/metrics`` with what a receiver got. A context manager."""

    def __init__(self, receiver: OtlpReceiver) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = write_exposition(receiver.metrics).encode()
                self.send_response(http.client.OK)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{LOOPBACK}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def configuration(targets: Mapping[str, str], rules: Sequence[Path] = (), interval: float = 1.0) -> str:
    """A Prometheus configuration: the address of each job, and rule files. JSON is YAML."""
    every = f"{round(interval * 1000)}ms"
    jobs = [
        {
            "job_name": job,
            "honor_labels": job == "otelcol",
            "scrape_interval": every,
            "scrape_timeout": every,
            "static_configs": [{"targets": [address]}],
        }
        for job, address in targets.items()
    ]
    return json.dumps({
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(rule) for rule in rules],
        "scrape_configs": jobs,
    })  # fmt: skip


def command(program: str, directory: Path, port: int) -> list[str]:
    """How to start it on loopback, with ``prometheus.yml`` of that folder."""
    return [
        program,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'prometheus'}",
        f"--web.listen-address={LOOPBACK}:{port}",
    ]


class PrometheusClient:
    """Asks a Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{LOOPBACK}:{port}"

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:  # noqa: S310 - loopback
                return bool(answer.status == http.client.OK)
        except OSError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression has now.

        :raises ValueError: Prometheus does not take the expression.
        :raises OSError: it does not answer.
        """
        body = urllib.parse.urlencode({"query": expression}).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query", body, timeout=10) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(error.read(4096).decode("utf-8", "replace")) from None
        samples: list[dict[str, Any]] = found["data"]["result"]
        return samples

    def value(self, expression: str) -> float | None:
        """The value of an expression with one sample; None without any."""
        samples = self.query(expression)
        return float(samples[0]["value"][1]) if samples else None

    def until(self, condition: Callable[[PrometheusClient], bool]) -> bool:
        """Whether the condition holds; False while it does not answer."""
        try:
            return condition(self)
        except OSError:
            return False
