"""Answers of the gRPC protocol, as judgements: RocketMQ's codes, and gRPC's own when no answer arrived."""

from __future__ import annotations

import re

from grpc import StatusCode

from spanbridge.core.errors import SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable
from spanbridge.rocketmq.errors import ACCESS, CONTENT, Judgement, clean, judge_access, judge_name, judge_remark
from spanbridge.rocketmq.grpc.stubs import code_name, definition

_C = definition.Code

OK: int = _C.OK

UNDECODABLE = Judgement(
    SinkUnavailable, "undecodable", "Is this RocketMQ's proxy, and nothing in between that rewrites its answers?"
)

_GRPC: dict[StatusCode, Judgement] = {
    StatusCode.DEADLINE_EXCEEDED: Judgement(SinkUnavailable, "deadline_exceeded"),
    StatusCode.UNAVAILABLE: Judgement(SinkUnavailable, "unavailable"),
    StatusCode.RESOURCE_EXHAUSTED: Judgement(SinkThrottled, "resource_exhausted", "Sending slows down."),
    StatusCode.UNAUTHENTICATED: Judgement(SinkMisconfigured, "unauthenticated", ACCESS),
    StatusCode.PERMISSION_DENIED: Judgement(SinkMisconfigured, "permission_denied", ACCESS),
    StatusCode.UNIMPLEMENTED: Judgement(
        SinkMisconfigured, "unimplemented", "This is no gRPC proxy of RocketMQ 5: check the endpoint's port."
    ),
    StatusCode.INVALID_ARGUMENT: Judgement(SinkMisconfigured, "invalid_argument", "Check the configuration."),
}
_TLS = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|[Hh]andshake|SSL_ERROR|certificate|Hostname Verification"
)
_TLS_JUDGEMENT = Judgement(
    SinkMisconfigured,
    "tls",
    "Check that the endpoint speaks TLS, that ca_file holds its issuer, and server_name.",
)
_UNRESOLVED = re.compile(r"Domain name not found|errors resolving|DNS resolution|lookup failed")
_CLOSED = "it closed the connection"
# gRPC's words for a connection that did not come about, in an operator's. First match wins.
_PLAIN = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"WRONG_VERSION_NUMBER", "there is no TLS on this port"),
        (r"CERTIFICATE_VERIFY_FAILED: ([\w -]+)", "its certificate is not accepted, {0}"),
        (r"ALERT_CERTIFICATE_REQUIRED", "it wants a certificate of ours: see cert_file, key_file"),
        (r"ALERT_(?:BAD_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA)", "it does not accept our certificate: see cert_file"),
        (r"Hostname Verification Check failed", "its certificate was issued for another name"),
        (r"Connection refused", "connection refused, nothing listens there"),
        (_UNRESOLVED.pattern, "the name does not resolve"),
        (r"Deadline Exceeded", "no answer in time"),
        (r"before receiving SETTINGS frame", "it takes connections and does not answer"),
        (r"Failed parsing HTTP/2|not an HTTP/2", "it does not speak gRPC. Is this the port of RocketMQ's proxy?"),
        (r"connection attempt timed out|Timeout occurred|timed out", "it does not take connections"),
        (r"No route to host|Network is unreachable", "there is no way to that host"),
        (r"Socket closed|Connection reset|GOAWAY|Broken pipe", _CLOSED),
    )
)
_TOO_LARGE = re.compile(r"exceeds maximum size|larger than max|too large")


def judge_code(code: int, text: str, right: str = "PUB") -> Judgement:
    """The judgement on a ``Code`` of RocketMQ with its text. Not for OK. ``right`` is what the request needs."""
    name = code_name(code)
    known = (judge_access(text, right) if code == _C.UNAUTHORIZED else None) or judge_name(name, text)
    if known is not None:
        return known
    # Unknown: what the server blames on the request is for an operator (the message is kept), the rest may pass.
    reason = name.lower() if code in _C.values() else "unknown_code"
    return Judgement(SinkMisconfigured if 40000 <= code < 50000 else SinkUnavailable, reason)


def plain(details: str, *, greeting: bool = False) -> str:
    """Why a connection did not come about, without the addresses and layers that gRPC wraps it in.

    ``greeting``: it is over TLS and nobody has answered on it yet. TLS 1.3 servers look at a client's certificate after
    the client is through, and often close without a word.
    """
    found = _plain(details)
    return f"{found}: it may want a certificate of ours, or refuse it" if greeting and found == _CLOSED else found


def _plain(details: str) -> str:
    for pattern, words in _PLAIN:
        found = pattern.search(details)
        if found:
            return words.format(*found.groups())
    return clean(details)


def unresolved(details: str) -> bool:
    """Whether a call failed because the endpoint's name does not resolve."""
    return _UNRESOLVED.search(details) is not None


def judge_grpc(code: StatusCode, details: str) -> Judgement:
    """The judgement on a call that ended without a response of RocketMQ."""
    if code is StatusCode.UNAVAILABLE and _TLS.search(details):
        return _TLS_JUDGEMENT
    if code is StatusCode.INVALID_ARGUMENT:
        # What the proxy refuses of a consumer's settings it says in words alone.
        remark = judge_remark(details)
        if remark is not None:
            return remark
    if code is StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.search(details):
        return Judgement(SinkRejected, "payload_too_large", CONTENT)
    return _GRPC.get(code) or Judgement(SinkUnavailable, code.name.lower())
