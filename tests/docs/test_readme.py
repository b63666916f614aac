"""What the documentation shows works as shown: snippets, commands, links."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spanbridge.config import examine_text

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
SPANBRIDGE = str(Path(sys.executable).with_name("spanbridge"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands(program: str) -> list[str]:
    found = [line for block in blocks("console") for line in block.splitlines() if line.startswith(f"$ {program}")]
    return [line.removeprefix("$ ").split("#")[0].strip() for line in found]


def test_the_configuration_on_the_first_screen_is_valid_and_twelve_lines_long() -> None:
    config, _ = blocks("toml")
    assert len(config.strip().splitlines()) == 12
    report = examine_text(config, {}, base=ROOT)
    assert report.problems == []
    assert report.config is not None


def test_the_downlink_further_down_can_be_added_to_it() -> None:
    config, downlink = blocks("toml")
    assert len(downlink.strip().splitlines()) == 4
    report = examine_text(f"{config}\n{downlink}", {}, base=ROOT)
    assert report.problems == []
    assert report.config is not None
    assert [section.topic for section in report.config.downlinks] == ["commands"]


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_snippet_runs(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=30)


def test_every_make_target_that_pages_name_exists() -> None:
    known = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z0-9-]+)", page.read_text())}
    named |= {line.split()[1] for line in commands("make")}
    assert named <= known


def test_the_commands_for_running_a_gateway_work_in_the_order_given(tmp_path: Path) -> None:
    assert commands("spanbridge") == ["spanbridge init", "spanbridge check", "spanbridge run"]
    subprocess.run([SPANBRIDGE, "init"], cwd=tmp_path, check=True, timeout=30)
    subprocess.run([SPANBRIDGE, "check"], cwd=tmp_path, check=True, timeout=30)
    file = tmp_path / "spanbridge.toml"
    file.write_text(re.sub(r"^#? ?port = 9464$", "port = 0", file.read_text(), flags=re.MULTILINE))
    log = tmp_path / "log"
    with log.open("wb") as output:
        gateway = subprocess.Popen(
            [SPANBRIDGE, "run"],
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            env={"PATH": "", "SPANBRIDGE__ADMIN__PORT": "0", "SPANBRIDGE__UPLINK__DRAIN_TIMEOUT": "1"},
        )
    try:
        deadline = time.monotonic() + 30
        while b"started" not in log.read_bytes():
            assert time.monotonic() < deadline, log.read_text()
            assert gateway.poll() is None, log.read_text()
            time.sleep(0.05)
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(30) == 0, log.read_text()
    finally:
        gateway.kill()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []
