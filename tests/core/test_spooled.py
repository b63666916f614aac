"""A message as the spool keeps it."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.message import Publish
from spanbridge.core.spooled import Spooled, SpooledError, TraceIds, decode, encode, left_ns

text = st.text(max_size=30)
messages = st.builds(
    Publish,
    topic=st.text(max_size=400),
    payload=st.binary(max_size=300),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    user_properties=st.lists(st.tuples(text, text), max_size=4),
    content_type=st.none() | text,
    response_topic=st.none() | text,
    correlation_data=st.none() | st.binary(max_size=20),
    expiry=st.none() | st.integers(0, 2**32 - 1),
    payload_format=st.none() | st.integers(0, 1),
    received_ns=st.integers(0, 2**47).map(lambda ms: ms * 1_000_000),
    fault=st.none() | st.text(min_size=1, max_size=20),
)
traces = st.none() | st.builds(TraceIds, *(st.binary(min_size=size, max_size=size) for size in (16, 8, 8)))


@given(publish=messages, trace=traces, source=text, waited=st.integers(0, 65_535), boot=st.integers(0, 2**63))
def test_it_comes_back_as_it_was(publish: Publish, trace: TraceIds | None, source: str, waited: int, boot: int) -> None:
    spooled = Spooled(publish, publish.received_ns + waited * 10_000_000, trace, source, boot)
    back = decode(encode(spooled))
    for name in Publish.__slots__:
        before, after = getattr(publish, name), getattr(back.publish, name)
        assert list(before) == list(after) if name == "user_properties" else before == after
    assert (back.trace, back.source, back.spooled_ns) == (trace, source, spooled.spooled_ns)
    assert back.boot_ns == boot


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_said_to_be_none(data: bytes) -> None:
    with contextlib.suppress(SpooledError):
        decode(data)


def test_time_counts_by_the_clock_that_nobody_sets_and_over_a_restart_by_unix_time() -> None:
    second = 1_000_000_000
    spooled = Spooled(Publish("t", b"", expiry=60, received_ns=1000 * second), boot_ns=10 * second)
    assert left_ns(spooled, now_ns=0, boot_now_ns=30 * second, same_boot=True) == 40 * second
    assert left_ns(spooled, now_ns=1050 * second, boot_now_ns=second, same_boot=False) == 10 * second
    assert left_ns(spooled, now_ns=5 * second, boot_now_ns=second, same_boot=False) == 60 * second, (
        "a clock that is wrong"
    )
    assert left_ns(spooled, now_ns=1061 * second, boot_now_ns=second, same_boot=False) == -second
    assert left_ns(Spooled(Publish("t", b"")), now_ns=1, boot_now_ns=1, same_boot=True) is None


def test_an_ordinary_message_takes_41_bytes_beside_topic_and_payload() -> None:
    trace = TraceIds(bytes(16), bytes(8), bytes(8))
    data = encode(Spooled(Publish("devices/d1/telemetry", bytes(256), qos=1), trace=trace))
    assert len(data) - 256 - 20 == 41
