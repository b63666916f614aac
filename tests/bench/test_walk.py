"""The way of one message: how it is noted, told and counted."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bench.environment import Place
from bench.shapes import QUEUES, shape
from bench.walk import Call, Numbers, Walk, outermost_first, print_walk, usual, walks_on
from bench.walk_gateway import Notebook
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge_context import TraceContext, extract_user_properties, inject_user_properties


def _walk(*steps: tuple[int, str, str]) -> Walk:
    return tuple(Call(depth, file, 1, name) for depth, file, name in steps)


WALK = _walk((0, "a.py", "read"), (1, "b.py", "plan"), (2, "b.py", "plan.<locals>.one"), (1, "a.py", "write"))


def test_calls_files_and_changes_of_file_are_counted() -> None:
    assert Numbers.of(WALK) == Numbers(calls=4, files=2, changes=2)
    assert Numbers.of(()) == Numbers(0, 0, 0)


def test_the_usual_walk_is_the_most_frequent_and_then_the_shortest() -> None:
    assert usual([WALK[:1], WALK, WALK, WALK + WALK]) == (WALK, 2)
    assert usual([WALK + WALK, WALK]) == (WALK, 1)


def test_depths_begin_at_zero() -> None:
    calls = [[5, 7, "a.py", 1, "read"], [6, 8, "b.py", 1, "plan"]]
    assert outermost_first(calls) == WALK[:2]


def _noted(notebook: Notebook) -> list[tuple[int, str, str]]:
    return [(depth, file, name) for _, depth, file, _, name in notebook.since(0)]


def test_calls_of_our_own_packages_are_noted_with_their_depth() -> None:
    properties = inject_user_properties([], TraceContext.new())
    notebook = Notebook()
    sys.setprofile(notebook.note)
    try:
        json.dumps([len(properties)])  # not ours
        extract_user_properties(properties)
        extract_user_properties(properties)
    finally:
        sys.setprofile(None)
    noted = _noted(notebook)
    roots = [step for step in noted if step[0] == 0]
    assert roots == [(0, "spanbridge_context/mqtt.py", "extract_user_properties")] * 2
    assert noted[: len(noted) // 2] == noted[len(noted) // 2 :]
    assert all(file.startswith("spanbridge_context/") for _, file, _ in noted)


@pytest.mark.parametrize(("every_call", "expected"), [(False, "plan, plan.one"), (True, "b.py:1")])
def test_the_walk_is_told_by_file_or_by_call(every_call: bool, expected: str) -> None:
    out = io.StringIO()
    print_walk(Console(file=out, width=120), WALK, every_call=every_call)
    assert expected in out.getvalue()


@pytest.mark.brokers
def test_one_message_is_walked_end_to_end(devstack: SharedStack, tmp_path: Path) -> None:
    mqtt, rocketmq = devstack.mqtt_v5, devstack.rocketmq
    rocketmq.create_topic(shape("readme").topic, queues=QUEUES)
    with OtlpReceiver(decode=False) as receiver:
        place = Place(
            mqtt_host=mqtt.host,
            mqtt_port=mqtt.port,
            rocketmq_endpoints=rocketmq.endpoints,
            name_server=rocketmq.namesrv,
            broker_address=f"{rocketmq.host}:{rocketmq.broker_port}",
            directory=tmp_path,
            otlp=receiver.environment("http/protobuf"),
        )
        walk, times = usual(walks_on(place, messages=3))
    numbers = Numbers.of(walk)
    assert times >= 1
    assert numbers.calls > 20
    assert 1 < numbers.files <= numbers.changes < numbers.calls
    assert walk[0].file.startswith("spanbridge/mqtt/")
    assert walk[0].depth == 0
