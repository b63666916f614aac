"""Bodies as producers pack them: zlib, gzip, LZ4, Zstandard."""

from __future__ import annotations

import gzip
import struct
import sys
import zlib
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress

import pytest
from backports import zstd
from hypothesis import example, given
from hypothesis import strategies as st

from spanbridge.rocketmq import packed
from spanbridge.rocketmq.lz4 import MAGIC, Lz4Error, unpack_lz4
from spanbridge.rocketmq.packed import unpack

LIMIT = 1 << 20
WRITTEN_BY_JAVA = {  # RocketMQ 5.5.0's CompressorFactory, of "large java java ...", 20 000 bytes
    "lz4": b64decode("BCJNGGBwc2IAAACvbGFyZ2UgamF2YQUA" + "/" * 104 + "TFAgamF2YQAAAAA="),
    "zstd": b64decode("KLUv/QBYlAAAUGxhcmdlIGphdmEBABMO9oIEAQAA"),
}


def blocks(data: bytes, least: int) -> Iterator[bytes]:
    """LZ4 blocks of up to 400 bytes each, with matches of ``least`` bytes and more, none from far away."""
    for begin in range(0, len(data), 400):
        end = min(begin + 400, len(data))
        made, at, literals = bytearray(), begin, begin
        while at < end:
            size, start = longest(data, at, end)
            if size < max(least, 4):
                at += 1
                continue
            made += sequence(data[literals:at], at - start, size)
            at += size
            literals = at
        yield bytes(made + sequence(data[literals:end], 0, 4))


def longest(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The longest match of what begins at ``at``: its size and its beginning. It may overlap what it matches."""
    found = (0, 0)
    for start in range(max(0, at - 40), at):
        size = 0
        while at + size < end and data[start + size] == data[at + size]:
            size += 1
        found = max(found, (size, start))
    return found


def sequence(literals: bytes, offset: int, size: int) -> bytes:
    count, match = len(literals), size - 4
    token = min(count, 15) << 4 | min(match, 15)
    tail = offset.to_bytes(2, "little") + more(match) if offset else b""
    return bytes([token]) + more(count) + literals + tail


def more(size: int) -> bytes:
    return b"" if size < 15 else b"\xff" * ((size - 15) // 255) + bytes([(size - 15) % 255])


def lz4(data: bytes, *, flags: int = 0x40, least: int = 4) -> bytes:
    """A frame. Its checksums are zeros."""
    head = MAGIC + bytes([flags, 0x40]) + (struct.pack("<Q", len(data)) if flags & 8 else b"") + b"\0"
    check = b"\0" * 4 if flags & 0x10 else b""
    made = b"".join(struct.pack("<I", len(block)) + block + check for block in blocks(data, least))
    return head + made + b"\0" * (8 if flags & 4 else 4)


def plain_block(data: bytes) -> bytes:
    return MAGIC + b"\x60\x40\0" + struct.pack("<I", len(data) | 0x8000_0000) + data + b"\0" * 4


@pytest.mark.parametrize("kind", WRITTEN_BY_JAVA)
def test_what_java_has_packed(kind: str) -> None:
    wanted = (b"large" + b" java" * 4000)[:20_000]
    assert unpack(WRITTEN_BY_JAVA[kind], LIMIT) == (wanted, None)


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, zstd.compress, lz4, plain_block])
def test_each_kind_is_bounded_and_wants_to_be_whole(pack: object) -> None:
    assert callable(pack)
    data = bytes(range(200)) * 3
    body = pack(data)
    assert unpack(body, LIMIT) == unpack(body, len(data)) == (data, None)
    left, fault = unpack(body, len(data) - 1)
    assert (left, fault) == (body, f"its packed body unpacks to more than {len(data) - 1} bytes")
    for cut in range(len(body)):
        _, fault = unpack(body[:cut], LIMIT)
        assert fault is not None, f"cut after {cut} bytes"


def test_zstandard_takes_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    packed._zstandard.cache_clear()
    body = zstd.compress(b"x" * 100)
    try:
        left, fault = unpack(body, LIMIT)
    finally:
        packed._zstandard.cache_clear()
    assert left == body
    assert "extra `zstd`" in (fault or "")


@given(
    data=st.one_of(st.binary(max_size=600), st.text("ab", max_size=600).map(str.encode)),
    flags=st.sampled_from([0x40, 0x48, 0x50, 0x44, 0x5C]),
    least=st.sampled_from([4, 7, 20]),
)
@example(data=b"a" * 1000, flags=0x40, least=4)
@example(data=bytes(range(256)) * 4, flags=0x40, least=4)
def test_an_lz4_frame_holds_what_was_packed(data: bytes, flags: int, least: int) -> None:
    assert unpack_lz4(lz4(data, flags=flags, least=least), LIMIT) == data


@given(st.binary(max_size=300), st.integers(1, 2000))
def test_any_block_is_unpacked_within_its_bound_or_refused(block: bytes, limit: int) -> None:
    frame = MAGIC + b"\x40\x40\0" + struct.pack("<I", len(block)) + block + b"\0" * 4
    with suppress(Lz4Error):
        assert len(unpack_lz4(frame, limit)) <= limit


@given(st.binary(max_size=60))
def test_any_frame_is_unpacked_or_refused(rest: bytes) -> None:
    with suppress(Lz4Error):
        unpack_lz4(MAGIC + rest, 1000)


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (MAGIC + b"\x41\x40" + bytes(9), "dictionary"),
        (MAGIC + b"\x80\x40" + bytes(9), "damaged"),
        (MAGIC + b"\x42\x40" + bytes(9), "damaged"),
        (lz4(b"abc" * 50) + b"!", "damaged"),
        (MAGIC + b"\x40\x40\0" + struct.pack("<I", 4) + b"\x10a\x02\0" + bytes(4), "damaged"),  # before the beginning
        (MAGIC + b"\x40\x40\0" + struct.pack("<I", 4) + b"\x10a\0\0" + bytes(4), "damaged"),  # an offset of 0
        (MAGIC + b"\x40\x40\0" + struct.pack("<I", 2) + b"\x50a" + bytes(4), "damaged"),  # literals that are not there
    ],
)
def test_frames_that_are_refused(frame: bytes, cause: str) -> None:
    left, fault = unpack(frame, LIMIT)
    assert left == frame
    assert cause in (fault or "")
