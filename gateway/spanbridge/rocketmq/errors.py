"""What RocketMQ answered, as an error that says what can be done about it.

Two vocabularies meet here: gRPC status codes, when no answer of RocketMQ arrived, and RocketMQ's own ``Code``
(definition.proto), inside a response. A proxy that runs inside the broker answers every refusal of the broker with
INTERNAL_SERVER_ERROR and the broker's remark as text (``LocalMessageService``), so the text has to be read for those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from grpc import StatusCode

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable
from spanbridge.rocketmq.grpc.stubs import code_name, definition

_C = definition.Code

OK: int = _C.OK


@dataclass(frozen=True, slots=True)
class Verdict:
    """How to treat an answer: the error's class, its reason, and what an operator can do."""

    error: type[SinkError]
    reason: str
    advice: str = ""


_CONTENT = "This message can never be stored as it is."
_ACCESS = "Check the access key, its secret, and that the account may publish (PUB) to the topic."
_CREATE = "Create the topic (mqadmin updateTopic) or correct the route."
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
    "UNAUTHORIZED": _ACCESS,
    "FORBIDDEN": "Check the topic's write permission and the account's rights.",
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


def _by_code() -> dict[int, Verdict]:
    table: dict[str, Verdict] = {}
    table |= {name: Verdict(SinkMisconfigured, name.lower(), advice) for name, advice in _MISCONFIGURED.items()}
    table |= {name: Verdict(SinkRejected, name.lower(), _CONTENT) for name in _REJECTED}
    table |= {name: Verdict(SinkUnavailable, name.lower(), advice) for name, advice in _UNAVAILABLE.items()}
    table |= {name: Verdict(SinkThrottled, name.lower(), "Sending slows down.") for name in _THROTTLED}
    known = dict(_C.items())
    return {known[name]: verdict for name, verdict in table.items() if name in known}


CODES = _by_code()

# Remarks of the broker (BrokerFastFailure, SendMessageProcessor, AbstractSendMessageProcessor), first match wins.
_REMARKS: tuple[tuple[re.Pattern[str], Verdict], ...] = tuple(
    (re.compile(pattern), verdict)
    for pattern, verdict in (
        (
            r"_CLEAN_QUEUE\]|PC_SYNCHRONIZED\]|REJECTREQUEST\]|broker busy|flow control",
            Verdict(SinkThrottled, "broker_busy", "Sending slows down."),
        ),
        (
            r"message is illegal|timer message illegal|length too long|size exceed",
            Verdict(SinkRejected, "message_illegal", _CONTENT),
        ),
        (r"topic\[.*\] not exist|No topic route info", Verdict(SinkMisconfigured, "topic_not_found", _CREATE)),
        (
            r"is forbidden|[Nn]o permission|not has permission",
            Verdict(SinkMisconfigured, "forbidden", _MISCONFIGURED["FORBIDDEN"]),
        ),
        (
            r"disk is full|service not available|SERVICE_NOT_AVAILABLE",
            Verdict(SinkUnavailable, "store_unavailable", "Look at the broker's disk and store."),
        ),
        (
            r"in-sync replicas not enough",
            Verdict(SinkUnavailable, "replicas_not_enough", "Look at the broker's replicas."),
        ),
    )
)

