"""Processes of the demonstration that end, and that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spanbridge.demo.cast import BACKEND, CONSUMER, Cast
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.demo.stage import Stage
from spanbridge.devstack import ServiceError


def _shell(cast: Cast, device: str, backend: str) -> Cast:
    (only,) = cast.devices
    return replace(cast, devices=(replace(only, command=["sh", "-c", device]),), backend=["sh", "-c", backend])


def test_questions_are_asked_once_the_device_listens_and_answers_are_read(cast: Cast) -> None:
    with OtlpReceiver() as receiver, Stage(receiver) as stage:
        asked, answer = stage.directory / "asked", '{"question": 1, "device": "sensor-1"}'
        device = f"sleep 0.5; echo ready; until test -f {asked}; do sleep 0.1; done"
        backend = f"grep ready {stage.log_path('device-v5')} && echo '{answer}' && touch {asked}"
        stage.play(_shell(cast, device, backend))
        assert stage.printed() == {CONSUMER: [], BACKEND: [("sensor-1", 1)]}


def test_whoever_fails_is_named_not_who_waits_for_it(cast: Cast) -> None:
    failure = pytest.raises(ServiceError, match=r"backend failed \(exit code 3\)")
    with OtlpReceiver() as receiver, Stage(receiver) as stage, failure:
        stage.play(_shell(cast, "echo ready; sleep 600", "exit 3"))
