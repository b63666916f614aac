"""A spooled message as a JSON object that a person can read, and back."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

from spanbridge.core.message import Publish
from spanbridge.core.spooled import Spooled, SpooledError, TraceIds, encode


def to_json(spooled: Spooled) -> dict[str, Any]:
    """An object with what there is of a message. A payload that is no text is in ``payload_base64``."""
    publish = spooled.publish
    found: dict[str, Any] = {"topic": publish.topic, "qos": publish.qos}
    try:
        found["payload"] = publish.payload.decode()
    except UnicodeDecodeError:
        found["payload_base64"] = base64.b64encode(publish.payload).decode()
    data = publish.correlation_data
    more = {
        "retain": publish.retain or None,
        "received_ns": publish.received_ns,
        "spooled_ns": spooled.spooled_ns,
        "source": spooled.source or None,
        "user_properties": [list(pair) for pair in publish.user_properties] or None,
        "content_type": publish.content_type,
        "response_topic": publish.response_topic,
        "correlation_data_base64": None if data is None else base64.b64encode(data).decode(),
        "payload_format": publish.payload_format,
        "expiry": publish.expiry,
        "trace_id": None if spooled.trace is None else spooled.trace.trace_id.hex(),
        "process_span_id": None if spooled.trace is None else spooled.trace.process_id.hex(),
        "send_span_id": None if spooled.trace is None else spooled.trace.send_id.hex(),
        "fault": publish.fault,
        "reason": spooled.reason or None,
        "error": spooled.error or None,
    }
    return found | {name: value for name, value in more.items() if value is not None}


def from_json(found: Any) -> Spooled:
    """The message of such an object, to be sent again: its time in the spool begins anew, and its expiry is gone.

    :raises SpooledError: it is none.
    """
    try:
        spooled = _from_json(found)
        encode(spooled)  # what no spool can hold is told here, not where it is put into one
    except (KeyError, TypeError, ValueError, binascii.Error, AttributeError, struct.error) as error:
        raise SpooledError(f"is no message: {type(error).__name__}: {error}") from None
    return spooled


def _from_json(found: Any) -> Spooled:
    text = found.get("payload")
    payload = text.encode() if text is not None else base64.b64decode(found["payload_base64"], validate=True)
    data = found.get("correlation_data_base64")
    publish = Publish(
        str(found["topic"]),
        payload,
        qos=int(found.get("qos", 1)) & 3,
        retain=bool(found.get("retain", False)),
        user_properties=[(str(name), str(value)) for name, value in found.get("user_properties", ())],
        content_type=found.get("content_type"),
        response_topic=found.get("response_topic"),
        correlation_data=None if data is None else base64.b64decode(data, validate=True),
        payload_format=found.get("payload_format"),
        received_ns=int(found.get("received_ns", 0)),
        fault=found.get("fault"),
    )
    trace = None
    if "trace_id" in found:
        ids = (found["trace_id"], found["process_span_id"], found["send_span_id"])
        trace = TraceIds(*(bytes.fromhex(one) for one in ids))
        if tuple(map(len, trace)) != (16, 8, 8):
            raise ValueError("the ids of its spans are not 16, 8 and 8 bytes")
    return Spooled(publish, int(found.get("spooled_ns", 0)), trace, str(found.get("source", "")))
