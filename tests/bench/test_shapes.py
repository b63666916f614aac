"""Which cases are measured, and the configurations that they run with."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from bench.environment import Case
from bench.modes import COMPARED, MODES, mode
from bench.revision import ROOT, THIS, Code, RevisionError, checked_out
from bench.rounds import cases
from bench.shapes import README, SHAPES, Setting, Shape, readme_config, shape

SETTING = Setting(mqtt="127.0.0.1:1", rocketmq="127.0.0.1:2", run_id=7)
OTHER = Code("abc1234", Path("/nowhere"))


def test_the_readme_s_configuration_is_used_with_nothing_but_addresses_replaced() -> None:
    made = readme_config(SETTING)
    original = made.replace("mqtt://127.0.0.1:1", "mqtt://127.0.0.1:1883").replace("127.0.0.1:2", "127.0.0.1:8081")
    assert f"```toml\n{original}```" in README.read_text()
    assert tomllib.loads(made)["rocketmq"] == {"endpoints": "127.0.0.1:2"}


@pytest.mark.parametrize("of", SHAPES, ids=lambda of: of.name)
def test_the_gateway_accepts_every_shape_s_configuration_for_its_topics(of: Shape, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(of.config(SETTING))
    environment = os.environ | THIS.environment | of.environment
    command = THIS.command("check", "-c", str(config))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    filters = [route["filter"] for route in tomllib.loads(config.read_text())["routes"]]
    assert re.sub(r"\{\w+\}", "+", filters[0]) == of.topics(7).replace("{device}", "+")


def _names(found: list[Case]) -> list[str]:
    return [case.label for case in found]


def test_without_names_everything_is_measured() -> None:
    found = _names(cases([], [], None))
    assert found[: len(MODES)] == [f"plain {one.name}" for one in MODES]
    assert len(found) == len(MODES) + 2 * (len(SHAPES) - 1)


def test_modes_alone_are_those_of_plain() -> None:
    assert _names(cases([], ["traced"], None)) == ["plain traced"]


def test_the_other_commit_takes_turns_with_this_checkout() -> None:
    assert _names(cases(["readme"], [], OTHER)) == [
        "readme untraced",
        "readme untraced abc1234",
        "readme traced",
        "readme traced abc1234",
    ]
    assert len(cases([], [], OTHER)) == len(MODES) + len(COMPARED) + 4 * (len(SHAPES) - 1)


def test_devices_of_the_baseline_send_what_it_reads() -> None:
    assert Case(shape=shape("plain"), mode=mode("baseline_traced")).carrier == "traceparent"
    assert Case(shape=shape("v311_suffix"), mode=mode("traced")).carrier == "suffix"


def test_a_commit_s_gateway_runs_from_a_worktree_that_is_removed_again() -> None:
    with checked_out("HEAD") as code:
        assert (code.root / "gateway" / "spanbridge").is_dir()
        done = subprocess.run(
            code.command("--help"), env=os.environ | code.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert not code.root.exists()
    listed = subprocess.run(["git", "-C", ROOT, "worktree", "list"], capture_output=True, text=True, check=True)
    assert str(code.root) not in listed.stdout


def test_a_commit_that_does_not_exist_is_named() -> None:
    with pytest.raises(RevisionError, match="rev-parse"), checked_out("no-such-commit"):
        pass
