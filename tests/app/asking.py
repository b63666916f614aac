"""What tests of `check --connect` share: configurations for the shared brokers, and findings by their subjects."""

from __future__ import annotations

from pathlib import Path

from spanbridge.app.findings import PeerFinding
from spanbridge.config import Config, examine_text
from spanbridge.devstack.pytest_plugin import SharedStack


def configuration(devstack: SharedStack, routes: str, version: str = "5", mqtt: str = "", **changes: str) -> Config:
    broker = devstack.mqtt_v5 if version == "5" else devstack.mqtt_v311
    url = changes.get("url", f"mqtt://{broker.host}:{broker.port}")
    endpoints = changes.get("endpoints", devstack.rocketmq.endpoints)
    text = f'name = "gw"\n[mqtt]\nurl = "{url}"\nversion = "{version}"\n{mqtt}\n[rocketmq]\nendpoints = "{endpoints}"\n'
    report = examine_text(text + routes, {}, base=Path())
    assert report.config is not None, [problem.text() for problem in report.problems]
    return report.config


def route(filter_: str, topic: str, *more: str) -> str:
    return "\n".join(["[[routes]]", f'filter = "{filter_}"', f'topic = "{topic}"', *more, ""])


def by_subject(findings: list[PeerFinding]) -> dict[tuple[str, str], PeerFinding]:
    return {(finding.peer, finding.subject): finding for finding in findings}


def downlink(topic: str, group: str, *more: str) -> str:
    head = ["[[downlinks]]", f'topic = "{topic}"', f'consumer_group = "{group}"', 'mqtt_topic = "d/{key}"']
    return "\n".join([*head, f'name = "{group}"', *more, ""])
