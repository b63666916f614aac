"""The systemd unit: parses, fits the gateway's exit codes and times, and its configuration is valid."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from spanbridge.cli import exits
from spanbridge.config import examine
from spanbridge.config.models import UplinkSection

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = FOLDER / "spanbridge.service"
SECRETS = FOLDER / "secrets.conf"


def directives(file: Path) -> dict[str, dict[str, list[str]]]:
    """Sections, their directives, and each one's values: unlike in an INI file a directive may come again."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = found.setdefault(heading[1], {})
        elif line and line[0] not in "#;":
            name, equals, value = line.partition("=")
            assert equals, f"{file.name}: {line!r} is no directive"
            section.setdefault(name, []).append(value)
    return found


def test_fits_the_gateway() -> None:
    service = directives(UNIT)["Service"]
    assert service["RestartPreventExitStatus"] == [str(exits.USAGE)]
    assert int(service["TimeoutStopSec"][0]) >= UplinkSection().drain_timeout + 10
    assert service["ExecStart"] == ["/opt/spanbridge/bin/spanbridge run -c /etc/spanbridge/spanbridge.toml"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["Type"] == ["exec"], "a reload is not waited for: the gateway says in its log what came of it"
    in_hand = UplinkSection().max_in_flight_bytes + 16 * 1024 * 1024
    assert int(service["MemoryMax"][0].removesuffix("M")) * 1024 * 1024 > 100 * 1024 * 1024 + in_hand


def test_is_confined() -> None:
    service = directives(UNIT)["Service"]
    assert service["DynamicUser"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["CapabilityBoundingSet"] == [""]
    assert not [name for name in service if name.startswith("LoadCredential")], "it starts without secrets as well"


def test_configuration_is_valid_with_the_secrets(tmp_path: Path) -> None:
    for loaded in directives(SECRETS)["Service"]["LoadCredential"]:
        name, _, source = loaded.partition(":")
        assert source == f"/etc/spanbridge/secrets/{name}", "`check` is told to look for it there"
        (tmp_path / name).write_text("secret\n")
    text = (FOLDER / "spanbridge.toml").read_text().replace("/etc/spanbridge/", "")
    for name in ("ca.pem", "mqtt.pem"):
        (tmp_path / name).touch()
    file = tmp_path / "spanbridge.toml"
    file.write_text(text)
    report = examine(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert not report.problems, report.problems
    assert report.config is not None
    assert report.config.name
    assert set(re.findall(r"CREDENTIALS_DIRECTORY\}/([\w-]+)", text)) == {path.name for path in tmp_path.iterdir()} - {
        "ca.pem",
        "mqtt.pem",
        "spanbridge.toml",
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on the PATH")
def test_systemd_agrees(tmp_path: Path) -> None:
    (tmp_path / "spanbridge.service.d").mkdir()
    shutil.copy(SECRETS, tmp_path / "spanbridge.service.d" / SECRETS.name)
    # verify wants the command to exist
    unit = UNIT.read_text().replace("ExecStart=/opt", "ExecStart=/bin/true /opt")
    (tmp_path / UNIT.name).write_text(unit)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert done.returncode == 0, done.stderr
    assert not ours
