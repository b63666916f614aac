"""`spanbridge lag`: what it prints, at two widths, and with which exit code."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spanbridge.cli import lag as command
from spanbridge.cli.commands import build
from spanbridge.cli.lag_table import show_lag
from spanbridge.lag import LagReading, LagState, Meaning, QueueLag, TopicLag
from spanbridge.ports import TopicQueue

QUEUES = [TopicQueue("telemetry", "broker-a", queue) for queue in range(2)]
POP, DONE = Meaning.NOT_DELIVERED, Meaning.NOT_ACKNOWLEDGED
READING = LagReading(
    at_ns=1_800_000_000_000_000_000,
    took=0.0421,
    requests=31,
    rows=(
        TopicLag(
            group="billing",
            topic="telemetry",
            state=LagState.CONSUMED,
            means=POP,
            members=2,
            queues=(QueueLag(QUEUES[0], 12_345, 12_000, 0, 75.2), QueueLag(QUEUES[1], 10, 10)),
        ),
        TopicLag(
            group="archive",
            topic="telemetry",
            state=LagState.NEVER_COMMITTED,
            means=DONE,
            queues=(QueueLag(QUEUES[0], 12_345, None, 0),),
        ),
    ),
    dead_letters={"billing": 4, "archive": 0},
)
BROKEN = LagReading(
    at_ns=1_800_000_000_000_000_000,
    took=3.0,
    requests=1,
    rows=(TopicLag(group="billing", topic="telemetry", state=LagState.UNREADABLE, means=POP, error="nobody answers"),),
    errors=(("nobody answers", "timeout"),),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    def invoke(reading: LagReading, *arguments: str) -> tuple[int, str, str]:
        async def read(_query: object, _period: object, show: Callable[[LagReading], None]) -> LagReading:
            show(reading)
            return reading

        monkeypatch.setattr(command, "_read", read)
        monkeypatch.chdir(tmp_path)
        whole = ["lag", "-n", "127.0.0.1:9876", "-t", "telemetry", *arguments]
        result = CliRunner().invoke(build(), whole, env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


def test_one_line_each_when_piped(ask: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = ask(READING)
    assert code == 0
    assert out.splitlines() == [
        "billing: telemetry: lag 345 (not delivered), oldest 75 s: 4 dead letters",
        "archive: telemetry: lag - (not acknowledged): never committed; the topic holds 12,345",
        "not delivered: what consumers hold and have not acknowledged is not counted (docs/lag.md)",
    ]


@pytest.mark.parametrize(
    ("reading", "arguments", "code"),
    [
        pytest.param(READING, ["--threshold", "12345"], 0, id="not further behind"),
        pytest.param(READING, ["--threshold", "344"], 3, id="further behind"),
        pytest.param(READING, ["--threshold", "12344"], 3, id="never committed, and the topic holds more"),
        pytest.param(READING, ["--max-age", "76"], 0, id="not older"),
        pytest.param(READING, ["--max-age", "75"], 3, id="older"),
        pytest.param(BROKEN, ["--threshold", "0"], 1, id="not read"),
        pytest.param(BROKEN, ["--json"], 1, id="not read, as JSON"),
        pytest.param(READING, ["--name-server", "nowhere"], 2, id="no address"),
    ],
)
def test_exit_codes(
    ask: Callable[..., tuple[int, str, str]], reading: LagReading, arguments: list[str], code: int
) -> None:
    assert ask(reading, *arguments)[0] == code


def test_json(ask: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = ask(READING, "--json")
    found = json.loads(out)
    assert [(row["group"], row["lag"], row["age_s"], row["state"]) for row in found["groups"]] == [
        ("billing", 345, 75.2, "consumed"),
        ("archive", None, None, "never_committed"),
    ]
    assert found["groups"][0]["queues"][0]["committed"] == 12_000
    assert found["dead_letters"] == {"billing": 4, "archive": 0}


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    show_lag(READING, stream=stream, queues=True)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
    table = [line for line in lines if line.startswith(("╭", "│", "├", "╰"))]
    assert max(len(line) for line in table) <= columns
    text = "\n".join(lines)
    for expected in ("billing", "345", "75 s", "broker-a/0", "4 dead", "31 requests"):
        assert expected in text


def test_watching_puts_one_in_the_place_of_the_other() -> None:
    stream = Terminal()
    show_lag(READING, stream=stream, clear=True)
    assert stream.getvalue().startswith("\x1b[H\x1b[2J")


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "spanbridge.toml"
    file.write_text(
        '[mqtt]\nurl = "mqtt://127.0.0.1:1883"\n[rocketmq]\nendpoints = "127.0.0.1:8081"\n'
        '[[routes]]\nfilter = "a/b"\ntopic = "telemetry"\n'
    )
    result = CliRunner().invoke(build(), ["lag"])
    assert result.exit_code == 2
    assert result.stderr == (
        "spanbridge: no name server: say --name-server HOST:PORT, or `lag.name_servers` in the file\n"
    )
    file.unlink()
    result = CliRunner().invoke(build(), ["lag", "-n", "127.0.0.1:9876"])
    assert result.exit_code == 2
    assert result.stderr == "spanbridge: no topic: say --topic TOPIC, or name a file whose routes have some\n"
