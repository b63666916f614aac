"""What ``make dist`` builds, installed into an empty environment as docs/deployment.md says, does what the page says.

The dependencies are lent by the environment that runs the tests; spanbridge itself comes out of the wheel.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest

from spanbridge import __version__
from spanbridge.deployment import WHEEL

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text()
# What the page does to the machine, and a test must not.
NOT_HERE = ("apt", "sudoedit", "systemctl", "curl", "journalctl")

pytestmark = pytest.mark.timeout(300)  # it builds from scratch: an environment, then the sources, then the wheel


def run(command: list[str], cwd: Path, **environ: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=environ or None, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ``make dist`` builds."""
    folder = tmp_path_factory.mktemp("dist")
    run(["make", "dist", f"DIST={folder}", f"PYTHON={sys.executable}"], ROOT)
    return folder


@dataclass(frozen=True)
class Machine:
    """A machine of its own: ``root`` stands for the top of its file system."""

    root: Path

    @property
    def binaries(self) -> Path:
        return self.root / "opt" / "spanbridge" / "bin"

    def spanbridge(self, *arguments: str) -> str:
        return run([str(self.binaries / "spanbridge"), *arguments], self.root, PATH="/usr/bin:/bin")


def commands(heading: str) -> Iterator[list[str]]:
    """The commands of the first block of shell below a heading of the page."""
    block = PAGE.split(f"\n## {heading}\n")[1].split("```sh\n")[1].split("```")[0]
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words[1:] if words[0] == "sudo" else words


@pytest.fixture(scope="module")
def machine(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Where the steps of "Raspberry Pi and servers" were taken, one after the other."""
    made = Machine(tmp_path_factory.mktemp("machine"))
    (made.root / "etc" / "systemd" / "system").mkdir(parents=True)
    for words in commands("Raspberry Pi and servers: systemd"):
        if words[0] in NOT_HERE:
            continue
        here = [re.sub(r"^/(opt|etc)/", rf"{made.root}/\1/", word) for word in words]
        if words[:3] == ["python3", "-m", "venv"]:
            here[0] = sys.executable
        else:
            assert words[0] in ("mkdir", "cp") or words[0].startswith("/opt/spanbridge/bin/"), words
        if here[0].endswith("/pip"):
            here.append("--no-deps")
        run(here, dist)
        if here[0].endswith("/pip"):
            lend_dependencies(made)
    return made


def lend_dependencies(machine: Machine) -> None:
    (site_packages,) = (machine.root / "opt" / "spanbridge" / "lib").glob("python3*/site-packages")
    (site_packages / "lent.pth").write_text(f"{distribution('pydantic').locate_file('')}\n")


def test_wheel_and_sources_are_built(dist: Path) -> None:
    assert sorted(path.name for path in dist.iterdir()) == [WHEEL, f"spanbridge-{__version__}.tar.gz"]


def test_everything_that_belongs_to_a_package_is_in_the_wheel(dist: Path) -> None:
    packed = set(zipfile.ZipFile(dist / WHEEL).namelist())
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in packages["packages"]:
        folder = ROOT / package
        files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert {str(path.relative_to(folder.parent)) for path in files} <= packed
    assert not [name for name in packed if name.endswith(".pyc") or name.startswith("tests/")]


def test_the_wheel_is_what_runs(machine: Machine) -> None:
    where = "import spanbridge, spanbridge_context, spanbridge_instrumentation as i\n"
    where += "print(spanbridge.__file__, spanbridge_context.__file__, i.__file__)"
    for path in run([str(machine.binaries / "python"), "-c", where], machine.root, PATH="").split():
        assert Path(path).is_relative_to(machine.root)
    assert machine.spanbridge("--version") == f"spanbridge {__version__}\n"


def test_the_pages_steps_leave_a_configuration_and_a_unit(machine: Machine) -> None:
    etc = machine.root / "etc"
    configuration = etc / "spanbridge" / "spanbridge.toml"
    assert "is valid" in machine.spanbridge("check", "--strict", "-c", str(configuration))
    unit = ROOT / "deploy" / "systemd" / "spanbridge.service"
    assert (etc / "systemd" / "system" / unit.name).read_text() == unit.read_text()


@pytest.mark.parametrize("kit", ["systemd", "compose", "kubernetes"])
def test_every_kit_comes_out_of_the_wheel(machine: Machine, tmp_path: Path, kit: str) -> None:
    out = machine.spanbridge("init", f"--{kit}", str(tmp_path))
    written = [Path(line.removeprefix("wrote ")) for line in out.splitlines() if line.startswith("wrote ")]
    tops = {"systemd": ROOT / "deploy" / "systemd", "compose": ROOT, "kubernetes": ROOT / "deploy" / "kubernetes"}
    assert written
    for path in written:
        name = path.relative_to(tmp_path)
        assert name == Path(".dockerignore") or path.read_text() == (tops[kit] / name).read_text()


def test_the_demonstration_finds_its_scripts(machine: Machine) -> None:
    code = "from spanbridge.demo.cast import example\nprint(example('device_v5.py'), example('zero_code/sensor.py'))"
    for path in run([str(machine.binaries / "python"), "-c", code], machine.root, PATH="").split():
        assert Path(path).is_relative_to(machine.root)


def test_the_gateways_pages_and_plug_ins_are_there(machine: Machine) -> None:
    code = "from spanbridge.admin import pages\nimport spanbridge.app\nprint('loaded')"
    assert run([str(machine.binaries / "python"), "-W", "error", "-c", code], machine.root, PATH="") == "loaded\n"
    assert "devstack" in machine.spanbridge("--help")
