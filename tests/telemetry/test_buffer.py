"""The buffer of spans: bounded, in order, and every span is either taken or counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spanbridge.telemetry.otlp.buffer import SpanBuffer


def spans(count: int, size: int = 10) -> list[bytes]:
    return [b"x" * size] * count


def whole(taken: tuple[list[bytes], int]) -> tuple[bytes, int]:
    """What was taken, its pieces joined."""
    return b"".join(taken[0]), taken[1]


def test_a_batch_is_ready_when_it_is_full_by_spans_or_by_bytes() -> None:
    buffer = SpanBuffer(10_000, batch_spans=4, batch_bytes=100)
    calls: list[int] = []
    buffer.ready = lambda: calls.append(buffer.spans)
    buffer.add(spans(3))
    assert (calls, buffer.batch_is_full) == ([], False)
    buffer.add(spans(1))
    assert (calls, buffer.batch_is_full) == ([4], True)
    assert whole(buffer.take()) == (b"x" * 40, 4)
    assert (buffer.spans, buffer.bytes, buffer.batch_is_full) == (0, 0, False)
    buffer.add(spans(1, 99))
    assert calls == [4]
    buffer.add(spans(1, 1))
    assert calls == [4, 2]


def test_what_fits_exactly_is_kept_and_the_newest_is_dropped() -> None:
    buffer = SpanBuffer(40, batch_spans=10, batch_bytes=40)
    buffer.add(spans(4))
    assert (buffer.spans, buffer.dropped) == (4, 0)
    buffer.add(spans(2, 1))
    assert (buffer.spans, buffer.dropped) == (4, 2)
    limited = SpanBuffer(1000, batch_spans=3, batch_bytes=100, max_spans=5)
    limited.add(spans(4))
    limited.add(spans(3))
    assert (limited.spans, limited.dropped) == (5, 2)
    assert whole(limited.take()) == (b"x" * 30, 3), "as much as one request takes"
    assert whole(limited.take()) == (b"x" * 20, 2)
    assert whole(limited.take()) == (b"", 0)


@given(st.lists(st.lists(st.integers(1, 60), max_size=12), max_size=12), st.sampled_from([None, 5, 9]))
def test_every_span_is_taken_in_order_or_counted(adds: list[list[int]], max_spans: int | None) -> None:
    buffer = SpanBuffer(200, batch_spans=5, batch_bytes=50, max_spans=max_spans)
    added: list[bytes] = []
    for sizes in adds:
        fresh = [b"%c" % (len(added) + offset) * size for offset, size in enumerate(sizes)]
        buffer.add(fresh)
        added += fresh
        assert buffer.bytes <= 200
        assert max_spans is None or buffer.spans <= max_spans
    taken, out = 0, b""
    while buffer.spans:
        blob, count = whole(buffer.take())
        assert 0 < count <= 5
        assert len(blob) <= 50 or count == 1
        taken += count
        out += blob
    assert buffer.bytes == 0
    assert taken == len(added) - buffer.dropped
    everything = iter(b"".join(added))
    assert all(byte in everything for byte in out), "in order"
