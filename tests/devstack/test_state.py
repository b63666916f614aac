"""Where stacks leave their marks, in directories whose names others can guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanbridge.devstack.errors import DevstackError
from spanbridge.devstack.ports import own_directory
from spanbridge.devstack.state import state_path


def test_a_directory_is_made_for_us_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = state_path("default")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert state_path("default") == path


@pytest.mark.parametrize("trap", ["link", "link to nowhere", "open to all", "file"])
def test_a_directory_that_somebody_else_prepared_is_not_used(trap: str, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "spanbridge-1000", tmp_path / "home"
    match trap:
        case "link":
            elsewhere.mkdir()
            path.symlink_to(elsewhere)
        case "link to nowhere":
            path.symlink_to(elsewhere)
        case "open to all":
            path.mkdir()
            path.chmod(0o777)
        case _:
            path.touch()
    with pytest.raises(DevstackError, match="not a directory of yours"):
        own_directory(path)
