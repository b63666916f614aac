"""What RocketMQ 5 accepts as names and properties: pure functions for configuration, mapping and both protocols.

The rules are those of the 5.5.0 proxy and broker: ``Validators.checkTopic`` and ``TopicValidator`` for topics,
``SendMessageActivity`` and ``GrpcValidator`` of the gRPC proxy for everything else, ``MessageConst`` for reserved
property names. Limits are the proxy's defaults (``ProxyConfig``); an operator may have changed them there.
"""

from __future__ import annotations

import re
from hashlib import blake2s
from typing import NamedTuple

from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Destination

MAX_TOPIC_LENGTH = 127
"""Characters; ``Validators.TOPIC_MAX_LENGTH``."""
MAX_CONSUMER_GROUP_LENGTH = 255
"""Characters; ``Validators.CHARACTER_MAX_LENGTH``."""
MAX_MESSAGE_GROUP_BYTES = 63
"""UTF-8 bytes; the proxy refuses 64 and more (``maxMessageGroupSize``)."""
MAX_USER_PROPERTIES = 128
"""Entries; ``userPropertyMaxNum``."""
MAX_PROPERTIES_BYTES = 16 * 1024
"""UTF-8 bytes of all user property names and values, the tag and the keys together; ``maxUserPropertySize``."""
MAX_BODY_BYTES = 4 * 1024 * 1024
"""Bytes; ``maxMessageSize``, until the server's settings say otherwise."""

_TOPIC = re.compile(r"[%|a-zA-Z0-9_-]+")
_NOT_TOPIC = re.compile(r"[^a-zA-Z0-9_-]")
# Guava's CharMatcher.javaIsoControl, which the proxy applies: C0, DEL and C1.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_WHITESPACE = re.compile(r"\s+")

_SYSTEM_TOPICS = frozenset({
    "TBW102", "SCHEDULE_TOPIC_XXXX", "BenchmarkTest", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRACE_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC", "TRANS_CHECK_MAX_TIME_TOPIC", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT",
    "CHECKPOINT_TOPIC",
})  # fmt: skip
_SYSTEM_TOPIC_PREFIX = "rmq_sys_"
_SYSTEM_GROUP_PREFIX = "CID_RMQ_SYS_"

# MessageConst.STRING_HASH_SET: the proxy answers ILLEGAL_MESSAGE_PROPERTY_KEY.
_REFUSED_NAMES = frozenset({
    "TRACE_ON", "MSG_REGION", "KEYS", "TAGS", "WAIT", "DELAY", "RETRY_TOPIC", "ORIGIN_GROUP", "REAL_TOPIC",
    "REAL_QID", "TRAN_MSG", "PGROUP", "MIN_OFFSET", "MAX_OFFSET", "BUYER_ID", "ORIGIN_MESSAGE_ID", "TRANSFER_FLAG",
    "CORRECTION_FLAG", "MQ2_FLAG", "RECONSUME_TIME", "UNIQ_KEY", "MAX_RECONSUME_TIMES", "CONSUME_START_TIME",
    "POP_CK", "POP_CK_OFFSET", "1ST_POP_TIME", "TRAN_PREPARED_QUEUE_OFFSET", "DUP_INFO", "EXTEND_UNIQ_INFO",
    "INSTANCE_ID", "CORRELATION_ID", "REPLY_TO_CLIENT", "TTL", "ARRIVE_TIME", "PUSH_REPLY_TIME", "CLUSTER",
    "MSG_TYPE", "INNER_MULTI_QUEUE_OFFSET", "TIMER_DELAY_MS", "TIMER_DELAY_SEC", "TIMER_DELIVER_MS",
    "TIMER_ENQUEUE_MS", "TIMER_DEQUEUE_MS", "TIMER_ROLL_TIMES", "TIMER_OUT_MS", "TIMER_DEL_UNIQKEY",
    "TIMER_DELAY_LEVEL", "__BORNHOST", "BORN_TIMESTAMP", "DLQ_ORIGIN_TOPIC", "DLQ_ORIGIN_MESSAGE_ID", "__CRC32#",
    "_SYS_MSG_PRIORITY_", "__LITE_TOPIC",
})  # fmt: skip
# Let through by the proxy, yet they have a meaning to the broker: they would change type, queue or lifetime.
_DANGEROUS_NAMES = frozenset({
    "__SHARDINGKEY", "TRACE_CONTEXT", "__transactionId__", "TRANSACTION_CHECK_TIMES",
    "CHECK_IMMUNITY_TIME_IN_SECONDS", "INNER_NUM", "INNER_BASE", "INNER_MULTI_DISPATCH", "REDIRECT",
    "PROPERTY_FORWARD_QUEUE_ID",
})  # fmt: skip
RESERVED_PROPERTY_NAMES = _REFUSED_NAMES | _DANGEROUS_NAMES
_TRANSIENT_PREFIX = "__RMQ.TRANSIENT."

