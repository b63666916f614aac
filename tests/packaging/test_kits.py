"""``spanbridge init --systemd | --compose | --kubernetes``: what is written, what is refused, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from spanbridge.cli.commands import build
from spanbridge.config import examine
from spanbridge.deployment import COMPOSE, KITS, KUBERNETES, SYSTEMD, Kit, files_root, kits

ROOT = Path(__file__).parents[2]
each_kit = pytest.mark.parametrize("kit", KITS, ids=lambda kit: kit.name)


def init(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(build(), ["init", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@each_kit
def test_writes_the_files_and_says_what_is_next(kit: Kit, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    code, out, err = init(f"--{kit.name}", str(folder))
    assert (code, err) == (0, "")
    written, _, after = out.partition("next:\n")
    assert {line.removeprefix("wrote ") for line in written.splitlines()} == {
        str(folder / name) for name in below(folder)
    }
    assert str(folder) in after
    assert "{" not in after


def test_systemd_and_kubernetes_are_the_checkouts_own(tmp_path: Path) -> None:
    assert init("--systemd", str(tmp_path / "s"), "--kubernetes", str(tmp_path / "k"))[0] == 0
    assert below(tmp_path / "s") == below(ROOT / "deploy" / "systemd")
    assert below(tmp_path / "k") == below(ROOT / "deploy" / "kubernetes")


def test_compose_has_all_that_its_services_mount_and_build_from(tmp_path: Path) -> None:
    assert init("--compose", str(tmp_path))[0] == 0
    assert all(text == (ROOT / name).read_text() for name, text in below(tmp_path).items() if name != ".dockerignore")
    services = yaml.safe_load((tmp_path / "docker-compose.yml").read_text())["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (tmp_path / source).exists(), source
        if build_from := service.get("build"):
            assert (tmp_path / build_from["context"] / build_from["dockerfile"]).is_file()
        for script in (part for part in service.get("entrypoint", []) if part.startswith("/examples/")):
            assert (tmp_path / script.removeprefix("/")).is_file(), script
    report = examine(tmp_path / "deploy" / "compose" / "spanbridge.toml", {})
    assert report.config is not None


@each_kit
def test_overwrites_only_when_told_and_else_writes_nothing(kit: Kit, tmp_path: Path) -> None:
    name = str(max(kit.files()))
    mine = tmp_path / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    code, out, err = init(f"--{kit.name}", str(tmp_path))
    assert (code, out) == (2, "")
    assert err == f"spanbridge: nothing written; --force overwrites what exists: {mine}\n"
    assert below(tmp_path) == {name: "mine"}
    assert init(f"--{kit.name}", str(tmp_path), "--force")[0] == 0
    assert len(below(tmp_path)) == len(kit.files())
    assert mine.read_text() != "mine"


def test_one_that_is_refused_keeps_the_others_from_being_written(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "secret.yaml").write_text("mine")
    assert init("--systemd", str(tmp_path / "s"), "--kubernetes", str(tmp_path / "k"))[0] == 2
    assert not (tmp_path / "s").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, out, err = init("--systemd", str(tmp_path / "file"))
    assert (code, out) == (1, "")
    assert err == f"spanbridge: cannot write {tmp_path / 'file'}: file exists\n"


def test_a_configuration_file_beside_it_is_refused(tmp_path: Path) -> None:
    code, _, err = init(str(tmp_path / "mine.toml"), "--systemd", str(tmp_path))
    assert code == 2
    assert "cannot be combined" in err
    assert below(tmp_path) == {}


def test_an_installation_without_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kits, "__file__", str(tmp_path / "a" / "b" / "c" / "kits.py"))
    monkeypatch.setattr(kits, "_PACKAGED", tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        files_root()
    code, _, err = init("--systemd", str(tmp_path / "s"))
    assert code == 1
    assert "this installation has no files for deployment" in err


def test_what_is_next_names_files_that_are_there() -> None:
    assert "spanbridge.service" in {str(name) for name in SYSTEMD.files()}
    assert {"deployment.yaml", "configmap.yaml", "secret.yaml"} <= {str(name) for name in KUBERNETES.files()}
    assert {"docker-compose.yml", ".dockerignore"} <= {str(name) for name in COMPOSE.files()}
