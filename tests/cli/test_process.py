"""The command as a real process: streams, exit codes, terminals, and what it loads."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from spanbridge.installing import install_command

BAD = '[mqtt]\nurl = "tcp://x:1"\npassword = 4242\n'


def spanbridge(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    code = "from spanbridge.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_from_nothing_to_a_checked_configuration(tmp_path: Path) -> None:
    assert spanbridge("init", cwd=tmp_path).returncode == 0
    checked = spanbridge("check", cwd=tmp_path, SPANBRIDGE__ROUTES__0__TOPIC="other")
    assert (checked.returncode, checked.stderr) == (0, "")
    broken = spanbridge("check", cwd=tmp_path, SPANBRIDGE__ADMIN__PORT="99999")
    assert broken.returncode == 2
    assert "admin.port: must be less than or equal to 65535 (from SPANBRIDGE__ADMIN__PORT)" in broken.stdout


def test_a_locale_that_cannot_write_everything(tmp_path: Path) -> None:
    (tmp_path / "spanbridge.toml").write_text('name = "${NOPE}"')
    done = spanbridge("check", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (2, "")
    assert "${NOPE:-?}" in done.stdout


def test_run_complains_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "spanbridge.toml").write_text(BAD)
    done = spanbridge("run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "mqtt.url" in done.stderr
    assert "4242" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    (tmp_path / "spanbridge.toml").write_text(BAD)
    ours, theirs = pty.openpty()
    code = "from spanbridge.cli import main; main()"
    command = [sys.executable, "-c", code, "check"]
    environ = {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    assert process.returncode == 2
    text = shown.decode()
    assert "╭" in text
    assert "mqtt.url" in text
    assert "hint:" in text
    assert "4242" not in text


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux: the other end of the terminal is closed
        return b""


@pytest.mark.parametrize("arguments", [["--help"], ["version"]])
def test_light_commands_load_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['spanbridge', *{arguments!r}]\n"
        "from spanbridge.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'grpc', 'opentelemetry', 'asyncio', 'spanbridge.devstack'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys\nsys.modules['typer'] = None\nfrom spanbridge.cli import main\nmain()\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"spanbridge: the command line needs its extra: {install_command('gateway')}\n"


def test_run_with_another_extra_alone_says_what_to_install(tmp_path: Path) -> None:
    assert spanbridge("init", cwd=tmp_path).returncode == 0
    code = "import sys\nsys.modules['h11'] = None\nfrom spanbridge.cli import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", code, "run"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == f"spanbridge: the package `h11` is not installed: {install_command('gateway')}\n"


def test_a_variable_that_cannot_be_used_is_for_somebody_to_mend(tmp_path: Path) -> None:
    assert spanbridge("init", cwd=tmp_path).returncode == 0
    done = spanbridge("run", cwd=tmp_path, OTEL_TRACES_EXPORTER="zipkin")
    assert done.returncode == 2
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["level"] == "error"
    assert last["message"] == "OTEL_TRACES_EXPORTER='zipkin' is not known here: use otlp, console or none"
    text = spanbridge("run", cwd=tmp_path, OTEL_TRACES_EXPORTER="zipkin", SPANBRIDGE__TELEMETRY__LOG_FORMAT="text")
    assert text.returncode == 2
    assert text.stderr.endswith(f"spanbridge: {last['message']}\n")


def test_ctrl_c_while_it_is_still_loading(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    done = spanbridge("version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