ILLEGAL_PROPERTY = "illegal_message_property_key"
PROPERTIES_TOO_LARGE = "message_properties_too_large"
PROPERTIES_AT_FAULT = frozenset({
    ILLEGAL_PROPERTY, PROPERTIES_TOO_LARGE, "request_header_fields_too_large", "message_illegal",
})  # fmt: skip
"""Reasons of ``SinkRejected`` where the same message without (some of) its properties may be taken."""
BODY_AT_FAULT = frozenset({"message_body_too_large", "payload_too_large", "message_body_empty", "message_illegal"})
"""Reasons of ``SinkRejected`` where the same message with another body may be taken."""
DESTINATION_AT_FAULT = frozenset({
    "illegal_topic", "illegal_message_tag", "illegal_message_key", "illegal_message_group", "illegal_delivery_time",
})  # fmt: skip
"""Reasons of ``SinkRejected`` where another destination may take the message."""


class Breach(NamedTuple):
    """A rule of RocketMQ's that a destination or a message breaks.

    ``reason`` is the stable word for metrics, ``text`` one line for the log, ``property_name`` the property at fault,
    None when the fault is elsewhere.
    """

    reason: str
    text: str
    property_name: str | None = None

    def error(self) -> SinkRejected:
        """The breach as an error."""
        return SinkRejected(self.text, reason=self.reason)


def topic_problem(topic: str) -> str | None:
    """Why ``topic`` cannot be a RocketMQ topic to send to, or None."""
    problem = received_topic_problem(topic)
    if problem is None and topic.startswith(("%RETRY%", "%DLQ%")):
        return "is a retry or dead-letter topic, which takes no batches"
    return problem


def received_topic_problem(topic: str) -> str | None:
    """Why ``topic`` cannot be a RocketMQ topic to receive from, or None. Dead letters may be received."""
    problem = _name_problem(topic, MAX_TOPIC_LENGTH)
    if problem is None and (topic in _SYSTEM_TOPICS or topic.startswith(_SYSTEM_TOPIC_PREFIX)):
        return "is a system topic"
    return problem


def consumer_group_problem(group: str) -> str | None:
    """Why ``group`` cannot be a consumer group, or None (``Validators.checkGroup``, ``GrpcValidator``)."""
    problem = _name_problem(group, MAX_CONSUMER_GROUP_LENGTH)
    if problem is None and group.startswith(_SYSTEM_GROUP_PREFIX):
        return "is a consumer group of RocketMQ's own"
    return problem


def _name_problem(name: str, longest: int) -> str | None:
    if not name:
        return "is empty"
    if len(name) > longest:
        return f"has {len(name)} characters, more than {longest}"
    if _TOPIC.fullmatch(name) is None:
        return "has characters other than letters, digits, '_', '-', '%' and '|'"
    return None


def tag_filter_problem(expression: str) -> str | None:
    """Why ``expression`` is no tag expression (``*``, or tags with ``||`` between them), or None: ``FilterAPI``."""
    if expression == "*":
        return None
    problems = (tag_problem(tag.strip()) for tag in expression.split("||"))
    return next((f"has a tag that {problem}" for problem in problems if problem is not None), None)


