"""The command line through typer's runner: what each command says, where, and with which exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

import spanbridge
from spanbridge.cli import plugins
from spanbridge.cli.commands import build
from spanbridge.config import Config, examine_text
from spanbridge.core.errors import SinkUnavailable
from spanbridge.installing import install_command

GOOD = """\
[mqtt]
url = "mqtt://127.0.0.1:1883"
[rocketmq]
endpoints = "127.0.0.1:8081"
[[routes]]
filter = "devices/{device}/telemetry"
topic = "telemetry"
"""
BAD = GOOD.replace("topic =", "topik =").replace("url =", 'pasword = "hunter2"\nurl =')
WARNING = GOOD + "qos = 0\n"

runner = CliRunner()


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = runner.invoke(build(), list(arguments), env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def replace_app(monkeypatch: pytest.MonkeyPatch, run: Callable[[Config], int]) -> None:
    monkeypatch.setattr(spanbridge, "app", SimpleNamespace(run=run), raising=False)


def write(folder: Path, text: str) -> str:
    file = folder / "spanbridge.toml"
    file.write_text(text)
    return str(file)


def test_check_valid(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    assert invoke("check", "-c", file) == (0, f"{file} is valid: 1 MQTT connection, 1 route\n", "")


def test_check_tells_each_problem_on_a_line(tmp_path: Path) -> None:
    file = write(tmp_path, BAD)
    code, out, _ = invoke("check", "-c", file)
    assert code == 2
    assert out.splitlines() == [
        f"{file}:2: error: mqtt.pasword: is not a setting (did you mean `password`?)",
        f'{file}:6: error: routes[0].topic: is missing (for example: topic = "telemetry")',
        f"{file}:8: error: routes[0].topik: is not a setting (did you mean `topic`?)",
        f"{file}: 3 errors",
    ]


def test_check_with_warnings_is_valid_unless_strict(tmp_path: Path) -> None:
    file = write(tmp_path, WARNING)
    code, out, _ = invoke("check", "-c", file)
    assert code == 0
    assert ":8: warning: routes[0].qos: is 0: at most once" in out
    assert "is valid" in out
    assert invoke("check", "--strict", "-c", file)[0] == 2


def test_check_as_json(tmp_path: Path) -> None:
    code, out, _ = invoke("check", "--json", "-c", write(tmp_path, BAD))
    content = json.loads(out)
    assert code == 2
    assert content["valid"] is False
    assert content["problems"][0] == {
        "path": "mqtt.pasword",
        "message": "is not a setting",
        "hint": "did you mean `password`?",
        "value": None,
        "line": 2,
        "source": None,
        "severity": "error",
    }
    code, out, _ = invoke("check", "--json", "-c", write(tmp_path, GOOD))
    assert (code, json.loads(out)["valid"], json.loads(out)["problems"]) == (0, True, [])


def test_check_reads_the_file_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_CONFIG", write(tmp_path, GOOD))
    assert invoke("check")[0] == 0


def test_check_without_a_file(tmp_path: Path) -> None:
    code, out, _ = invoke("check", "-c", str(tmp_path / "none.toml"))
    assert code == 2
    assert "does not exist" in out
    assert "spanbridge init" in out


def test_init_writes_a_file_that_passes_check(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    code, out, _ = invoke("init", str(file))
    assert (code, out) == (0, f"wrote {file}; next: spanbridge check -c {file}\n")
    code, out, _ = invoke("check", "--strict", "-c", str(file))
    assert code == 0


def test_init_overwrites_only_when_told(tmp_path: Path) -> None:
    file = tmp_path / "spanbridge.toml"
    file.write_text("mine")
    code, _, err = invoke("init", str(file))
    assert (code, file.read_text()) == (2, "mine")
    assert "--force" in err
    assert invoke("init", str(file), "--force")[0] == 0
    assert "[mqtt]" in file.read_text()


def test_init_to_nowhere_and_to_standard_output(tmp_path: Path) -> None:
    code, _, err = invoke("init", str(tmp_path / "no" / "where.toml"))
    assert code == 1
    assert "no such file or directory" in err
    code, out, _ = invoke("init", "-")
    assert code == 0
    assert examine_text(out, {}, base=tmp_path).problems == []


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(arguments: list[str]) -> None:
    assert invoke(*arguments) == (0, f"spanbridge {spanbridge.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["config", "schema"], ["check", "--schema"]])
def test_schema(arguments: list[str]) -> None:
    code, out, _ = invoke(*arguments)
    assert code == 0
    assert json.loads(out)["title"] == "spanbridge configuration"


def test_docs() -> None:
    code, out, _ = invoke("config", "docs")
    assert code == 0
    assert out.startswith("# Configuration\n")


@pytest.mark.parametrize(
    "arguments",
    [[], ["run"], ["check"], ["init"], ["version"], ["config"], ["config", "schema"], ["config", "docs"]],
)
def test_every_help_has_an_example(arguments: list[str]) -> None:
    code, out, _ = invoke(*arguments, "--help")
    assert code == 0
    assert f"Example: spanbridge {' '.join(arguments)}".strip() in out


def test_mistyped_commands_and_options() -> None:
    code, _, err = invoke("chek")
    assert code == 2
    assert "check" in err
    assert invoke("check", "--jsn")[0] == 2


def test_run_hands_the_configuration_over_and_returns_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []

    def run(config: Config) -> int:
        seen.append(config)
        return 7

    replace_app(monkeypatch, run)
    code, out, err = invoke("run", "-c", write(tmp_path, WARNING))
    assert (code, out) == (7, "")
    assert "warning: routes[0].qos" in err
    assert seen[0].routes[0].topic == "telemetry"


def test_run_with_errors_in_the_configuration(tmp_path: Path) -> None:
    code, out, err = invoke("run", "-c", write(tmp_path, BAD))
    assert (code, out) == (2, "")
    assert "routes[0].topik" in err
    assert "hunter2" not in err


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (SinkUnavailable("no endpoint answered"), 1, "spanbridge: no endpoint answered\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_run_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, text: str
) -> None:
    def run(_: Config) -> int:
        raise raised

    replace_app(monkeypatch, run)
    assert invoke("run", "-c", write(tmp_path, GOOD)) == (code, "", text)


def plug_in(monkeypatch: pytest.MonkeyPatch, value: str, name: str = "extra") -> None:
    entry = EntryPoint(name=name, value=value, group=plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == plugins.GROUP else [])


def test_plugins_are_listed_without_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "no_such_module:app")
    code, out, _ = invoke("--help")
    assert code == 0
    assert "extra" in out


def test_plugins_get_their_arguments_and_their_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_plug_in.py").write_text(
        "import typer\n"
        "app = typer.Typer()\n"
        "@app.callback()\n"
        "def group(): pass\n"
        "@app.command()\n"
        "def hello(name: str, loud: bool = False):\n"
        "    typer.echo(name.upper() if loud else name)\n"
        "    raise typer.Exit(5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plug_in(monkeypatch, "a_plug_in:app")
    assert invoke("extra", "hello", "ada", "--loud") == (5, "ADA\n", "")
    code, out, _ = invoke("extra", "--help")
    assert code == 0
    assert "hello" in out
    sys.modules.pop("a_plug_in", None)


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("devstack", "jdk4py_is_absent:app", install_command("devstack")),
        ("other", "other_is_absent.cli:app", "install what other_is_absent.cli:app needs"),
        ("demo", "spanbridge.no_such_part:app", "is not part of this installation"),
        ("odd", "json:dumps", "is not a typer application"),
    ],
)
def test_plugins_that_cannot_load(monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str) -> None:
    plug_in(monkeypatch, value, name)
    code, out, err = invoke(name, "up")
    assert (code, out) == (1, "")
    assert advice in err
    assert "Traceback" not in err


def test_an_application_without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    assert isinstance(build(), typer.Typer)
    assert invoke("--help")[0] == 0
