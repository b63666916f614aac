"""``spanbridge devstack``: real brokers from the command line."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from spanbridge.cli.invocation import command
from spanbridge.devstack import show, topics
from spanbridge.devstack.errors import DevstackError, ServiceError, os_problem
from spanbridge.devstack.jars import DEFAULT_VERSION, ensure_jars
from spanbridge.devstack.probe import MqttTarget, NotYet, mqtt_publish
from spanbridge.devstack.progress import for_terminal
from spanbridge.devstack.remoting_probe import RemotingProbe
from spanbridge.devstack.rocketmq_probe import RocketmqProbe
from spanbridge.devstack.rocketmq_setup import VERSIONS, RocketmqSetup
from spanbridge.devstack.stack import Devstack
from spanbridge.devstack.state import StackState, claim, find, is_claimed, state_path

_NOT_UP = 3  # as the LSB has it for the status of a service that does not run
_DETACH_SECONDS = 120.0
_PARTS = {"rocketmq": "RocketMQ", "mqtt_v5": "MQTT v5 broker", "mqtt_v311": "MQTT v3.1.1 broker"}

app = typer.Typer(
    help="Real RocketMQ and MQTT brokers on free ports, without docker or root.",
    no_args_is_help=True,
    add_completion=False,
    epilog="Example: `spanbridge devstack up --detach && spanbridge devstack status`",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


class Part(StrEnum):
    """What can be started on its own."""

    ROCKETMQ = "rocketmq"
    MQTT = "mqtt"


class MqttVersion(StrEnum):
    """The broker to publish to."""

    V5 = "5"
    V311 = "3.1.1"


Name = Annotated[str, typer.Option(help="Which stack; several can be up side by side.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command(
    epilog="Example: `spanbridge devstack up --detach && spanbridge devstack env > .env && spanbridge devstack down`"
)
def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when ready; `down` ends it.")] = False,
    only: Annotated[Part | None, typer.Option(help="Start this part alone.")] = None,
    mqtt: Annotated[str, typer.Option(envvar="SPANBRIDGE_MQTT", help="mosquitto, iotcore, amqtt or auto.")] = "auto",
    rocketmq: Annotated[str, typer.Option(help=f"{' or '.join(VERSIONS)}, which has no gRPC proxy.")] = DEFAULT_VERSION,
    name: Name = "default",
    as_json: AsJson = False,
) -> None:
    """Start the brokers, and keep them until Ctrl-C.

    The first start fetches RocketMQ's jars (about 100 MB) from Maven Central, or from the repository in
    `SPANBRIDGE_MAVEN_URL`, into the cache (`SPANBRIDGE_CACHE`).
    """
    with _errors():
        RocketmqSetup(version=rocketmq)  # says at once that a version is not known
        if detach:
            _up_detached(name, only, mqtt, rocketmq)
            show.ready(_require(name), as_json=as_json)
        else:
            _up_foreground(name, only, mqtt, rocketmq, as_json=as_json)


@app.command(epilog="Example: `spanbridge devstack status --json`")
def status(*, name: Name = "default", as_json: AsJson = False) -> None:
    """Ask every part whether it answers.

    Exit codes: 0 all parts answer, 1 one does not, 3 the stack is not up.
    """
    with _errors():
        state = _require(name)
        health = show.health(state)
        show.status(state, health, as_json=as_json)
    if any(problem is not None for problem in health.values()):
        raise typer.Exit(1)


@app.command(epilog="Example: `spanbridge devstack logs rocketmq --lines 200`")
def logs(
    service: Annotated[str | None, typer.Argument(help="One process; all when left out.")] = None,
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines of each.")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until Ctrl-C.")] = False,
    name: Name = "default",
) -> None:
    """Print the brokers' logs."""
    with _errors():
        known = _require(name).logs
        if service is not None and service not in known:
            raise DevstackError(f"no process named {service!r}", hint=f"there are: {', '.join(known)}")
        show.logs({service: known[service]} if service else known, lines=lines, follow=follow)


@app.command(epilog="Example: `spanbridge devstack env > .env`")
def env(*, name: Name = "default", as_json: AsJson = False) -> None:
    """Print where everything is, as lines for a `.env` file."""
    with _errors():
        values = _require(name).env
    typer.echo(json.dumps(values) if as_json else "\n".join(f"{key}={value}" for key, value in values.items()))


@app.command(epilog="Example: `spanbridge devstack topic telemetry --type FIFO`")
def topic(
    topic_name: Annotated[str, typer.Argument(metavar="TOPIC")],
    *,
    message_type: Annotated[
        str, typer.Option("--type", help="NORMAL, FIFO, DELAY, TRANSACTION, LITE or PRIORITY.")
    ] = "NORMAL",
    queues: Annotated[int, typer.Option(min=1)] = 4,
    name: Name = "default",
) -> None:
    """Create a RocketMQ topic (the broker makes none by itself)."""
    with _errors():
        port = _rocketmq(_require(name))
        topics.create_topic(port, topic_name, message_type=message_type.upper(), queues=queues)


@app.command(epilog="Example: `spanbridge devstack group readers --fifo`")
def group(
    group_name: Annotated[str, typer.Argument(metavar="GROUP")],
    *,
    fifo: Annotated[bool, typer.Option("--fifo", help="Deliver each message group in order.")] = False,
    name: Name = "default",
) -> None:
    """Create a RocketMQ consumer group."""
    with _errors():
        topics.create_group(_rocketmq(_require(name)), group_name, fifo=fifo)


