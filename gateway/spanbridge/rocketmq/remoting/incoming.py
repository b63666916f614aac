"""Stored messages, in the gateway's own form. No I/O."""

from __future__ import annotations

import zlib
from typing import Any, Final, NamedTuple

from spanbridge.core.message import Message
from spanbridge.rocketmq.packed import unpack
from spanbridge.rocketmq.remoting.stored import StoredMessage

_COMPRESSED: Final = 0x1  # MessageSysFlag
_CRC: Final = 0x7FFFFFFF  # UtilAll.crc32
_SYSTEM: Final = frozenset((
    "TRACE_ON", "MSG_REGION", "KEYS", "TAGS", "WAIT", "DELAY", "RETRY_TOPIC", "REAL_TOPIC", "REAL_QID", "TRAN_MSG",
    "PGROUP", "MIN_OFFSET", "MAX_OFFSET", "BUYER_ID", "ORIGIN_MESSAGE_ID", "TRANSFER_FLAG", "CORRECTION_FLAG",
    "MQ2_FLAG", "RECONSUME_TIME", "UNIQ_KEY", "MAX_RECONSUME_TIMES", "CONSUME_START_TIME", "POP_CK", "POP_CK_OFFSET",
    "1ST_POP_TIME", "TRAN_PREPARED_QUEUE_OFFSET", "DUP_INFO", "EXTEND_UNIQ_INFO", "INSTANCE_ID", "CORRELATION_ID",
    "REPLY_TO_CLIENT", "TTL", "ARRIVE_TIME", "PUSH_REPLY_TIME", "CLUSTER", "MSG_TYPE", "INNER_MULTI_QUEUE_OFFSET",
    "TIMER_DELAY_MS", "TIMER_DELAY_SEC", "TIMER_DELIVER_MS", "TIMER_ENQUEUE_MS", "TIMER_DEQUEUE_MS",
    "TIMER_ROLL_TIMES", "TIMER_OUT_MS", "TIMER_DEL_UNIQKEY", "TIMER_DELAY_LEVEL", "__BORNHOST", "BORN_TIMESTAMP",
    "DLQ_ORIGIN_TOPIC", "DLQ_ORIGIN_MESSAGE_ID", "__CRC32#",
    # Not in the list of the proxy, which gives these as properties of users:
    "INNER_NUM", "INNER_BASE", "INNER_MULTI_DISPATCH", "__SHARDINGKEY", "TRACE_CONTEXT", "TRANSACTION_CHECK_TIMES",
    "__transactionId__", "CHECK_IMMUNITY_TIME_IN_SECONDS",
))  # fmt: skip
"""Properties that are RocketMQ's own (``MessageConst.STRING_HASH_SET``, and some more)."""


class Incoming(NamedTuple):
    """One message as it came: what answers it (each way of receiving has its own), and its earlier deliveries.

    ``place`` is given where the message of each place is to be answered, whatever other places hold the same one.
    """

    stored: StoredMessage
    handle: Any
    attempts: int
    place: str = ""


def read_stored(
    stored: StoredMessage, topic: str, broker: str, received_ns: int, *, attempts: int, limit: int
) -> Message:
    """The message that was stored. ``topic`` is the one received from; that of a retried message may be another.

    A body that is damaged or cannot be unpacked is left as it is, and ``fault`` says so. ``limit`` bounds what it may
    unpack to, in bytes. Hot path.
    """
    properties = stored.properties
    get = properties.get
    body, fault = stored.body, None
    if stored.body_crc and zlib.crc32(body) & _CRC != stored.body_crc:
        fault = "its body does not have the checksum that it was stored with"
    elif stored.system_flag & _COMPRESSED:
        body, fault = unpack(body, limit)
    keys, due = get("KEYS"), get("TIMER_DELIVER_MS")
    queue = f"{broker}/{stored.queue_id}"
    return Message(
        topic,
        body,
        get("UNIQ_KEY") or f"{queue}/{stored.queue_offset}",
        get("TAGS") or None,
        keys.split(" ") if keys else (),
        get("__SHARDINGKEY") or None,
        int(due) if due is not None and due.isdecimal() else None,
        {name: value for name, value in properties.items() if name not in _SYSTEM},
        get("TRACE_CONTEXT") or None,
        _born_ms(get("BORN_TIMESTAMP"), stored.born_ms) * 1_000_000,
        stored.store_ms * 1_000_000,
        received_ns,
        attempts + 1,
        queue,
        fault,
    )


def _born_ms(written: str | None, stored: int) -> int:
    """A batch has one time of birth; its messages may tell their own."""
    return int(written) if written is not None and written.isdecimal() and written.isascii() else stored


def tags_of(expression: str) -> frozenset[str]:
    """The tags of a tag expression, none for all (``FilterAPI``)."""
    if expression.strip() in {"", "*"}:
        return frozenset()
    return frozenset(tag for part in expression.split("||") if (tag := part.strip()))