def sanitise_topic(text: str) -> str:
    """``text`` with everything outside ``[A-Za-z0-9_-]`` replaced by ``_``; at most 127 characters.

    ``%`` and ``|`` are legal, but written for namespaces and retry topics, so text from outside loses them. What is
    too long keeps its start and ends in a digest, so that two long names stay two. Otherwise two texts can become
    one: the caller checks its configured names for that.
    """
    name = _NOT_TOPIC.sub("_", text) or "_"
    if len(name) <= MAX_TOPIC_LENGTH:
        return name
    digest = blake2s(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return f"{name[: MAX_TOPIC_LENGTH - 17]}_{digest}"


def tag_problem(tag: str) -> str | None:
    """Why ``tag`` is not legal, or None. An empty tag is no tag, which the caller expresses by None."""
    if not tag.strip():
        return "is blank"
    if "|" in tag:
        return "contains '|'"
    return _text_problem(tag)


def sanitise_tag(text: str) -> str | None:
    """``text`` with ``|`` and control characters replaced by ``_``; None when nothing is left."""
    tag = _CONTROL.sub("_", text.replace("|", "_")).strip()
    return encodable(tag) or None


def key_problem(key: str) -> str | None:
    """Why ``key`` is not legal, or None. RocketMQ joins keys with blanks, so one that holds a blank becomes two."""
    if not key:
        return "is empty"
    if _WHITESPACE.search(key):
        return "contains white space, which separates keys"
    return _text_problem(key)


def sanitise_key(text: str) -> str | None:
    """``text`` with white space and control characters replaced by ``_``; None when nothing is left."""
    key = _CONTROL.sub("_", _WHITESPACE.sub("_", text.strip()))
    return encodable(key) or None


def group_problem(group: str) -> str | None:
    """Why ``group`` cannot be a message group, or None."""
    if not group.strip():
        return "is blank"
    problem = _text_problem(group)
    if problem is None and len(group.encode()) > MAX_MESSAGE_GROUP_BYTES:
        problem = f"has more than {MAX_MESSAGE_GROUP_BYTES} bytes"
    return problem


def sanitise_group(text: str) -> str | None:
    """A legal message group for ``text``, the same for the same text; None when the text is blank.

    MQTT topics may be far longer than a message group: what does not fit keeps its start and ends in a digest of
    the whole, so that two devices never share a group by being cut.
    """
    group = encodable(_CONTROL.sub("_", text))
    if not group.strip():
        return None
    raw = group.encode()
    if len(raw) <= MAX_MESSAGE_GROUP_BYTES:
        return group
    digest = blake2s(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
    start = raw[: MAX_MESSAGE_GROUP_BYTES - 17].decode("utf-8", "ignore")
    return f"{start}~{digest}"


def property_name_problem(name: str) -> str | None:
    """Why ``name`` cannot be the name of a user property, or None."""
    if not name:
        return "is empty"
    if name in RESERVED_PROPERTY_NAMES or name.startswith(_TRANSIENT_PREFIX):
        return "is reserved by RocketMQ"
    return _text_problem(name)


def property_value_problem(value: str) -> str | None:
    """Why ``value`` cannot be the value of a user property, or None."""
    return _text_problem(value)


def property_breach(name: str, value: str) -> Breach | None:
    """Why RocketMQ cannot carry a property, or None."""
    if problem := property_name_problem(name):
        return Breach(ILLEGAL_PROPERTY, f"property {name[:80]!r} {problem}", name)
    if problem := property_value_problem(value):
        return Breach(ILLEGAL_PROPERTY, f"the value of property {name[:80]!r} {problem}", name)
    return None


def property_loss(name: str, value: str) -> str | None:
    """Why a property would not arrive at a consumer, or None.

    Besides what is refused: RocketMQ takes an empty value, and does not store the property (its proxy and broker parse
    properties with ``MessageDecoder.string2messageProperties``, which skips entries without a value).
    """
    breach = property_breach(name, value)
    if breach is not None:
        return breach.text
    return None if value else f"the value of property {name[:80]!r} is empty, and RocketMQ does not store it"


def destination_breach(destination: Destination) -> Breach | None:
    """The first rule that what is fixed about a destination breaks, or None. Shared by both protocols."""
    named = (
        ("illegal_topic", "topic", destination.topic, topic_problem(destination.topic)),
        *((("illegal_message_tag", "tag", tag, tag_problem(tag)),) if (tag := destination.tag) is not None else ()),
        *(("illegal_message_key", "key", key, key_problem(key)) for key in destination.keys),
        *(
            (("illegal_message_group", "message group", group, group_problem(group)),)
            if (group := destination.group) is not None
            else ()
        ),
    )
    for reason, what, text, problem in named:
        if problem is not None:
            return Breach(reason, f"{what} {text[:80]!r} {problem}")
    for name, value in destination.properties:
        if breach := property_breach(name, value):
            return breach
    if len(destination.properties) > MAX_USER_PROPERTIES or fixed_size(destination) > MAX_PROPERTIES_BYTES:
        return properties_too_large(destination.topic)
    return None


def check_destination(destination: Destination) -> None:
    """Apply RocketMQ's rules to what is fixed about a destination.

    :raises SinkRejected: naming the part at fault.
    """
    if breach := destination_breach(destination):
        raise breach.error()


def fixed_size(destination: Destination) -> int:
    """UTF-8 bytes of a destination that count towards :data:`MAX_PROPERTIES_BYTES`: tag, keys and properties."""
    texts = (destination.tag or "", *destination.keys, *(text for pair in destination.properties for text in pair))
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def properties_too_large(topic: str) -> Breach:
    """A message for ``topic`` has too many properties, or too long ones."""
    text = f"topic {topic!r}: more than {MAX_USER_PROPERTIES} properties or {MAX_PROPERTIES_BYTES} bytes of them"
    return Breach(PROPERTIES_TOO_LARGE, text)


def body_breach(topic: str, size: int, limit: int) -> Breach | None:
    """Why a body of ``size`` bytes cannot be sent where the cluster takes at most ``limit``, or None."""
    if not size:
        return Breach("message_body_empty", f"topic {topic!r}: RocketMQ refuses empty bodies")
    if size > limit:
        text = f"topic {topic!r}: a body of {size} bytes is over the cluster's limit of {limit}"
        return Breach("message_body_too_large", text)
    return None


def header_problem(text: str) -> str | None:
    """Why ``text`` (namespace, access key, session token) cannot go into a request's headers, or None."""
    if not text.isascii() or not text.isprintable() or " " in text or "," in text:
        return "may hold printable ASCII only, no blanks and no commas"
    return None


def encodable(text: str) -> str:
    """``text`` with lone surrogates, which UTF-8 cannot carry, replaced by ``?``."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _text_problem(text: str) -> str | None:
    # str.isprintable is the cheap first look: it is false for every control character and every surrogate.
    if text.isprintable():
        return None
    if _CONTROL.search(text):
        return "contains a control character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "contains a lone surrogate, which UTF-8 cannot carry"
    return None
