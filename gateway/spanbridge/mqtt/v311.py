"""MQTT 3.1.1 on paho-mqtt, driven by the event loop.

paho owns the protocol: it encodes what is sent and decodes what comes, by its ``loop_read`` and ``loop_write``. It does
not own the socket: its own connect resolves names, connects and shakes TLS hands while blocking. What it gets in place
of a socket is a pipe in memory between it and an asyncio transport, which brings TLS, pausing and both event loops.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from spanbridge.core.errors import SourceError
from spanbridge.core.message import Publish
from spanbridge.mqtt.connection import Accepted, Connection, Granted, Intake, now_ns
from spanbridge.mqtt.errors import PacketError, RefusedError, malformed, packet_too_large, protocol_error
from spanbridge.mqtt.framing import packet_size
from spanbridge.mqtt.options import MqttOptions, Subscription
from spanbridge.mqtt.session import ReceiverSession

_REFUSALS = {  # 3.1.1 section 3.2.2.3, with the words of MQTT 5.0's reason codes for the same
    1: ("unsupported_protocol_version", 'it does not speak MQTT 3.1.1: set version = "5" for this connection'),
    2: ("client_id_not_valid", "the client identifier is not allowed"),
    3: ("server_unavailable", "the server is unavailable"),
    4: ("bad_user_name_or_password", "bad user name or password"),
    5: ("not_authorized", "not authorised"),
}


class Pipe:
    """What paho takes for its socket (``SocketLike``): bytes in memory on the way in, a transport on the way out."""

    __slots__ = ("_data", "_position", "_send")

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._data = b""
        self._position = 0

    def feed(self, data: bytes) -> None:
        """Take what the transport read. The pipe is empty then: every call hands over whole packets."""
        self._data = data
        self._position = 0

    @property
    def unread(self) -> int:
        """Bytes that paho has not taken."""
        return len(self._data) - self._position

    def recv(self, buffer_size: int) -> bytes:
        """As ``socket.recv`` of a non-blocking socket."""
        start = self._position
        chunk = self._data[start : start + buffer_size]
        if not chunk:
            raise BlockingIOError
        self._position = start + len(chunk)
        return chunk

    def send(self, buffer: bytes | bytearray) -> int:
        """As ``socket.send``; the transport takes everything."""
        self._send(bytes(buffer))
        return len(buffer)

    def close(self) -> None:
        """Nothing to close: the transport belongs to the connection."""

    def fileno(self) -> int:
        """No file descriptor."""
        return -1

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""


class PahoClient(Client):
    """paho's client without its socket, and with QoS 2 acknowledged when the message is settled.

    paho answers a QoS 2 PUBLISH with PUBREC at once, also under ``manual_ack``, and delivers at PUBREL. The broker may
    forget the payload after PUBREC (3.1.1 section 4.3.3), so a message would be lost when the gateway dies in between.
    Here PUBLISH delivers, and neither PUBREC nor PUBCOMP is paho's to send.
    """

    def __init__(self, options: MqttOptions, client_id: str, pipe: Pipe) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=options.clean_start,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.pipe = pipe
        self.on_pubrel: Callable[[int], None] = lambda _: None
        if options.username is not None:
            self.username_pw_set(options.username, options.password)
        if options.will is not None:
            will = options.will
            self.will_set(will.topic, will.payload, will.qos, will.retain)

    def _create_socket(self) -> Pipe:
        return self.pipe

    def _send_pubrec(self, mid: int) -> MQTTErrorCode:
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_publish(self) -> MQTTErrorCode:
        result = super()._handle_publish()
        while self._in_messages:  # where paho holds QoS 2 messages back until PUBREL
            self._handle_on_message(self._in_messages.popitem(last=False)[1])
        return result

    def _handle_pubrel(self) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        if len(packet) != 2:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self.on_pubrel(int.from_bytes(packet, "big"))
        return MQTTErrorCode.MQTT_ERR_SUCCESS


class V311Connection(Connection):
    """The glue between paho and a connection."""

    def __init__(self, options: MqttOptions, client_id: str, session: ReceiverSession, intake: Intake) -> None:
        super().__init__(options, client_id, session, intake)
        self._pipe = Pipe(self.write)
        self._client = client = PahoClient(options, client_id, self._pipe)
        self._batch: list[Publish] = []
        self._received_ns = 0
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_pubrel = self.on_pubrel

    def send_connect(self) -> None:
        # The keep-alive goes into CONNECT; PINGREQ is the connection's work, since paho's own would take a paused
        # reader for a dead broker (loop_misc is never called).
        self._client.connect(self.options.host, self.options.port, self.options.keep_alive)

    def send_subscribe(self, subscription: Subscription, *, fresh: bool) -> int:
        _, packet_id = self._client.subscribe(subscription.wire_filter, subscription.qos)
        return packet_id or 0

    def send_disconnect(self, code: int) -> None:
        if code == 0:  # 3.1.1 has no reason codes: DISCONNECT means all is well, and errors just close (section 4.8)
            self._client.disconnect()

    def pubcomp(self, packet_id: int, *, known: bool) -> bytes:
        return (0x70_02_0000 | packet_id).to_bytes(4, "big")

    def decode(self, data: bytes) -> int:
        if not self.accepted.done():
            _check_first_packet(self.peer, data)
        end, error = self._whole(data)
        self._received_ns = now_ns()
        self._pipe.feed(data[:end] if end < len(data) else data)
        try:
            self._run_paho()
        finally:
            batch, self._batch = self._batch, []
            self.hand_over(batch)
        if error is not None:
            raise error
        return end

    def _run_paho(self) -> None:
        """Let paho handle what is in the pipe.

        :raises PacketError: it could not.
        """
        try:
            while self._pipe.unread and not self.ending:
                code = self._client.loop_read()
                if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    raise malformed(code.name.removeprefix("MQTT_ERR_").lower().replace("_", " "))
        except (ValueError, LookupError, TypeError, struct.error) as error:  # what paho raises over nonsense
            raise malformed(f"{type(error).__name__}: {error}") from None

    def _whole(self, data: bytes) -> tuple[int, PacketError | None]:
        """Where the last whole packet ends, and what is wrong with the one after it.

        paho has no Maximum Packet Size, so packets are held to ours here.
        """
        position, end, limit = 0, len(data), self.options.maximum_packet_size
        while position < end:
            try:
                size = packet_size(data, position)
            except PacketError as error:
                return position, error
            if size > limit:
                return position, packet_too_large(size, limit)
            if not size or position + size > end:
                break
            position += size
        return position, None

    def _on_connect(
        self, _client: Client, _data: Any, flags: ConnectFlags, _reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if not self.accepted.done():  # refusals are caught before paho sees them
            self.on_connack(
                Accepted(
                    session_present=flags.session_present,
                    client_id=self.client_id,
                    keep_alive=self.options.keep_alive,
                )
            )

    def _on_subscribe(
        self, _client: Client, _data: Any, mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if len(codes) != 1:
            raise protocol_error(f"SUBACK with {len(codes)} return codes for one filter")
        if codes[0].is_failure:
            # 0x80 is all that 3.1.1 can say (section 3.9.3)
            self.on_suback(mid, Granted(None, "refused", "no reason given, as MQTT 3.1.1 has none (0x80)"))
        else:
            self.on_suback(mid, Granted(codes[0].value))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        qos, packet_id = message.qos, message.mid
        if not self.take(qos, packet_id, dup=message.dup):
            return
        fault = None
        try:
            topic = message.topic
        except UnicodeDecodeError:  # refused by name, as in MQTT 5.0 (ADR 0035)
            topic = message._topic.decode(errors="backslashreplace")
            fault = str(malformed("a string is not UTF-8"))
        self._batch.append(
            Publish(
                topic=topic,
                payload=bytes(message.payload),
                qos=qos,
                retain=bool(message.retain),
                dup=bool(message.dup),
                received_ns=self._received_ns,
                epoch=self.session.epoch,
                packet_id=packet_id if qos else 0,
                fault=fault,
            )
        )


def check(options: MqttOptions) -> None:
    """Find at the start what MQTT 3.1.1 or paho cannot carry.

    :raises SourceError: a value is not legal.
    """
    if not options.client_id and not options.clean_start:
        raise SourceError(
            f"{options.name}: client_id is empty, and MQTT 3.1.1 keeps sessions for named clients only "
            "(set client_id, or clean_start = true)",
            reason="config",
        )
    try:
        PahoClient(options, options.client_id, Pipe(lambda _: None))
    except (ValueError, TypeError) as error:
        raise SourceError(f"{options.name}: {error}", reason="config") from None


def _check_first_packet(peer: str, data: bytes) -> None:
    """The broker's first packet is CONNACK (MQTT-3.2.0-1); its refusals are told apart here, as paho drops some."""
    if data[0] != 0x20:
        raise protocol_error(f"packet type {data[0] >> 4} before CONNACK")
    if len(data) >= 4 and data[1] == 2 and data[3]:
        reason, words = _REFUSALS.get(data[3], ("unspecified_error", f"return code {data[3]}"))
        raise RefusedError(f"{peer} refused the connection: {words}", reason=reason)