@app.command(epilog="Example: `spanbridge devstack publish devices/d1/telemetry 21.5 --user unit=C`")
def publish(
    topic_name: Annotated[str, typer.Argument(metavar="TOPIC")],
    text: Annotated[str, typer.Argument()],
    *,
    mqtt_version: Annotated[MqttVersion, typer.Option("--mqtt-version")] = MqttVersion.V5,
    qos: Annotated[int, typer.Option(min=0, max=2)] = 1,
    retain: Annotated[bool, typer.Option("--retain", help="Have the broker keep it for later subscribers.")] = False,
    user: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="User property; repeatable.")] = None,
    name: Name = "default",
) -> None:
    """Publish an MQTT message, as a device would."""
    with _errors():
        where = _part(_require(name), "mqtt_v5" if mqtt_version is MqttVersion.V5 else "mqtt_v311")
        target = MqttTarget(host=str(where["host"]), port=int(where["port"]), version=mqtt_version.value)
        mqtt_publish(target, topic_name, text.encode(), qos=qos, retain=retain, user=user or ())


@app.command(epilog="Example: `spanbridge devstack consume telemetry --count 1`")
def consume(
    topic_name: Annotated[str, typer.Argument(metavar="TOPIC")],
    *,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many messages.")] = None,
    wait: Annotated[float | None, typer.Option(min=0.5, help="End when none came for so many seconds.")] = None,
    group_name: Annotated[
        str, typer.Option("--group", help="Consumer group: each message goes to one member.")
    ] = "look",
    name: Name = "default",
    as_json: AsJson = False,
) -> None:
    """Print what a RocketMQ topic receives, until Ctrl-C.

    On RocketMQ 4.x each look shows all that the topic holds, whatever the group.
    """
    with _errors():
        where = _part(_require(name), "rocketmq")
        topics.create_group(int(where["broker_port"]), group_name, fifo=False)
        if where["protocol"] == "remoting":
            queues = topics.queues(int(where["namesrv_port"]), topic_name)
            stored = RemotingProbe(f"{where['host']}:{where['broker_port']}", topic_name, group_name)
            for message in stored.messages(queues, wait=wait or math.inf, limit=count):
                show.stored_message(message, as_json=as_json)
            return
        probe = RocketmqProbe(f"{where['host']}:{where['port']}", topic_name, group_name)
        for received in probe.messages(wait=wait or math.inf, limit=count):
            show.message(received, as_json=as_json)


@app.command(epilog="Example: `spanbridge devstack down`")
def down(*, name: Name = "default") -> None:
    """End the stack and remove its data. It is no error when it is not up."""
    with _errors():
        state = find(name)
        if state is None:
            typer.echo(f"{name}: not up")
            return
        os.kill(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while is_claimed(name):
            if time.monotonic() > deadline:
                raise DevstackError(f"process {state.pid} does not end", hint=f"kill -9 {state.pid}")
            time.sleep(0.05)
    typer.echo(f"{name}: down")


def _up_foreground(name: str, only: Part | None, mqtt: str, rocketmq: str, *, as_json: bool) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    wants_mqtt = only is not Part.ROCKETMQ
    is_up = False
    with claim(name) as path:
        try:
            with Devstack.up(
                rocketmq=only is not Part.MQTT,
                mqtt_v5=wants_mqtt,
                mqtt_v311=wants_mqtt,
                mqtt=mqtt,
                rocketmq_version=rocketmq,
                progress=for_terminal(),
            ) as stack:
                state = StackState.of(name, stack)
                state.write(path)
                is_up = True  # first: who reads that it is up may interrupt at once
                show.ready(state, as_json=as_json)
                _watch(stack)
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            if not is_up:
                raise


def _watch(stack: Devstack) -> NoReturn:
    while True:
        time.sleep(1)
        for service in stack.services:
            if not service.running:
                raise ServiceError(f"{service.name} ended by itself", log=service.log_tail())


def _up_detached(name: str, only: Part | None, mqtt: str, rocketmq: str) -> None:
    if is_claimed(name):
        with claim(name):  # says so
            return
    if only is not Part.MQTT:
        ensure_jars(for_terminal(), rocketmq)  # here, where somebody watches the progress
    log = state_path(name).with_suffix(".log")
    options = ["--name", name, "--mqtt", mqtt, "--rocketmq", rocketmq] + (["--only", only.value] if only else [])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "spanbridge.devstack.cli", "up", *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + _DETACH_SECONDS
    while find(name) is None:
        if process.poll() is not None:
            raise DevstackError("the stack did not come up", log=_tail(log))
        if time.monotonic() > deadline:
            process.terminate()
            raise DevstackError(f"the stack was not up after {_DETACH_SECONDS:.0f} s", log=_tail(log))
        time.sleep(0.05)


def _require(name: str) -> StackState:
    state = find(name)
    if state is None:
        option = "" if name == "default" else f" --name {name}"
        typer.echo(f"{name}: not up (start it with `{command()} devstack up{option}`)", err=True)
        raise typer.Exit(_NOT_UP)
    return state


def _part(state: StackState, part: str) -> dict[str, str | int]:
    if part not in state.parts:
        raise DevstackError(f"this stack has no {_PARTS[part]}", hint="start it without --only")
    return state.parts[part]


def _rocketmq(state: StackState) -> int:
    return int(_part(state, "rocketmq")["broker_port"])


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _errors() -> Iterator[None]:
    """What went wrong as one message and exit code 1, never as a stack trace."""
    try:
        yield
    except (DevstackError, NotYet) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:  # a full disk, a read-only directory, too many open files
        typer.echo(f"error: {os_problem(error)}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app(prog_name="spanbridge devstack")
