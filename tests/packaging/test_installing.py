"""What a message tells somebody to install works: it names the checkout or wheel that this installation came from."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from spanbridge import installing
from spanbridge.installing import install_command


def installed_from(monkeypatch: pytest.MonkeyPatch, recorded: object) -> None:
    text = json.dumps(recorded) if recorded is not None else None
    found = SimpleNamespace(read_text=lambda name: text if name == "direct_url.json" else None)
    monkeypatch.setattr(installing, "distribution", lambda name: found)


def test_from_a_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "a folder" / "spanbridge-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    installed_from(monkeypatch, {"url": wheel.as_uri(), "archive_info": {}})
    assert install_command("gateway", "devstack") == f'pip install "{wheel}[gateway,devstack]"'


@pytest.mark.parametrize(("info", "option"), [({}, ""), ({"editable": True}, "-e ")])
def test_from_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, info: object, option: str) -> None:
    installed_from(monkeypatch, {"url": tmp_path.as_uri(), "dir_info": info})
    assert install_command("gateway") == f'pip install {option}"{tmp_path}[gateway]"'


@pytest.mark.parametrize(
    "recorded",
    [
        None,
        {"url": "file:///no/such/spanbridge-0.1.0-py3-none-any.whl", "archive_info": {}},
        {"url": "https://example.com/spanbridge-0.1.0-py3-none-any.whl", "archive_info": {}},
    ],
)
def test_from_where_nobody_knows_or_can_reach(monkeypatch: pytest.MonkeyPatch, recorded: object) -> None:
    installed_from(monkeypatch, recorded)
    assert install_command("gateway") == 'pip install ".[gateway]" at the top of a checkout'


def test_not_installed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installing, "distribution", missing)
    assert install_command("gateway") == 'pip install ".[gateway]" at the top of a checkout'
