"""What a reload takes out is not said to be away for ever."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from spanbridge.app.changes import DownlinkChanges
from spanbridge.app.downlinks import DownlinkAdapters, DownlinkPeers
from spanbridge.app.reload import Reload
from spanbridge.downlink import DownlinkSettings
from spanbridge.mqtt.events import ConnectFailed
from spanbridge.rocketmq.receive_events import ReceiveFailed
from spanbridge.telemetry.log.reporter import EventReporter
from tests.uplink.fakes import FakeClock

pytestmark = pytest.mark.anyio

REFUSED = {"reason": "connection_refused", "cause": "edge:1883 refused the TCP connection", "retry_in": 1.0}


class Told:
    """A reporter, and its lines. ``now`` is its clock in seconds."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "spanbridge")
        self._caplog = caplog
        self.now = 0.0
        self.reporter = EventReporter(interval=10.0, clock=lambda: self.now)
        self.telemetry: Any = SimpleNamespace(reporter=self.reporter)

    def later(self) -> list[str]:
        """The lines of the next hour about what is away."""
        self._caplog.clear()
        for _ in range(60):
            self.now += 61
            self.reporter.flush()
        return [line for line in self._caplog.messages if "away" in line]


async def _nothing(*_: object) -> None: ...


async def test_a_connection_that_is_taken_out_while_its_broker_is_away(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(caplog)
    source: Any = SimpleNamespace(name="edge", options=SimpleNamespace(broker="edge:1883"))
    uplink = SimpleNamespace(detach=_nothing)
    running: Any = SimpleNamespace(uplink=uplink, sources=[source], telemetry=told.telemetry, clock=FakeClock())
    nothing: Any = None
    reload = Reload(running, nothing, None, None)
    told.reporter.report(ConnectFailed(source="edge", broker="edge:1883", **REFUSED))  # type: ignore[arg-type]
    assert len(told.later()) > 10
    await reload._drained(source)
    assert "the connection 'edge' to edge:1883 is closed: the configuration has it no longer" in caplog.text
    assert told.later() == []


async def test_a_downlink_that_is_taken_out_while_its_peers_are_away(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(caplog)
    downlinks: Any = SimpleNamespace(detach=_nothing, use=lambda *_, **__: None, attach=lambda *_: None)
    protocol: Any = None
    peers = DownlinkPeers(downlinks, told.telemetry, protocol)
    plan: Any = SimpleNamespace(downlink=SimpleNamespace(group="g", broker="edge"), ends=None)
    consumer, publisher = SimpleNamespace(), SimpleNamespace(options=SimpleNamespace(broker="edge:1883"))
    made: Any = DownlinkAdapters({"edge": publisher}, {"commands": consumer})  # type: ignore[dict-item]
    peers.attach({"commands": plan}, made)
    told.reporter.report(ConnectFailed(source="edge", broker="edge:1883", **REFUSED))  # type: ignore[arg-type]
    failed = {"reason": "unavailable", "cause": "The proxy is away.", "retry_in": 1.0}
    told.reporter.report(ReceiveFailed(group="g", topic="t", broker="b", **failed))  # type: ignore[arg-type]
    assert len(told.later()) > 20
    after: Any = SimpleNamespace(downlinks={}, config=SimpleNamespace(downlink=SimpleNamespace(drain_timeout=1.0)))
    found = DownlinkChanges(removed=("commands",), publishers_gone=("edge",))
    await peers.change(after, found, DownlinkAdapters(), DownlinkSettings())
    assert told.later() == []
