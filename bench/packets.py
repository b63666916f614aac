"""MQTT packets of the load generator, encoded ahead as far as possible.

A PUBLISH is joined from parts that exist already, but for its payload's head. Contexts come from a pool: their ids are
random and repeat after ``POOL`` messages, long after the bridge has forgotten the earlier ones.
"""

from __future__ import annotations

import os
import random
import struct
import time
from binascii import b2a_base64, b2a_hex
from collections.abc import Sequence
from typing import NamedTuple

from bench.payload import filler, pack_head
from bench.shapes import Shape

POOL = 32_749
"""Contexts that are encoded ahead. A prime number: every device gets every variant of the properties in turn."""

PACKET_IDS = [number.to_bytes(2, "big") for number in range(65536)]
_URLSAFE = bytes.maketrans(b"+/", b"-_")


def varint(value: int) -> bytes:
    """MQTT 5.0 section 1.5.5, Variable Byte Integer."""
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | 0x80 if value else digit)
        if not value:
            return bytes(out)


def string(text: bytes) -> bytes:
    """MQTT 5.0 section 1.5.4, UTF-8 Encoded String."""
    return struct.pack(">H", len(text)) + text


def properties(named: Sequence[tuple[str, str]]) -> bytes:
    """PUBLISH properties without their length. Names with a colon are MQTT's own, others are user properties."""
    out = []
    for name, value in named:
        if name == ":content-type":
            out.append(b"\x03" + string(value.encode()))
        elif name == ":correlation-data":
            out.append(b"\x09" + string(value.encode()))
        else:
            out.append(b"\x26" + string(name.encode()) + string(value.encode()))
    return b"".join(out)


def connect(version: str, client_id: bytes) -> bytes:
    """CONNECT with a clean start and a keep alive of 60 seconds."""
    body = b"\x00\x04MQTT" + (b"\x05" if version == "5" else b"\x04") + b"\x02\x00\x3c"
    body += (b"\x00" if version == "5" else b"") + string(client_id)
    return b"\x10" + varint(len(body)) + body


class Contexts:
    """Trace contexts with random ids, ``sampled`` of a hundred with the sampled flag.

    ``carrier``: ``none``, ``tp`` and ``traceparent`` (a user property, encoded), ``suffix`` (35 characters).
    """

    def __init__(self, carrier: str, sampled: int) -> None:
        self.carrier = carrier
        self._sampled = sampled
        self._count = 0

    def next(self) -> bytes:
        """One context as its carrier holds it; empty for ``none``."""
        if self.carrier == "none":
            return b""
        ids = os.urandom(24)
        self._count += 1
        sampled = self._count * self._sampled // 100 != (self._count - 1) * self._sampled // 100  # spread evenly
        if self.carrier == "traceparent":
            text = b2a_hex(ids)
            head = b"\x26\x00\x0btraceparent\x00\x37"
            return head + b"00-%b-%b-%b" % (text[:32], text[32:], b"01" if sampled else b"00")
        encoded = b2a_base64(b"\x00" + ids + (b"\x01" if sampled else b"\x00"), newline=False)[:35]
        compact = encoded.translate(_URLSAFE)
        return compact if self.carrier == "suffix" else b"\x26\x00\x02tp\x00\x23" + compact


class Template(NamedTuple):
    """What all messages of a shape share. Made once, used by all connections.

    ``blocks``: pairs of a variant's number and the bytes that follow the head (``suffix``) or the packet identifier.
    ``tails``: by variant, the properties that are the same in every message.
    """

    shape: Shape
    run_id: int
    context_size: int
    blocks: list[tuple[int, bytes]]
    tails: list[bytes]


def template(shape: Shape, run_id: int, carrier: str, sampled: int) -> Template:
    """Encode the contexts, and the properties of each variant."""
    contexts = Contexts(carrier, sampled)
    tails = [properties(named) for _, named in shape.variants]
    weights = [weight for weight, _ in shape.variants]
    size = len(contexts.next())
    lengths = [varint(size + len(tail)) for tail in tails]
    if shape.version != "5":
        lengths = [b""] * len(tails)
    numbers = random.choices(range(len(tails)), weights, k=POOL)
    blocks = [
        (number, contexts.next() if carrier == "suffix" else lengths[number] + contexts.next()) for number in numbers
    ]
    return Template(shape, run_id, size, blocks, tails)


class Packets:
    """PUBLISH packets (QoS 1) of one connection, which stands for every ``step``-th device from ``first`` on."""

    def __init__(self, made: Template, first: int, step: int) -> None:
        self._made = made
        self._suffix = made.blocks[0][1] if self._is_suffix(made) else None
        devices = range(first, made.shape.devices, step)
        self._heads = [[self._head(number, variant) for number in devices] for variant in range(len(made.tails))]
        self._filler = filler(made.shape.payload)
        self._device = 0
        self._block = first * POOL // step
        self.packet_id = 0
        """The last one used."""

    @staticmethod
    def _is_suffix(made: Template) -> bool:
        return made.shape.carrier == "suffix"

    def _head(self, device: int, variant: int) -> bytes:
        """Fixed header and topic; with a topic suffix, what stands before the context."""
        made = self._made
        topic = made.shape.topics(made.run_id).replace("{device}", f"device-{device:05d}").encode()
        rest = 2 + made.shape.payload
        if self._suffix is not None:
            topic += b"/~tp/"
            size = len(topic) + made.context_size
            return b"\x32" + varint(2 + size + rest) + struct.pack(">H", size) + topic
        if made.shape.version == "5":
            block = made.context_size + len(made.tails[variant])
            rest += len(varint(block)) + block
        return b"\x32" + varint(2 + len(topic) + rest) + string(topic)

    def encode(self, count: int, phase: int, seq: int, unacked: dict[int, int]) -> bytes:
        """``count`` packets, numbered from ``seq`` on and entered in ``unacked`` by their packet identifiers."""
        parts: list[bytes] = []
        heads, blocks, tails = self._heads, self._made.blocks, self._made.tails
        suffix, end = self._suffix is not None, self._filler
        device, block, packet_id, run = self._device, self._block, self.packet_id, self._made.run_id
        devices, now = len(heads[0]), time.time_ns()
        for number in range(seq, seq + count):
            packet_id = packet_id % 65535 + 1
            unacked[packet_id] = number
            device = device + 1 if device + 1 < devices else 0
            block = block + 1 if block + 1 < POOL else 0
            variant, middle = blocks[block]
            identifier = PACKET_IDS[packet_id]
            if suffix:
                parts += (heads[variant][device], middle, identifier, pack_head(run, phase, number, now), end)
            else:
                stamp = pack_head(run, phase, number, now)
                parts += (heads[variant][device], identifier, middle, tails[variant], stamp, end)
        self._device, self._block, self.packet_id = device, block, packet_id
        return b"".join(parts)
