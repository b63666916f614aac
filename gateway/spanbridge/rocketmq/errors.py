"""What RocketMQ answered, as an error that says what can be done about it. Both protocols stand on this.

RocketMQ's own words are the names of ``Code`` (definition.proto) and the remarks of its brokers. A proxy that
runs inside the broker answers every refusal of the broker with INTERNAL_SERVER_ERROR and the broker's remark as text
(``LocalMessageService``), so the text has to be read for those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable


@dataclass(frozen=True, slots=True)
class Judgement:
    """How to treat an answer: the error's class, its reason, and what an operator can do."""

    error: type[SinkError]
    reason: str
    advice: str = ""


CONTENT = "This message can never be stored as it is."
ACCESS = (
    "Check the access key, its secret, and that the account may publish (PUB) to the topic, or with a downlink receive "
    "(SUB) from it and by its consumer group."
)
_CREATE = "Create the topic (mqadmin updateTopic) or correct the route."
_GROUP = "Create the consumer group (mqadmin updateSubGroup) or correct its name."
_FILTER = "Correct the filter."
NO_GROUP = "consumer_group_not_found"
_TYPE = (
    "The topic's message.type does not fit: a message group needs FIFO, a delivery timestamp DELAY, neither NORMAL "
    "(mqadmin updateTopic -a +message.type=...)."
)

_MISCONFIGURED: dict[str, str] = {
    "ILLEGAL_ACCESS_POINT": "Correct the endpoints.",
    "ILLEGAL_TOPIC": "Correct the route's topic.",
    "TOPIC_NOT_FOUND": _CREATE,
    "NOT_FOUND": _CREATE,
    "MESSAGE_PROPERTY_CONFLICT_WITH_TYPE": _TYPE,
    "CONSUMER_GROUP_NOT_FOUND": _GROUP,
    "ILLEGAL_CONSUMER_GROUP": "Correct the consumer group.",
    "ILLEGAL_FILTER_EXPRESSION": _FILTER,
    "ILLEGAL_POLLING_TIME": "The proxy wants longer polls (grpcClientConsumerMinLongPollingTimeoutMillis).",
    "ILLEGAL_INVISIBLE_TIME": "The proxy wants another invisible time (minInvisibleTimeMillsForRecv).",
    "INVALID_RECEIPT_HANDLE": "",
    "UNAUTHORIZED": ACCESS,
    "FORBIDDEN": "Check the topic's permission (mqadmin updateTopicPerm) and the account's rights: PUB, with a "
    "downlink SUB.",
    "PAYMENT_REQUIRED": "The account is suspended.",
    "NOT_IMPLEMENTED": "The server does not know this request: RocketMQ 5 with a gRPC proxy is needed.",
    "UNSUPPORTED": "The server does not support this request.",
    "VERSION_UNSUPPORTED": "The server's version does not support this request.",
}
_REJECTED = (
    "ILLEGAL_MESSAGE_TAG", "ILLEGAL_MESSAGE_KEY", "ILLEGAL_MESSAGE_GROUP", "ILLEGAL_MESSAGE_PROPERTY_KEY",
    "ILLEGAL_MESSAGE_ID", "ILLEGAL_DELIVERY_TIME", "MESSAGE_CORRUPTED", "PAYLOAD_TOO_LARGE", "MESSAGE_BODY_TOO_LARGE",
    "MESSAGE_BODY_EMPTY", "REQUEST_HEADER_FIELDS_TOO_LARGE", "MESSAGE_PROPERTIES_TOO_LARGE",
)  # fmt: skip
# Stored, but not as safely as the cluster is configured to: not a success.
_LESS_SAFE = {
    "HA_NOT_AVAILABLE": "Stored on the master, but no replica was there to take it.",
    "MASTER_PERSISTENCE_TIMEOUT": "The broker did not flush to disk in time.",
    "SLAVE_PERSISTENCE_TIMEOUT": "The replica did not confirm in time.",
}
STORED_ANYWAY = frozenset(map(str.lower, _LESS_SAFE))
"""Reasons with which each try leaves another copy in RocketMQ."""
_UNAVAILABLE: dict[str, str] = {
    "REQUEST_TIMEOUT": "",
    "INTERNAL_ERROR": "",
    "INTERNAL_SERVER_ERROR": "",
    "PROXY_TIMEOUT": "The proxy got no answer from the broker in time.",
    **_LESS_SAFE,
}
_THROTTLED = ("TOO_MANY_REQUESTS", "LITE_TOPIC_QUOTA_EXCEEDED", "LITE_SUBSCRIPTION_QUOTA_EXCEEDED")


