"""What a delivery says that it takes is what it takes."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import Decoder, v5
from spanbridge.mqtt.session import MqttSession

COUNT = 400


def user(number: int, properties: int) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"name-{index}", f"value {index} of message {number:06d}, no two alike") for index in range(properties)
    )


@pytest.mark.parametrize("payload", [16, 128, 4096])
@pytest.mark.parametrize("properties", ["none", "tp", "ten"])
def test_the_size_of_a_delivery_is_what_it_takes_in_memory(payload: int, properties: str) -> None:
    source: Any = None
    read = []
    for number in range(COUNT):
        pairs = {
            "none": (),
            "tp": (("tp", f"{number:035d}"),),
            "ten": user(number, 10),
        }[properties]
        message = Publish(f"plant/line/{number % 50}", bytes(payload), 1, user_properties=pairs)
        read.append(v5.encode_publish(message, number + 1))
    data = b"".join(read)
    decoder, session = Decoder(source, v5=True, limit=1 << 24), MqttSession()
    session.connected(session_present=False)
    for run in decoder.feed(b"".join(read[:50])):  # the topics are known
        assert run
    del run
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for run in decoder.feed(data):
            session.take(run)  # type: ignore[arg-type]
        del run
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert session.held == COUNT
    assert 0.85 * taken <= session.held_bytes <= 1.15 * taken
