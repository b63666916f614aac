"""The alerts: what each says, promtool's opinion of them, and their pages of the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_dashboard import DEPLOY, RULES


def test_alerts_say_what_they_mean() -> None:
    assert all(rule["labels"]["severity"] in ("critical", "warning") for rule in RULES)
    assert all(set(rule["annotations"]) == {"summary", "description", "runbook_url"} for rule in RULES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH (Debian package prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")),
        ("test", "rules", str(Path(__file__).with_name("alerts.test.yml"))),
        ("test", "rules", str(Path(__file__).with_name("lag.test.yml"))),
    ],
    ids=lambda arguments: " ".join([*arguments[:2], Path(arguments[2]).name]),
)
def test_prometheus_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_unit_tested_firing_and_silent() -> None:
    """promtool runs them: :func:`test_prometheus_agrees`."""
    fires: set[str] = set()
    silent: set[str] = set()
    for file in Path(__file__).parent.glob("*.test.yml"):
        for group in yaml.safe_load(file.read_text())["tests"]:
            for case in group.get("alert_rule_test", []):
                (fires if case["exp_alerts"] else silent).add(case["alertname"])
    names = {rule["alert"] for rule in RULES}
    assert fires == names
    assert names - silent == set()


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in RULES])
def test_every_alert_leads_to_its_section_of_the_runbook(rule: dict[str, Any]) -> None:
    page = (DEPLOY.parent / "docs" / "runbook.md").read_text()
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    section = page.partition(f"\n## {rule['alert']}\n")[2].partition("\n## ")[0]
    assert len(section) > 80


def test_the_runbook_has_no_other_alert() -> None:
    page = (DEPLOY.parent / "docs" / "runbook.md").read_text()
    assert set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) == {rule["alert"] for rule in RULES}
