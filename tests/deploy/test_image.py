"""The Dockerfile and its context: what it copies and installs is there."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from pathlib import Path

from spanbridge import __version__
from spanbridge.deployment import COMPOSE, WHEEL

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTRUCTIONS = [
    line.split(None, 1)
    for line in re.sub(r"\\\n(\s*#.*\n)*", " ", DOCKERFILE).splitlines()
    if line.strip() and not line.startswith("#")
]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def test_installs_an_extra_that_exists() -> None:
    extras = re.findall(r"spanbridge\[([\w,]+)\] @", DOCKERFILE)
    assert extras
    assert set(",".join(extras).split(",")) <= set(PROJECT["project"]["optional-dependencies"])


def patterns(ignore: str) -> list[str]:
    return [line for line in ignore.splitlines() if line and line[0] != "#"]


def test_copies_what_the_context_holds() -> None:
    assert [rest for rest in arguments("COPY") if "--from" not in rest] == [". ."]
    first, *rest = patterns((ROOT / ".dockerignore").read_text())
    assert first == "*", "only what is named gets in"
    for name in rest:
        assert name == "**/__pycache__" or (ROOT / name.removeprefix("!")).exists()


def test_context_of_the_compose_kit_holds_the_wheel_alone() -> None:
    assert patterns(COMPOSE.texts[".dockerignore"]) == ["*", "!spanbridge-*.whl"]
    assert fnmatch.fnmatch(WHEEL, "spanbridge-*.whl")
    assert "ls -v /src/spanbridge-*.whl" in DOCKERFILE


def test_context_holds_what_the_wheel_is_made_from() -> None:
    copied = {line[1:] for line in patterns((ROOT / ".dockerignore").read_text()) if line.startswith("!")}
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], PROJECT["project"]["readme"], "LICENSE", "pyproject.toml"]
    assert {name.split("/")[0] for name in needed} <= copied


def test_python_is_one_that_the_project_supports() -> None:
    images = {rest.split()[0] for rest in arguments("FROM")}
    assert len(images) == 1, "a virtual environment works on the Python that made it"
    version = next(iter(images)).split(":")[1].split("-")[0]
    assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]


def test_runs_without_root_and_can_be_stopped_and_asked() -> None:
    assert arguments("USER") == ["10001:10001"]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(arguments("ENTRYPOINT")[0]) == ["spanbridge"]
    assert "spanbridge" in PROJECT["project"]["scripts"]
    (health,) = arguments("HEALTHCHECK")
    command = json.loads(health.split("CMD", 1)[1])
    compile(command[-1], "HEALTHCHECK", "exec")
    assert "/readyz" in command[-1]


def test_label_has_the_version() -> None:
    assert f"VERSION={__version__}" in arguments("ARG")


def test_nothing_secret_is_in_the_context() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in (".git", ".venv", "docs", "spanbridge.toml", ".env"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in allowed)
