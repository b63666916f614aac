"""What POP answers, what answers POP, and what messages become: by the rules of ``ExtraInfoUtil``. Without brokers."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.message import Message
from spanbridge.rocketmq.remoting.call import answer
from spanbridge.rocketmq.remoting.errors import FrameError
from spanbridge.rocketmq.remoting.frame import Frame
from spanbridge.rocketmq.remoting.group import GroupSettings, group_settings
from spanbridge.rocketmq.remoting.incoming import Incoming, read_stored, tags_of
from spanbridge.rocketmq.remoting.pop import (
    Checkpoint,
    GroupTopic,
    PopHandle,
    ack,
    ack_batch,
    change_invisible,
    fits,
    pop,
)
from spanbridge.rocketmq.remoting.stored import StoredMessage

from .test_stored import stored

NAMES = GroupTopic("g", "t")
ONE = StoredMessage("t", 1, 20, 4711, 0, 5, 6, 0, b"body", b"UNIQ_KEY\x01ID\x02")


def popped(*messages: StoredMessage, **fields: str) -> list[Incoming]:
    call = pop(NAMES, "*", "TAG", at_most=32, invisible=60.0, wait=5.0, attempt_id=None)
    told = {"popTime": "1000", "invisibleTime": "60000", "reviveQid": "3", **fields}
    return answer(call, Frame(code=0, flag=1, fields=told, body=b"".join(map(stored, messages))), "b:1")


def test_a_request_asks_for_all_queues_of_a_broker() -> None:
    call = pop(NAMES, "a || b", "TAG", at_most=32, invisible=60.0, wait=5.0, attempt_id="x")
    assert (call.fields["queueId"], call.fields["invisibleTime"], call.fields["pollTime"]) == ("-1", "60000", "5000")
    assert (call.fields["order"], call.fields["attemptId"], call.fields["bornTime"]) == ("true", "x", "0")
    assert "attemptId" not in pop(NAMES, "*", "TAG", at_most=1, invisible=1, wait=0, attempt_id=None).fields


def test_messages_share_the_checkpoint_of_their_queue() -> None:
    other = ONE._replace(queue_id=2, queue_offset=7)
    found = popped(ONE, ONE._replace(queue_offset=22), other, startOffsetInfo="0 1 20;0 2 7", msgOffsetInfo="")
    assert [one.handle.checkpoint for one in found] == [
        Checkpoint("0", 1, 20, 1000, 60000, 3),
        Checkpoint("0", 1, 20, 1000, 60000, 3),
        Checkpoint("0", 2, 7, 1000, 60000, 3),
    ]
    assert [one.handle.offset for one in found] == [20, 22, 7]
    assert found[0].handle.checkpoint.text("broker-a", 20) == "20 1000 60000 3 0 broker-a 1 20"
    assert [one.attempts for one in found] == [0, 0, 0]


@pytest.mark.parametrize(("retry", "topic"), [("1", "%RETRY%g_t"), ("2", "%RETRY%g+t")])
def test_a_message_of_the_retry_topic_brings_its_checkpoint(retry: str, topic: str) -> None:
    again = ONE._replace(
        queue_id=0, attempts=2, raw_properties=f"POP_CK\x014 1000 60000 3 {retry} broker-a 0 4\x02".encode()
    )
    (found,) = popped(again, startOffsetInfo=f"{retry} 0 4")
    assert found.handle.checkpoint == Checkpoint(retry, 0, 4, 1000, 60000, 3)
    assert NAMES.real_topic(found.handle.checkpoint) == topic
    assert found.attempts == 2
    assert ack(NAMES, found.handle, "broker-a").fields["topic"] == topic


@pytest.mark.parametrize("written", ["4 999 60000 3 1 b 0 4", "4 1000 60000 3 0 b 0 4", "nonsense", ""])
def test_a_property_of_a_sender_is_no_checkpoint(written: str) -> None:
    mine = ONE._replace(attempts=1, raw_properties=b"POP_CK\x01" + written.encode() + b"\x02")
    (found,) = popped(mine, startOffsetInfo="0 1 20")
    assert found.handle.checkpoint.retry == "0"


def test_a_group_in_order_has_its_attempts_beside_the_messages() -> None:
    two = ONE._replace(queue_offset=21)
    found = popped(ONE, two, startOffsetInfo="0 1 20", orderCountInfo="0 1 5;0 qo1%20 2")
    assert [one.attempts for one in found] == [2, 5]


@pytest.mark.parametrize(
    "fields", [{}, {"startOffsetInfo": "0 2 7"}, {"startOffsetInfo": "nonsense"}, {"popTime": "soon"}]
)
def test_an_answer_without_its_checkpoints_is_a_frame_error(fields: dict[str, str]) -> None:
    with pytest.raises(FrameError):
        popped(ONE, **fields)


def test_nothing_found_is_nothing() -> None:
    call = pop(NAMES, "*", "TAG", at_most=32, invisible=60.0, wait=5.0, attempt_id=None)
    assert answer(call, Frame(code=210, flag=1), "b:1") == []


@given(st.sets(st.integers(0, 4095), min_size=1))
def test_a_batch_of_acknowledgements_names_offsets_as_bits(distances: set[int]) -> None:
    checkpoint = Checkpoint("0", 1, 20, 1000, 60000, 3)
    handles = [PopHandle(checkpoint, 20 + distance, 0) for distance in distances]
    assert all(map(fits, handles))
    body = json.loads(ack_batch(NAMES, "broker-a", handles).body)
    (entry,) = body.pop("acks")
    assert body == {"brokerName": "broker-a"}
    bits = int.from_bytes(base64.b64decode(entry.pop("b")), "little")
    assert {bit for bit in range(4096) if bits >> bit & 1} == distances
    assert entry == {"c": "g", "t": "t", "r": "0", "so": 20, "q": 1, "rq": 3, "pt": 1000, "it": 60000}


def test_what_is_far_apart_is_acknowledged_alone() -> None:
    assert not fits(PopHandle(Checkpoint("0", 1, 20, 1000, 60000, 3), 20 + 4096, 0))


def test_a_changed_invisible_time_brings_another_checkpoint() -> None:
    handle = PopHandle(Checkpoint("1", 0, 20, 1000, 60000, 3), 25, 4711)
    call = change_invisible(NAMES, handle, "broker-a", 7.5)
    assert (call.fields["invisibleTime"], call.fields["offset"]) == ("7500", "25")
    assert call.fields["extraInfo"] == "20 1000 60000 3 1 broker-a 0 25"
    told = {"popTime": "2000", "invisibleTime": "7500", "reviveQid": "3"}
    changed = answer(call, Frame(code=0, flag=1, fields=told), "b:1")
    assert changed == PopHandle(Checkpoint("1", 0, 25, 2000, 7500, 3), 25, 4711)
    unsaid = {"popTime": "0", "invisibleTime": "0", "reviveQid": "0"}
    assert answer(call, Frame(code=0, flag=1, fields=unsaid), "b:1") == handle, "its queue has gone past it"


def settings(**config: Any) -> GroupSettings:
    body = json.dumps({"groupName": "g", **config}).encode()
    return answer(group_settings("g"), Frame(code=0, flag=1, body=body), "b:1")


def test_a_group_says_how_often_and_after_which_pauses() -> None:
    assert settings() == GroupSettings()
    assert (settings().pause(1), settings().pause(3), settings().pause(99)) == (1.0, 10.0, 7200.0)
    orderly = settings(consumeMessageOrderly=True, retryMaxTimes=2)
    assert (orderly.orderly, orderly.max_attempts) == (True, 3)
    listed = settings(groupRetryPolicy={"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": [2000, 4000]}})
    assert (listed.pause(1), listed.pause(2), listed.pause(3)) == (2.0, 4.0, 4.0)
    growing = {"initial": 5000, "max": 20000, "multiplier": 2}
    grown = settings(groupRetryPolicy={"type": "EXPONENTIAL", "exponentialRetryPolicy": growing})
    assert [grown.pause(attempt) for attempt in (1, 2, 3, 4)] == [5.0, 10.0, 20.0, 20.0]


def read(message: StoredMessage, limit: int = 1000) -> Message:
    return read_stored(message, "t", "broker-a", 9, attempts=message.attempts, limit=limit)


def test_a_message_in_the_gateways_form() -> None:
    properties = {
        "UNIQ_KEY": "ID", "TAGS": "tag", "KEYS": "k1 k2", "__SHARDINGKEY": "d1", "TIMER_DELIVER_MS": "12345",
        "traceparent": "00-1", "TRACE_CONTEXT": "ctx", "BORN_TIMESTAMP": "3", "mqtt.topic": "a/b", "WAIT": "true",
    }  # fmt: skip
    raw = "".join(f"{name}\x01{value}\x02" for name, value in properties.items()).encode()
    message = read(ONE._replace(raw_properties=raw, attempts=2))
    assert message.message_id == "ID"
    assert (message.tag, list(message.keys), message.group) == ("tag", ["k1", "k2"], "d1")
    assert (message.delivery_timestamp_ms, message.trace_context) == (12345, "ctx")
    assert dict(message.properties) == {"traceparent": "00-1", "mqtt.topic": "a/b"}
    assert (message.born_ns, message.stored_ns, message.received_ns) == (3_000_000, 6_000_000, 9)
    assert (message.attempt, message.queue, message.fault) == (3, "broker-a/1", None)


def test_a_message_without_an_id_is_known_by_its_place() -> None:
    message = read(ONE._replace(raw_properties=b""))
    assert (message.message_id, message.born_ns, message.keys) == ("broker-a/1/20", 5_000_000, ())


@pytest.mark.parametrize("kind", [0x001, 0x301], ids=["old", "zlib"])
def test_a_packed_body_is_unpacked(kind: int) -> None:
    packed = zlib.compress(b"x" * 500)
    message = ONE._replace(body=packed, system_flag=kind)
    assert (read(message).body, read(message).fault) == (b"x" * 500, None)
    assert read(message, limit=10).fault == "its packed body unpacks to more than 10 bytes"
    assert read(message._replace(body=packed[:-1])).fault == "its packed body is cut short"
    assert "damaged" in (read(message._replace(body=b"none")).fault or "")


def test_a_damaged_body_is_told() -> None:
    crc = zlib.crc32(ONE.body) & 0x7FFFFFFF
    assert read(ONE._replace(body_crc=crc)).fault is None
    assert "checksum" in (read(ONE._replace(body_crc=crc + 1)).fault or "")


def test_tags() -> None:
    assert tags_of("*") == tags_of("") == frozenset()
    assert tags_of("a || b||c") == {"a", "b", "c"}