CONNECTION_AT_FAULT = frozenset({"tls", "unauthenticated", "unimplemented", "invalid_argument", "undecodable"})
"""Reasons that concern a connection, whatever the topic."""


def _by_name() -> dict[str, Judgement]:
    table: dict[str, Judgement] = {}
    table |= {name: Judgement(SinkMisconfigured, name.lower(), advice) for name, advice in _MISCONFIGURED.items()}
    table |= {name: Judgement(SinkRejected, name.lower(), CONTENT) for name in _REJECTED}
    table |= {name: Judgement(SinkUnavailable, name.lower(), advice) for name, advice in _UNAVAILABLE.items()}
    table |= {name: Judgement(SinkThrottled, name.lower(), "Sending slows down.") for name in _THROTTLED}
    return table


NAMES = _by_name()
"""Judgements by the name of a ``Code``."""

# Remarks of the broker (BrokerFastFailure, SendMessageProcessor, AbstractSendMessageProcessor, HookUtils), first match
# wins. Those that name no part may mean the body or the properties: `which_part` tells.
_REMARKS: tuple[tuple[re.Pattern[str], Judgement], ...] = tuple(
    (re.compile(pattern), judgement)
    for pattern, judgement in (
        (
            r"_CLEAN_QUEUE\]|PC_SYNCHRONIZED\]|REJECTREQUEST\]|broker busy|flow control",
            Judgement(SinkThrottled, "broker_busy", "Sending slows down."),
        ),
        (r"timer message illegal", Judgement(SinkRejected, "illegal_delivery_time", CONTENT)),
        (
            r"accurate timer message is not enabled|because timerWheelEnable is false",
            Judgement(SinkMisconfigured, "timer_disabled", "Set timerWheelEnable=true at the broker."),
        ),
        # A topic with cleanup.policy=COMPACTION takes no message without a key.
        (r"Required message key is missing", Judgement(SinkRejected, "illegal_message_key", CONTENT)),
        (r"topic length( is)? too long", Judgement(SinkRejected, "illegal_topic", CONTENT)),
        (
            r"body (size|length) exceed|body must be less|body is null",
            Judgement(SinkRejected, "message_body_too_large", CONTENT),
        ),
        (
            r"properties (size|length) (exceed|is too long)|PROPERTIES_SIZE_EXCEEDED",
            Judgement(SinkRejected, "message_properties_too_large", CONTENT),
        ),
        (r"message is illegal|length too long|size exceed", Judgement(SinkRejected, "message_illegal", CONTENT)),
        (
            r"topic\[.*\] not exist|No topic route info|does not exist in request process",
            Judgement(SinkMisconfigured, "topic_not_found", _CREATE),
        ),
        (
            r"message store.*so putMessage is forbidden|disk is full|mapped file failed"
            r"|service not available|SERVICE_NOT_AVAILABLE",
            Judgement(SinkUnavailable, "store_unavailable", "Look at the broker's disk and store."),
        ),
        (r"subscription group.* not exist|group not found", Judgement(SinkMisconfigured, NO_GROUP, _GROUP)),
        (
            r"parse the consumer's subscription failed|not support consumer to filter message by SQL",
            Judgement(SinkMisconfigured, "illegal_filter_expression", _FILTER),
        ),
        (
            r"is forbidden|[Nn]o permission|not has permission",
            Judgement(SinkMisconfigured, "forbidden", _MISCONFIGURED["FORBIDDEN"]),
        ),
        (
            r"in-sync replicas not enough",
            Judgement(SinkUnavailable, "replicas_not_enough", "Look at the broker's replicas."),
        ),
    )
)
# Refusals of ACL 2.0, all under one code: of rights (AclAuthorizationHandler), and of who asks (DefaultAuthentication-
# Handler). Proxies give both as UNAUTHORIZED (ResponseBuilder), brokers as NO_PERMISSION (AuthorizationPipeline).
# Those of ACL 1.0 (PlainPermissionManager) come as SYSTEM_ERROR.
_NO_RIGHT = re.compile(
    r"(?:has no permission to access|No default permission for) (Topic|Group|Cluster):", re.IGNORECASE
)
_NOT_KNOWN = re.compile(
    r"[Cc]heck signature failed|username cannot be null|User:.* (?:is not found|not found|is disabled)"
    r"|No accessKey is configured|No acl config for |No PlainAccessResource for "
)
_BODY_LIMIT = re.compile(r"body length limit (\d+)B")
_GONE = re.compile(r"expected type is UNSPECIFIED")
_NOISE = re.compile(
    r"\b(?:[a-z]+\.)+[A-Z]\w*(?:Exception|Error): |\bCODE: \d+ +DESC: "
    r"|\s+For more information, please visit the url, \S+"
    r"|, (?:[a-z]+\.)+[\w$.]+\(\w+\.java:\d+\)$"
)


