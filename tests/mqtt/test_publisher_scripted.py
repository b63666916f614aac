"""What no real broker does on request: limits, odd answers, interrupted handshakes, silence. On a scripted peer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from spanbridge.core.errors import (
    NoSubscribers,
    SinkError,
    SinkMisconfigured,
    SinkRejected,
    SinkThrottled,
    SinkUnavailable,
)
from spanbridge.mqtt.codec import v5
from spanbridge.mqtt.codec.packets import ConnackPacket

from .publishing import command

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(version: str) -> object:
    """Each version on one loop: the peer is ours, and the contract runs on both with either."""
    return ("asyncio", {"use_uvloop": version == "5"})


PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 3, 4, 5, 6, 7


class Peer:
    """A connection of a scripted broker that talks in packets."""

    def __init__(self, broker: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: str) -> None:
        self.broker = broker
        self.reader = reader
        self.writer = writer
        self.version = version

    async def accept(self, *, session_present: bool = False, **properties: Any) -> bytes:
        """Take CONNECT and answer it; returns it."""
        packet: bytes = await self.broker.packet(self.reader)
        if self.version == "5":
            self.write(v5.encode(ConnackPacket(session_present, 0, properties)))
        else:
            self.write(bytes((0x20, 2, session_present, 0)))
        return packet

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def next(self) -> tuple[int, int, bytes]:
        """Kind, packet identifier and whole bytes of the next packet; pings are answered."""
        while True:
            packet: bytes = await self.broker.packet(self.reader)
            kind = packet[0] >> 4
            if kind == 12:
                self.write(b"\xd0\x00")
            elif kind == PUBLISH:
                return kind, self.id_of(packet), packet
            else:
                return kind, int.from_bytes(packet[2:4], "big"), packet

    @staticmethod
    def id_of(packet: bytes) -> int:
        """Of a PUBLISH; 0 for QoS 0."""
        at = 1
        while packet[at] & 0x80:
            at += 1
        size = int.from_bytes(packet[at + 1 : at + 3], "big")
        return int.from_bytes(packet[at + 3 + size : at + 5 + size], "big") if packet[0] & 6 else 0

    async def publishes(self, count: int) -> list[tuple[int, bytes]]:
        """The next ``count`` PUBLISH packets, with their identifiers."""
        found = []
        for _ in range(count):
            kind, packet_id, packet = await self.next()
            assert kind == PUBLISH
            found.append((packet_id, packet))
        return found

    def answer(self, kind: int, packet_id: int, code: int | None = None) -> None:
        head = (kind << 4) | (2 if kind == PUBREL else 0)
        tail = b"" if code is None or self.version == "3.1.1" else bytes((code,))
        self.write(bytes((head, 2 + len(tail))) + packet_id.to_bytes(2, "big") + tail)

    async def serve(self) -> None:
        """Answer everything as a broker does."""
        while True:
            kind, packet_id, packet = await self.next()
            if kind == PUBREL:
                self.answer(PUBCOMP, packet_id)
            elif kind == PUBLISH and packet[0] & 6:
                self.answer(PUBACK if packet[0] & 2 else PUBREC, packet_id)


def script(version: str, *parts: Callable[[Peer], Awaitable[None]]) -> Any:
    """One part for each connection, the last one for all that follow; after a part the connection is closed."""

    async def play(broker: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await parts[min(number, len(parts)) - 1](Peer(broker, reader, writer, version))

    return play


def payload(packet: bytes) -> bytes:
    return packet[packet.rindex(b":") + 1 :]


async def test_receive_maximum_is_never_exceeded(publishing: Any, scripted: Any, version: str, poll: Any) -> None:
    if version == "3.1.1":
        pytest.skip("MQTT 3.1.1 has no Receive Maximum")
    more: list[bool] = []
    go = asyncio.Event()

    async def part(peer: Peer) -> None:
        await peer.accept(receive_maximum=3)
        batch = await peer.publishes(3)
        await go.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.next(), 0.1)
        more.append(False)
        for packet_id, packet in batch:
            peer.answer(PUBACK if packet[0] & 2 else PUBREC, packet_id)
        await peer.serve()

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        commands = down.send(*(command("t", f":{n}", 1 + n % 2) for n in range(20)))
        await poll(lambda: down.detail["in_flight"] == 3)
        assert down.detail["waiting"] == 17
        go.set()
        await down.through(commands)
        assert more == [False]
        await down.stop()


async def test_qos_0_is_not_held_back_by_receive_maximum(
    publishing: Any, scripted: Any, version: str, poll: Any
) -> None:
    if version == "3.1.1":
        pytest.skip("MQTT 3.1.1 has no Receive Maximum")
    seen: list[bytes] = []
    go = asyncio.Event()

    async def part(peer: Peer) -> None:
        await peer.accept(receive_maximum=1)
        first, *others = await peer.publishes(3)
        seen.extend(payload(packet) for _, packet in (first, *others))
        await go.wait()
        peer.answer(PUBACK, first[0])
        second, zero = await peer.publishes(2)
        seen.extend(payload(packet) for _, packet in (second, zero))
        peer.answer(PUBACK, second[0])
        await peer.serve()

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        commands = down.send(command("a", ":1"), command("b", ":2"))
        await poll(lambda: down.detail["in_flight"] == 1)
        commands += down.send(
            command("b", ":behind its own topic", 0),
            command("c", ":x", 0),
            command("a", ":y", 0),
        )
        await poll(lambda: len(seen) == 3)
        assert seen == [b"1", b"x", b"y"]
        go.set()
        await down.through(commands)
        assert seen[3:] == [b"2", b"behind its own topic"]
        await down.stop()


async def test_what_is_unanswered_is_sent_again_with_dup_in_its_order(
    publishing: Any, scripted: Any, version: str
) -> None:
    first: list[tuple[int, bytes]] = []
    again: list[tuple[int, bytes]] = []

    async def before(peer: Peer) -> None:
        await peer.accept()
        first.extend(await peer.publishes(6))
        peer.answer(PUBACK, first[1][0])
        await peer.writer.drain()

    async def after(peer: Peer) -> None:
        await peer.accept(session_present=True)
        again.extend(await peer.publishes(6))
        for packet_id, packet in again:
            peer.answer(PUBACK if packet[0] & 2 else PUBREC, packet_id)
        await peer.serve()

    async with scripted(script(version, before, after)) as peer:
        down = publishing(peer.host, peer.port)
        commands = down.send(*(command("t", f":{n}", 1 + (n > 3)) for n in range(6)))
        await down.done(commands[1:2])
        await down.event("mqtt.disconnected")  # before, the new one may leave on the connection that ends
        commands += down.send(command("t", ":new"))
        await down.through(commands)
        kept = [first[0], *first[2:]]
        assert [(i, bytes((p[0] | 8,)) + p[1:]) for i, p in kept] == again[:5]
        assert again[5][1][0] & 8 == 0
        assert again[5][0] not in [packet_id for packet_id, _ in kept]
        connects = [packet for packet in peer.received if packet[0] == 0x10]
        clean = [packet[9] & 2 for packet in connects]
        assert clean == ([2, 0] if version == "5" else [0, 0])
        assert down.detail["session_present"] is True
        await down.stop()


async def test_without_a_session_what_is_unanswered_is_sent_as_new(
    publishing: Any, scripted: Any, version: str
) -> None:
    again: list[tuple[int, bytes]] = []

    async def before(peer: Peer) -> None:
        await peer.accept()
        await peer.publishes(2)
        _, packet_id, packet = await peer.next()
        assert packet[0] & 4
        peer.answer(PUBREC, packet_id)
        assert (await peer.next())[0] == PUBREL

    async def after(peer: Peer) -> None:
        await peer.accept()
        again.extend(await peer.publishes(4))
        for packet_id, packet in again:
            peer.answer(PUBACK if packet[0] & 2 else PUBREC, packet_id)
        await peer.serve()

    async with scripted(script(version, before, after)) as peer:
        down = publishing(peer.host, peer.port)
        commands = down.send(command("t", ":0"), command("t", ":1"), command("t", ":2", 2))
        anew = await down.event("mqtt.publish.sent_anew")
        assert anew.count == 3
        assert "3 unanswered message(s) are sent as new" in anew.text()
        commands += down.send(command("t", ":3"))
        await down.through(commands)
        assert [payload(packet) for _, packet in again] == [b"0", b"1", b"2", b"3"]
        assert all(packet[0] & 8 == 0 for _, packet in again)
        await down.stop()


@pytest.mark.parametrize("where", ["publish", "pubrec", "pubrel", "pubcomp"])
async def test_qos_2_goes_on_where_it_was_interrupted(where: str, publishing: Any, scripted: Any, version: str) -> None:
    said: list[tuple[int, int, int]] = []

    async def note(peer: Peer) -> tuple[int, int]:
        kind, packet_id, packet = await peer.next()
        said.append((kind, packet[0] & 8, packet_id))
        return kind, packet_id

    async def before(peer: Peer) -> None:
        await peer.accept()
        _, packet_id = await note(peer)
        if where == "publish":
            return
        peer.answer(PUBREC, packet_id)
        if where == "pubrec":  # is on the wire when the connection ends: it may be read, or not
            await peer.writer.drain()
            return
        await note(peer)
        if where == "pubcomp":
            peer.write(b"\x70")  # half an answer

    async def after(peer: Peer) -> None:
        await peer.accept(session_present=True)
        kind, packet_id = await note(peer)
        if kind == PUBLISH:
            peer.answer(PUBREC, packet_id)
            _, packet_id = await note(peer)
        peer.answer(PUBCOMP, packet_id, 0x92 if where == "pubrel" else None)
        await peer.serve()

    async with scripted(script(version, before, after)) as peer:
        down = publishing(peer.host, peer.port)
        await down.through(down.send(command("t", ":x", 2)))
        packet_id = said[0][2]
        assert {number for _, _, number in said} == {packet_id}
        if where == "publish":
            assert said == [(PUBLISH, 0, packet_id), (PUBLISH, 8, packet_id), (PUBREL, 0, packet_id)]
        elif where in ("pubrel", "pubcomp"):
            assert said == [(PUBLISH, 0, packet_id), (PUBREL, 0, packet_id), (PUBREL, 0, packet_id)]
        assert peer.connections == 2
        await down.stop()


CODES: dict[int, tuple[type[SinkError] | None, str]] = {
    0x00: (None, ""),
    0x10: (NoSubscribers, "no_matching_subscribers"),
    0x80: (SinkUnavailable, "unspecified_error"),
    0x83: (SinkUnavailable, "implementation_specific_error"),
    0x87: (SinkMisconfigured, "not_authorized"),
    0x90: (SinkRejected, "topic_name_invalid"),
    0x91: (SinkUnavailable, "packet_id_in_use"),
    0x95: (SinkRejected, "packet_too_large"),
    0x97: (SinkThrottled, "quota_exceeded"),
    0x99: (SinkRejected, "payload_format_invalid"),
}


@pytest.mark.parametrize("qos", [1, 2])
async def test_reason_codes(qos: int, publishing: Any, scripted: Any, version: str) -> None:
    if version == "3.1.1":
        pytest.skip("MQTT 3.1.1 has no reason codes")

    async def part(peer: Peer) -> None:
        await peer.accept()
        batch = await peer.publishes(len(CODES) + 1)
        for (packet_id, _), code in zip(batch, CODES, strict=False):
            peer.answer(PUBACK if qos == 1 else PUBREC, packet_id, code)
        said = b"\x1f\x00\x04full"
        kind = 0x40 if qos == 1 else 0x50
        peer.write(bytes((kind, 11)) + batch[-1][0].to_bytes(2, "big") + b"\x97\x07" + said)
        await peer.serve()

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        commands = down.send(*(command("t", qos=qos) for _ in (*CODES, None)))
        await down.done(commands)
        for one, (kind, reason) in zip(commands, CODES.values(), strict=False):
            if kind is None:
                assert one.outcomes == [None]
            else:
                assert type(one.error) is kind
                assert one.error.reason == reason
        assert str(commands[-1].error) == "the broker answers PUBLISH with quota exceeded (0x97), it says 'full'"
        assert down.detail["published"] == 2, "nobody subscribes, and yet the broker took it"
        assert down.publisher.in_flight == 0
        await down.stop()


async def test_a_broker_without_qos_2_and_retain(publishing: Any, scripted: Any, version: str) -> None:
    if version == "3.1.1":
        pytest.skip("MQTT 3.1.1 does not tell")
    heads: list[int] = []

    async def part(peer: Peer) -> None:
        await peer.accept(maximum_qos=1, retain_available=0)
        while True:
            kind, packet_id, packet = await peer.next()
            heads.append(packet[0])
            if kind == PUBLISH and packet[0] & 6:
                peer.answer(PUBACK, packet_id)

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        retained = down.send(command("t", retain=True))
        await down.through(down.send(*(command("t", qos=qos) for qos in (0, 1, 2, 2))))
        assert heads == [0x30, 0x32, 0x32, 0x32]
        assert isinstance(retained[0].error, SinkMisconfigured)
        assert retained[0].error.reason == "retain_not_supported"
        (limited,) = down.reporter.of("mqtt.publish.qos_limited")
        assert "takes QoS 1 at most" in limited.text()
        (unavailable,) = down.reporter.of("mqtt.publish.retain_unavailable")
        assert "does not retain messages" in unavailable.text()
        assert (down.detail["qos_lowered"], down.detail["maximum_qos"], down.detail["retain_available"]) == (
            2,
            1,
            False,
        )
        await down.stop()


async def test_a_packet_over_the_brokers_maximum_is_rejected_alone(
    publishing: Any, scripted: Any, version: str
) -> None:
    if version == "3.1.1":
        pytest.skip("MQTT 3.1.1 has no Maximum Packet Size")
    sizes: list[int] = []

    async def part(peer: Peer) -> None:
        await peer.accept(maximum_packet_size=100, topic_alias_maximum=10)
        while True:
            _, packet_id, packet = await peer.next()
            sizes.append(len(packet))
            peer.answer(PUBACK, packet_id)

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        commands = down.send(*(command("a/topic/of/it", b"x" * size) for size in range(70, 90)))
        await down.done(commands)
        assert max(sizes) == 100
        fits = [one.outcomes == [None] for one in commands]
        assert fits == sorted(fits, reverse=True)
        for one in commands[fits.index(False) :]:
            assert isinstance(one.error, SinkRejected)
            assert one.error.reason == "packet_too_large"
        await down.stop()


async def test_topics_that_come_again_get_an_alias(publishing: Any, scripted: Any, version: str) -> None:
    if version == "3.1.1":
        pytest.skip("MQTT 3.1.1 has no topic aliases")
    topics: list[str] = []
    sizes: list[int] = []

    async def part(peer: Peer) -> None:
        await peer.accept(topic_alias_maximum=2)
        known: dict[int, str] = {}
        for packet_id, packet in await peer.publishes(40):
            size = packet[2] << 8 | packet[3]
            name, at = packet[4 : 4 + size].decode(), 6 + size
            alias = packet[at + 2] << 8 | packet[at + 3] if packet[at] and packet[at + 1] == 0x23 else 0
            assert alias <= 2
            if alias and name:
                known[alias] = name
            topics.append(name or known[alias])
            sizes.append(len(packet))
            peer.answer(PUBACK, packet_id)
        peer.writer.close()

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        names = ["long/topic/a", "long/topic/b", "t"] * 10 + ["long/topic/c", "long/topic/a"] * 5
        await down.through(down.send(*(command(name) for name in names)))
        assert topics == names
        assert sizes[6] == sizes[0] - len("long/topic/a") + 3
        assert sizes[2] == sizes[5] == sizes[8], "a short topic gets none"
        await down.event("mqtt.disconnected")
        await down.stop()


async def test_half_packets(publishing: Any, scripted: Any, version: str) -> None:
    async def part(peer: Peer) -> None:
        await peer.accept()
        for packet_id, _ in await peer.publishes(20):
            for byte in bytes((0x40, 2)) + packet_id.to_bytes(2, "big"):
                peer.write(bytes((byte,)))
                await peer.writer.drain()
                await asyncio.sleep(0)
        await peer.serve()

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        await down.through(down.send(*(command("t") for _ in range(20))))
        assert peer.connections == 1
        await down.stop()


MALFORMED = {
    "PUBACK without an identifier": (b"\x40\x01\x00", "malformed_packet"),
    "identifier 0": (b"\x40\x02\x00\x00", "protocol_error"),
    "flags": (b"\x41\x02\x00\x01", "malformed_packet"),
    "PUBREC for QoS 1": (b"\x50\x02\x00\x01", "protocol_error"),
    "PUBCOMP for QoS 1": (b"\x70\x02\x00\x01", "protocol_error"),
    "PUBACK for QoS 2": (b"\x40\x02\x00\x02", "protocol_error"),
    "PUBCOMP before PUBREC": (b"\x70\x02\x00\x02", "protocol_error"),
    "SUBACK": (b"\x90\x04\x00\x01\x00\x00", "protocol_error"),
    "unknown packet": (b"\x00\x00", "malformed_packet"),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_answers_that_break_the_protocol(what: str, publishing: Any, scripted: Any, version: str) -> None:
    data, reason = MALFORMED[what]

    async def bad(peer: Peer) -> None:
        await peer.accept()
        await peer.publishes(2)
        peer.write(data)
        await peer.serve()

    async def good(peer: Peer) -> None:
        await peer.accept(session_present=True)
        await peer.serve()

    async with scripted(script(version, bad, good)) as peer:
        down = publishing(peer.host, peer.port)
        commands = down.send(command("t"), command("t", qos=2))
        event = await down.event("mqtt.bad_packet")
        assert event.reason == reason
        await down.through(commands)
        await down.stop()


async def test_answers_to_nothing_are_ignored(publishing: Any, scripted: Any, version: str, poll: Any) -> None:
    async def part(peer: Peer) -> None:
        await peer.accept()
        peer.answer(PUBACK, 76)  # before anything was sent
        ((first, _),) = await peer.publishes(1)
        for kind in (PUBACK, PUBREC, PUBCOMP):
            peer.answer(kind, 77)
        peer.answer(PUBACK, first)
        peer.answer(PUBACK, first)
        kind, packet_id, packet = await peer.next()
        assert (kind, packet_id) == (PUBREL, 77)  # so that the broker can forget it
        assert len(packet) == (5 if version == "5" else 4)
        await peer.serve()

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        await down.through(down.send(command("t")))
        await poll(lambda: down.detail["stray_answers"] == 5)
        await down.through(down.send(command("t"), command("t", qos=2)))
        assert peer.connections == 1
        await down.stop()


async def test_messages_that_were_not_asked_for_are_answered_and_discarded(
    publishing: Any, scripted: Any, version: str, poll: Any
) -> None:
    empty = b"\x00" if version == "5" else b""

    async def part(peer: Peer) -> None:
        await peer.accept()
        for qos in (0, 1, 2):
            body = b"\x00\x01a" + (b"\x00\x05" if qos else b"") + empty
            peer.write(bytes((0x30 | qos << 1, len(body))) + body)
        await peer.next()
        await peer.next()
        peer.answer(PUBREL, 5)
        await peer.serve()

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        await poll(lambda: len(peer.received) == 4)
        assert [packet[:4] for packet in peer.received[1:]] == [
            b"\x40\x02\x00\x05",
            b"\x50\x02\x00\x05",
            b"\x70\x02\x00\x05",
        ]
        await down.through(down.send(command("t")))
        await down.stop()


async def test_a_broker_that_answers_pings_and_no_publish_is_left(publishing: Any, scripted: Any, version: str) -> None:
    async def hung(peer: Peer) -> None:
        await peer.accept()
        while True:
            await peer.next()

    async def healthy(peer: Peer) -> None:
        await peer.accept(session_present=True)
        await peer.serve()

    async with scripted(script(version, hung, healthy)) as peer:
        down = publishing(peer.host, peer.port, answer_timeout=0.4, keep_alive=1)
        commands = down.send(command("t"), command("t", qos=2))
        event = await down.event("mqtt.disconnected")
        assert event.reason == "no_answer"
        assert "has answered no PUBLISH for 0.4 s, 2 are unanswered; unanswered messages are sent again" in event.text()
        await down.through(commands)
        await down.stop()


async def test_a_broker_that_does_not_read_is_not_written_to_without_bound(
    publishing: Any, scripted: Any, version: str, poll: Any
) -> None:
    go = asyncio.Event()

    async def part(peer: Peer) -> None:
        await peer.accept()
        await go.wait()
        await peer.serve()

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        commands = down.send(*(command("t", b"x" * 500_000) for _ in range(30)))
        await poll(lambda: down.detail["clogged"])
        assert down.detail["in_flight"] < 30
        assert down.publisher.in_flight == 30
        go.set()
        await down.through(commands)
        await down.stop()


async def test_a_message_that_ends_connections_is_given_up_and_the_others_go_through(
    publishing: Any, scripted: Any, version: str
) -> None:
    async def part(peer: Peer) -> None:
        await peer.accept(session_present=peer.broker.connections > 1)
        while True:
            _, packet_id, packet = await peer.next()
            if payload(packet) == b"poison":
                return
            peer.answer(PUBACK, packet_id)

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        commands = down.send(*(command("t", f":{'poison' if n == 3 else n}") for n in range(10)))
        await down.done(commands)
        bad = commands.pop(3)
        assert isinstance(bad.error, SinkRejected)
        assert bad.error.reason == "connection_closed"
        assert [one.outcomes for one in commands] == [[None]] * 9
        await down.through(down.send(*(command("t", f":{n}") for n in range(20))))
        await down.stop()


async def test_a_3_1_1_broker_s_session_of_an_earlier_process_is_discarded(
    publishing: Any, scripted: Any, version: str
) -> None:
    if version == "5":
        pytest.skip("MQTT 5.0 begins a session with its first CONNECT")
    cleans: list[int] = []

    async def part(peer: Peer) -> None:
        stale = not cleans
        cleans.append((await peer.accept(session_present=stale))[9] & 2)
        await peer.serve()

    async with scripted(script(version, part)) as peer:
        down = publishing(peer.host, peer.port)
        await down.through(down.send(command("t", qos=2)))
        assert cleans == [0, 2, 0]
        assert [event.name for event in down.reporter.events] == ["mqtt.connected"]
        await down.stop()
