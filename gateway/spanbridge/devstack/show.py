"""What the command line prints about a stack: panels on a terminal, plain lines or JSON elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from spanbridge.cli.invocation import command
from spanbridge.devstack.probe import MqttTarget, NotYet, mqtt_round
from spanbridge.devstack.remoting_probe import RemotingProbe
from spanbridge.devstack.rocketmq import READY_NAME
from spanbridge.devstack.rocketmq_probe import RocketmqProbe
from spanbridge.devstack.state import StackState
from spanbridge.rocketmq.remoting.stored import StoredMessage

_FOLLOW_SECONDS = 0.3
_BROKERS_OWN = frozenset({"CLUSTER", "UNIQ_KEY", "WAIT", "INSTANCE_ID", "TRACE_ON", "MSG_REGION"})


def ready(state: StackState, *, as_json: bool) -> None:
    """Ports and commands to paste."""
    if as_json:
        print(json.dumps(state.as_dict()), flush=True)
        return
    lines = [*_addresses(state), "", *_commands(state)]
    if not sys.stdout.isatty():
        print("\n".join(lines), flush=True)
        return
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    title = "devstack is up" if state.name == "default" else f"devstack {state.name} is up"
    Console().print(Panel(Text("\n".join(lines)), title=title, border_style="green", expand=False))


def _addresses(state: StackState) -> list[str]:
    labels = {"mqtt_v5": "MQTT v5", "mqtt_v311": "MQTT v3.1.1"}
    if rocketmq := state.parts.get("rocketmq"):
        version, is_grpc = str(rocketmq["version"]), rocketmq["protocol"] == "grpc"
        labels["rocketmq"] = f"RocketMQ {version[0]} (gRPC)" if is_grpc else f"RocketMQ {version}"
    return [
        f"{labels[part]:<18} {where['host']}:{where['port']}" + (f"  {where['kind']}" if "kind" in where else "")
        for part, where in state.parts.items()
    ]


def _commands(state: StackState) -> list[str]:
    option = "" if state.name == "default" else f" --name {state.name}"
    devstack = f"{command()} devstack"
    commands = [f"{devstack} env{option} > .env"]
    if "rocketmq" in state.parts:
        commands.append(f"{devstack} topic{option} telemetry")
    if where := state.parts.get("mqtt_v5"):
        commands += _gateway(str(where["host"]), int(where["port"]), state.parts.get("rocketmq"))
        publish = f"{devstack} publish{option} devices/d1/telemetry hello"
        if shutil.which("mosquitto_pub") and shutil.which("mosquitto_sub"):
            address = f"-h {where['host']} -p {where['port']}"
            commands.append(f"mosquitto_sub -V mqttv5 {address} -t '#' -v")
            publish = f"mosquitto_pub -V mqttv5 {address} -q 1 -t devices/d1/telemetry -m hello"
        commands.append(publish)
    if "rocketmq" in state.parts:
        commands.append(f"{devstack} consume{option} telemetry")
    return [*commands, f"{devstack} down{option}"]


def _gateway(host: str, port: int, rocketmq: dict[str, str | int] | None) -> list[str]:
    """A gateway between these brokers, on the file that ``init`` writes."""
    if rocketmq is None:
        return []
    endpoints = f"{rocketmq['host']}:{rocketmq['port']}"
    brokers = f"SPANBRIDGE__MQTT__URL=mqtt://{host}:{port} SPANBRIDGE__ROCKETMQ__ENDPOINTS={endpoints}"
    if rocketmq["protocol"] == "remoting":
        brokers += " SPANBRIDGE__ROCKETMQ__PROTOCOL=remoting"
    return [f"{command()} init", f"{brokers} {command()} run"]


def health(state: StackState) -> dict[str, str | None]:
    """For each part ``None`` when it answers, else what is wrong, found out by really using it."""
    return {part: _problem(part, where) for part, where in state.parts.items()}


def _problem(part: str, where: dict[str, str | int]) -> str | None:
    host, port = str(where["host"]), int(where["port"])
    try:
        if part == "rocketmq" and where["protocol"] == "remoting":
            RemotingProbe(f"{host}:{where['broker_port']}", READY_NAME, READY_NAME).round()
        elif part == "rocketmq":
            RocketmqProbe(f"{host}:{port}", READY_NAME, READY_NAME).route(READY_NAME)
        else:
            mqtt_round(MqttTarget(host=host, port=port, version=str(where["version"])))
    except NotYet as problem:
        return str(problem)
    return None


def status(state: StackState, problems: dict[str, str | None], *, as_json: bool) -> None:
    """One line for each part."""
    if as_json:
        print(json.dumps(state.as_dict() | {"problems": problems}))
        return
    for line, problem in zip(_addresses(state), problems.values(), strict=True):
        print(f"{line}  {'ready' if problem is None else problem}")


def message(received: Any, *, as_json: bool) -> None:
    """One RocketMQ message as the gRPC proxy gives it: its body, then what came with it."""
    system = received.system_properties
    fields = {"tag": system.tag, "keys": list(system.keys), "message_group": system.message_group}
    _message(received.body, fields, dict(received.user_properties), as_json=as_json)


def stored_message(stored: StoredMessage, *, as_json: bool) -> None:
    """The same for one as a broker stores it."""
    properties = {name: value for name, value in stored.properties.items() if name not in _BROKERS_OWN}
    fields = {
        "tag": properties.pop("TAGS", ""),
        "keys": properties.pop("KEYS", "").split(),
        "message_group": properties.pop("__SHARDINGKEY", ""),
    }
    _message(stored.body, fields, properties, as_json=as_json)


def _message(content: bytes, fields: dict[str, Any], user: dict[str, str], *, as_json: bool) -> None:
    fields = {name: value for name, value in fields.items() if value}
    body = content.decode(errors="backslashreplace")
    properties = dict(sorted(user.items()))
    if as_json:
        print(json.dumps({"body": body, **fields, "properties": properties}), flush=True)
        return
    lines = [_escaped(body), *(_escaped(f"{name}={value}") for name, value in {**fields, **properties}.items())]
    print("\n  ".join(lines), flush=True)


def _escaped(text: str) -> str:
    """``text`` with what a terminal would obey (line breaks, escape sequences, changes of direction) as Python escapes.

    Unlike ``core.text.quoted`` it neither cuts nor adds quotes: a body is shown whole, and most are readable.
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def logs(files: dict[str, str], *, lines: int, follow: bool) -> None:
    """The end of each log, and then what is added to them."""
    with ExitStack() as stack:
        opened = {name: stack.enter_context(open(path, errors="replace")) for name, path in files.items()}
        for name, log in opened.items():
            _print_lines(name, deque(log, lines))
        while follow:
            time.sleep(_FOLLOW_SECONDS)
            for name, log in opened.items():
                _print_lines(name, log)


def _print_lines(name: str, lines: Iterable[str]) -> None:
    for line in lines:
        print(f"{name} | {line.rstrip()}", flush=True)