def judge_name(name: str, text: str) -> Judgement | None:
    """The judgement on an answer by the name of its code and its text; None for a name that is not known."""
    if name == "MESSAGE_PROPERTY_CONFLICT_WITH_TYPE" and _GONE.search(text):
        name = "TOPIC_NOT_FOUND"  # deleted since its route was learnt: the broker knows no type of it any more
    if name in {"INTERNAL_SERVER_ERROR", "INTERNAL_ERROR"}:
        remark = judge_remark(text)
        if remark is not None:
            return remark
    return NAMES.get(name)


def judge_access(text: str, right: str) -> Judgement | None:
    """The judgement on a refusal of ACL 1.0 or 2.0, or None for other words.

    ``right`` is the action that was wanted (``PUB``, ``SUB``, ``GET``): RocketMQ names the resource alone.
    """
    if resource := _NO_RIGHT.search(text):
        what = {"Topic": "the topic", "Group": "the consumer group", "Cluster": "the cluster"}[resource[1].capitalize()]
        how = "mqadmin createAcl, with RocketMQ 4 updateAclConfig"
        return Judgement(SinkMisconfigured, "forbidden", f"The account needs {right} on {what} ({how}).")
    return NAMES["UNAUTHORIZED"] if _NOT_KNOWN.search(text) else None


def judge_remark(text: str) -> Judgement | None:
    """The judgement on a remark of a broker, or None when it says nothing that is known."""
    return next((judgement for pattern, judgement in _REMARKS if pattern.search(text)), None)


def which_part(judgement: Judgement, text: str, body_size: int) -> Judgement:
    """``judgement`` on one message, with the part at fault named.

    A broker has one remark for a body and for properties that are too long, and names its limit for the body in it
    (``SendMessageProcessor.handlePutMessageResult``). A remark without a limit is left as it is.
    """
    limit = _BODY_LIMIT.search(text)
    if judgement.reason != "message_illegal" or limit is None:
        return judgement
    part = "message_body_too_large" if body_size > int(limit[1]) else "message_properties_too_large"
    return Judgement(judgement.error, part, judgement.advice)


def clean(text: str) -> str:
    """A server's text without Java class names and links that tell an operator nothing."""
    return _NOISE.sub("", text)


def name_others(error: SinkError, others: Iterable[str]) -> None:
    """Have the text of an error name what others answered before: the last one is not always the one to look after."""
    error.args = ("; before that: ".join((str(error), *others)),)


def build(judgement: Judgement, what: str, endpoint: str, cause: str) -> SinkError:
    """The error itself. ``what`` names the request and topic, ``cause`` is already redacted."""
    advice = f" {judgement.advice}" if judgement.advice else ""
    return judgement.error(f"RocketMQ at {endpoint}, {what}: {cause.rstrip('. ')}.{advice}", reason=judgement.reason)
