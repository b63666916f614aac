"""What a supervisor does when it is asked to read the configuration again."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import anyio
import pytest

from spanbridge.app.supervise import WorkersReload
from spanbridge.config import examine_text
from spanbridge.supervisor.channel import Message
from spanbridge.supervisor.supervisor import Changed, Supervisor
from spanbridge.telemetry import Telemetry, TelemetrySettings

pytestmark = pytest.mark.anyio

TEXT = """
[[mqtt]]
url = "mqtt://127.0.0.1:1"
[rocketmq]
endpoints = "127.0.0.1:1"
[[routes]]
filter = "a/+"
topic = "t"
"""


class ChangingSupervisor:
    """Fails with a fault of ours once."""

    def __init__(self) -> None:
        self.stopping = False
        self.start: Message = {}
        self.faults: list[Exception] = [RuntimeError("oops")]

    async def change(self, start: Message) -> Changed:
        if self.faults:
            raise self.faults.pop()
        return Changed(changes="routes")


async def test_a_fault_with_one_configuration_is_told_and_the_next_is_read(tmp_path: Path) -> None:
    file = tmp_path / "spanbridge.toml"
    file.write_text(TEXT)
    config = examine_text(TEXT, {}, base=tmp_path).config
    assert config is not None
    supervisor = cast("Supervisor", ChangingSupervisor())
    reload = WorkersReload(config, file, supervisor, Telemetry(TelemetrySettings(), environ={}))
    await reload.start()
    with anyio.fail_after(60):
        for refusals, reloads in ((1, 0), (1, 1)):
            reload.ask()
            while reload.status() != {"reloads": reloads, "refusals": refusals}:
                await anyio.sleep(0.01)
            assert (reload.show()["last_error"] == "internal error: RuntimeError: oops") is not bool(reloads)
    await reload.stop()
