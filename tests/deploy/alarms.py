"""The alerts in a real Prometheus, with times that a test can wait for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from spanbridge.demo.prometheus import PrometheusClient, command, configuration, prometheus_program
from spanbridge.devstack.ports import PortLease
from spanbridge.devstack.process import KeeperClient, ServerProcess

FACTOR = 30
"""How much shorter: five minutes become ten seconds, in which Prometheus scrapes ten times."""
_DURATION = re.compile(r"(for: |\[|offset )(\d+)m\b")
_AGE = re.compile(r"(_(?:age_seconds|latency_seconds:max)\b[^>]*> )(\d+)\b")


def shortened(rules: str) -> str:
    """The same rules with every ``for:``, window, offset and age in seconds divided by :data:`FACTOR`."""
    rules = _DURATION.sub(lambda found: f"{found[1]}{int(found[2]) * 60 // FACTOR}s", rules)
    return _AGE.sub(lambda found: f"{found[1]}{int(found[2]) / FACTOR:g}", rules)


def shorten(files: Sequence[Path], directory: Path) -> list[Path]:
    """Write the shortened rules of these files into a directory."""
    for file in files:
        (directory / file.name).write_text(shortened(file.read_text()))
    return [directory / file.name for file in files]


class Watch:
    """A Prometheus that scrapes gateways every second and evaluates shortened rules. :meth:`close` ends it."""

    def __init__(self, directory: Path, jobs: Mapping[str, Sequence[str]], files: Sequence[Path]) -> None:
        program = prometheus_program()
        assert program is not None
        self._ports = PortLease()
        self._keeper = KeeperClient(directory)
        port = self._ports.take()
        setup = json.loads(configuration(dict.fromkeys(jobs, ""), shorten(files, directory)))
        for job in setup["scrape_configs"]:
            job["static_configs"] = [{"targets": list(jobs[job["job_name"]])}]
        (directory / "prometheus.yml").write_text(json.dumps(setup))
        argv = command(program, directory, port)
        ServerProcess(keeper=self._keeper, name="prometheus", argv=argv, directory=directory).start()
        self.client = PrometheusClient(port)

    def close(self) -> None:
        """End it."""
        self._keeper.close()
        self._ports.release()


def fired(client: PrometheusClient, alert: str) -> list[dict[str, str]]:
    """The labels with which an alert fires, or has fired within the last hour."""
    found = client.query(f'max_over_time(ALERTS{{alertname="{alert}", alertstate="firing"}}[1h])')
    return [dict(one["metric"]) for one in found]
