"""``python -m bench.calls``: Python calls of ours for one read of the socket: what the read costs, and a message more.

The README's configuration, traced, without brokers: decoder, session, intake, sender and tracer, with one request for
each read. What :mod:`bench.walk` counts besides is connections, HTTP/2 and the producer, which see a read or a request.
"""

from __future__ import annotations

import asyncio
import sys
from types import FrameType

from bench import shapes
from bench.pipeline_worker import Pipeline
from bench.revision import ROOT

WARM = 3_000
TIMES = 25
"""Reads of each size; the one with the fewest calls counts: the others met a topic that was new."""
READS = (1, 2, 8, 32)
_OURS = (str(ROOT / "gateway" / "spanbridge"), str(ROOT / "context" / "spanbridge_context"))


async def count(pipeline: Pipeline, messages: int) -> int:
    """The calls of ours that a read of so many messages makes."""
    source = pipeline.source
    data = pipeline.packets.encode(messages, 1, WARM, {})
    calls, before = 0, source.answered

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(_OURS)

    sys.setprofile(note)
    try:
        source.feed(data)
        while source.answered == before:  # noqa: ASYNC110 - the sender's task runs, and nothing is waited for
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    finally:
        sys.setprofile(None)
    return calls


async def table() -> dict[int, int]:
    """Calls by the number of messages in a read."""
    pipeline = Pipeline(shapes.shape("readme"), traced=True)
    running = asyncio.create_task(pipeline.uplink.run())
    while pipeline.source.deliver is None:  # noqa: ASYNC110 - its task starts, and nothing is waited for
        await asyncio.sleep(0)
    await pipeline.feed(list(pipeline.reads(WARM)))
    found = {messages: min([await count(pipeline, messages) for _ in range(TIMES)]) for messages in READS}
    running.cancel()
    return found


def main() -> None:
    """Print the calls of each read, and what a message more adds."""
    found = asyncio.run(table())
    for messages, calls in found.items():
        print(f"{messages:>4} messages in a read: {calls:>5} calls, {calls / messages:>6.1f} a message")
    least, most = READS[0], READS[-1]
    more = (found[most] - found[least]) / (most - least)
    print(f"each message more: {more:.1f} calls; for the read and its request: {found[least] - more:.1f}")


if __name__ == "__main__":
    main()
