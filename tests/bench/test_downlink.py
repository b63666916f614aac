"""The two ends of the benchmark's way down: what the devices count, and what they say to the broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.device import Ledger, Subscriber, device_name, subscribe, topic_of
from bench.downlink import config
from bench.environment import Place
from bench.payload import Phase, pack
from spanbridge.config import load

MILLISECOND = 1_000_000


def _enter(ledger: Ledger, seq: int, *, run: int = 7, topic: bytes = b"t", phase: Phase = Phase.LOAD) -> None:
    ledger.enter(topic, pack(run, phase, seq, 5 * MILLISECOND), 8 * MILLISECOND)


def test_each_message_counts_once_and_those_that_did_not_come_are_named() -> None:
    ledger = Ledger(7)
    for seq in (0, 1, 3, 3):
        _enter(ledger, seq)
    _enter(ledger, 2, run=6)
    assert (ledger.received, ledger.again) == (3, 1)
    assert ledger.missing(6) == [2, 4, 5]


def test_a_message_is_late_when_a_later_one_of_its_topic_came_first() -> None:
    ledger = Ledger(7)
    _enter(ledger, 5, topic=b"a")
    _enter(ledger, 4, topic=b"b")
    assert ledger.late == 0
    _enter(ledger, 3, topic=b"a")
    _enter(ledger, 3, topic=b"a")  # one that comes again is no other order
    assert ledger.late == 1


def test_the_latencies_are_of_the_paced_messages() -> None:
    ledger = Ledger(7)
    _enter(ledger, 0)
    _enter(ledger, 1, phase=Phase.PACED)
    assert ledger.latencies == [3.0]


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.anyio
async def test_packets_are_read_however_the_socket_cuts_them(size: int) -> None:
    wire, ledger, failures = Wire(), Ledger(7), list[str]()
    subscriber = Subscriber(ledger, b"hello", b"subscribe", failures.append)
    subscriber.connection_made(wire)  # type: ignore[arg-type]
    topic = topic_of(7, 3).encode()
    publishes = b""
    for seq in range(3):
        body = len(topic).to_bytes(2, "big") + topic + (seq + 1).to_bytes(2, "big")
        body += b"\x05\x26\x00\x00\x00\x00" + pack(7, Phase.LOAD, seq, 0)
        publishes += b"\x32" + bytes((len(body) & 0x7F | 0x80, len(body) >> 7)) + body
    data = b"\x20\x03\x00\x00\x00" + b"\x90\x04\x00\x01\x00\x01" + publishes
    for at in range(0, len(data), size):
        subscriber.data_received(data[at : at + size])
    assert subscriber.ready.done()
    assert (ledger.received, failures) == (3, [])
    assert wire.written == b"hellosubscribe" + b"".join(b"\x40\x02\x00" + bytes((seq + 1,)) for seq in range(3))


@pytest.mark.parametrize(
    ("answer", "said"), [(b"\x20\x03\x00\x87\x00", "0x87"), (b"\x90\x04\x00\x01\x00\x80", "subscription")]
)
@pytest.mark.anyio
async def test_a_refusal_ends_the_run(answer: bytes, said: str) -> None:
    failures: list[str] = []
    fail: Callable[[str], None] = failures.append
    subscriber = Subscriber(Ledger(7), b"", b"", fail)
    subscriber.connection_made(Wire())  # type: ignore[arg-type]
    subscriber.data_received(answer)
    assert said in failures[0]


def test_a_subscription_names_each_topic_with_qos_1() -> None:
    packet = subscribe("5", ["a", "bc"])
    assert packet == b"\x82\x0c\x00\x01\x00\x00\x01a\x01\x00\x02bc\x01"


def test_the_gateway_takes_the_configuration_and_publishes_to_the_devices_topics(tmp_path: Path) -> None:
    place = Place(
        mqtt_host="h",
        mqtt_port=1,
        rocketmq_endpoints="r:2",
        broker_address="r:3",
        name_server="n:4",
        directory=tmp_path,
    )
    file = tmp_path / "gateway.toml"
    file.write_text(config(place, 7, "commands"))
    downlink = load(file, {}).downlinks[0]
    assert downlink.mqtt_topic.replace("{key}", device_name(3)) == topic_of(7, 3)
