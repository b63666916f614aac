"""Commands that are printed can be pasted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from spanbridge.cli.invocation import command


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script of an installation in ``.venv`` of the current directory, which the PATH does not hold."""
    path = tmp_path / "check out" / ".venv" / "bin" / "spanbridge"
    path.parent.mkdir(parents=True)
    path.touch(mode=0o755)
    monkeypatch.chdir(tmp_path / "check out")
    monkeypatch.setattr(sys, "executable", str(path.with_name("python")))
    monkeypatch.setenv("PATH", str(tmp_path))
    return path


def test_a_checkout_is_named_from_where_one_stands(script: Path) -> None:
    assert command() == ".venv/bin/spanbridge"


def test_from_elsewhere_the_whole_path_is_named(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command() == f"'{script}'"


def test_what_the_path_leads_to_is_named_shortly(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(script.parent))
    assert command() == "spanbridge"


def test_another_installation_on_the_path_is_not_meant(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spanbridge").touch(mode=0o755)
    assert command() == ".venv/bin/spanbridge"


def test_without_a_script_the_name_has_to_do(script: Path) -> None:
    script.unlink()
    assert command() == "spanbridge"