_GRPC: dict[StatusCode, Verdict] = {
    StatusCode.DEADLINE_EXCEEDED: Verdict(SinkUnavailable, "deadline_exceeded"),
    StatusCode.UNAVAILABLE: Verdict(SinkUnavailable, "unavailable"),
    StatusCode.RESOURCE_EXHAUSTED: Verdict(SinkThrottled, "resource_exhausted", "Sending slows down."),
    StatusCode.UNAUTHENTICATED: Verdict(SinkMisconfigured, "unauthenticated", _ACCESS),
    StatusCode.PERMISSION_DENIED: Verdict(SinkMisconfigured, "permission_denied", _ACCESS),
    StatusCode.UNIMPLEMENTED: Verdict(
        SinkMisconfigured, "unimplemented", "This is no gRPC proxy of RocketMQ 5: check the endpoint's port."
    ),
    StatusCode.INVALID_ARGUMENT: Verdict(SinkMisconfigured, "invalid_argument", "Check the configuration."),
}
_TLS = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|[Hh]andshake|SSL_ERROR|certificate|Hostname Verification"
)
_TLS_VERDICT = Verdict(
    SinkMisconfigured,
    "tls",
    "Check that the endpoint speaks TLS, that ca_file holds its issuer, and server_name.",
)
_GONE = re.compile(r"expected type is UNSPECIFIED")
_NOISE = re.compile(
    r"\b(?:[a-z]+\.)+[A-Z]\w*(?:Exception|Error): |\bCODE: \d+ +DESC: "
    r"|\s+For more information, please visit the url, \S+"
)
_UNRESOLVED = re.compile(r"Domain name not found|errors resolving|DNS resolution|lookup failed")
# gRPC's words for a connection that did not come about, in an operator's. First match wins.
_PLAIN = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"WRONG_VERSION_NUMBER", "there is no TLS on this port"),
        (r"CERTIFICATE_VERIFY_FAILED: ([\w -]+)", "its certificate is not accepted, {0}"),
        (r"Hostname Verification Check failed", "its certificate was issued for another name"),
        (r"Connection refused", "connection refused, nothing listens there"),
        (_UNRESOLVED.pattern, "the name does not resolve"),
        (r"Deadline Exceeded", "no answer in time"),
        (r"before receiving SETTINGS frame", "it takes connections and does not answer"),
        (r"Failed parsing HTTP/2|not an HTTP/2", "it does not speak gRPC. Is this the port of RocketMQ's proxy?"),
        (r"connection attempt timed out|Timeout occurred|timed out", "it does not take connections"),
        (r"No route to host|Network is unreachable", "there is no way to that host"),
        (r"Socket closed|Connection reset|GOAWAY|Broken pipe", "it closed the connection"),
    )
)
_TOO_LARGE = re.compile(r"exceeds maximum size|larger than max|too large")


def judge_code(code: int, text: str) -> Verdict:
    """The verdict on a ``Code`` of RocketMQ with its text. Not for OK."""
    if code == _C.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE and _GONE.search(text):
        code = _C.TOPIC_NOT_FOUND  # deleted since its route was learnt: the broker knows no type of it any more
    if code in {_C.INTERNAL_SERVER_ERROR, _C.INTERNAL_ERROR}:
        for pattern, verdict in _REMARKS:
            if pattern.search(text):
                return verdict
    verdict_or_none = CODES.get(code)
    if verdict_or_none is not None:
        return verdict_or_none
    # Unknown: what the server blames on the request is for an operator (the message is kept), the rest may pass.
    name = code_name(code).lower() if code in _C.values() else "unknown_code"
    if 40000 <= code < 50000:
        return Verdict(SinkMisconfigured, name)
    return Verdict(SinkUnavailable, name)


def clean(text: str) -> str:
    """A server's text without Java class names and links that tell an operator nothing."""
    return _NOISE.sub("", text)


def plain(details: str) -> str:
    """Why a connection did not come about, without the addresses and layers that gRPC wraps it in."""
    for pattern, words in _PLAIN:
        found = pattern.search(details)
        if found:
            return words.format(*found.groups())
    return clean(details)


def unresolved(details: str) -> bool:
    """Whether a call failed because the endpoint's name does not resolve."""
    return _UNRESOLVED.search(details) is not None


def judge_grpc(code: StatusCode, details: str) -> Verdict:
    """The verdict on a call that ended without a response of RocketMQ."""
    if code is StatusCode.UNAVAILABLE and _TLS.search(details):
        return _TLS_VERDICT
    if code is StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.search(details):
        return Verdict(SinkRejected, "payload_too_large", _CONTENT)
    return _GRPC.get(code) or Verdict(SinkUnavailable, code.name.lower())


def build(verdict: Verdict, what: str, endpoint: str, cause: str) -> SinkError:
    """The error itself. ``what`` names the request and topic, ``cause`` is already redacted."""
    advice = f" {verdict.advice}" if verdict.advice else ""
    return verdict.error(f"RocketMQ at {endpoint}, {what}: {cause.rstrip('. ')}.{advice}", reason=verdict.reason)
