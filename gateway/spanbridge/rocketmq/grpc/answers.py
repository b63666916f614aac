"""Answers of the gRPC protocol, as judgements: RocketMQ's codes, and gRPC's own when no answer arrived."""

from __future__ import annotations

import re

from spanbridge.core.errors import SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable
from spanbridge.rocketmq.errors import ACCESS, CONTENT, Judgement, judge_name, judge_remark
from spanbridge.rocketmq.grpc.http2.status import GrpcStatus
from spanbridge.rocketmq.grpc.stubs import code_name, definition

_C = definition.Code

OK: int = _C.OK

UNDECODABLE = Judgement(
    SinkUnavailable, "undecodable", "Is this RocketMQ's proxy, and nothing in between that rewrites its answers?"
)

_GRPC: dict[GrpcStatus, Judgement] = {
    GrpcStatus.DEADLINE_EXCEEDED: Judgement(SinkUnavailable, "deadline_exceeded"),
    GrpcStatus.UNAVAILABLE: Judgement(SinkUnavailable, "unavailable"),
    GrpcStatus.RESOURCE_EXHAUSTED: Judgement(SinkThrottled, "resource_exhausted", "Sending slows down."),
    GrpcStatus.UNAUTHENTICATED: Judgement(SinkMisconfigured, "unauthenticated", ACCESS),
    GrpcStatus.PERMISSION_DENIED: Judgement(SinkMisconfigured, "permission_denied", ACCESS),
    GrpcStatus.UNIMPLEMENTED: Judgement(
        SinkMisconfigured, "unimplemented", "This is no gRPC proxy of RocketMQ 5: check the endpoint's port."
    ),
    GrpcStatus.INVALID_ARGUMENT: Judgement(SinkMisconfigured, "invalid_argument", "Check the configuration."),
}
TLS = Judgement(
    SinkMisconfigured,
    "tls",
    "Check that the endpoint speaks TLS, that ca_file holds its issuer, and server_name.",
)
_TOO_LARGE = re.compile(r"exceeds maximum size|larger than max|too large")


def judge_code(code: int, text: str) -> Judgement:
    """The judgement on a ``Code`` of RocketMQ with its text. Not for OK."""
    name = code_name(code)
    known = judge_name(name, text)
    if known is not None:
        return known
    # Unknown: what the server blames on the request is for an operator (the message is kept), the rest may pass.
    reason = name.lower() if code in _C.values() else "unknown_code"
    return Judgement(SinkMisconfigured if 40000 <= code < 50000 else SinkUnavailable, reason)


def judge_grpc(code: GrpcStatus, details: str) -> Judgement:
    """The judgement on a call that ended without a response of RocketMQ."""
    if code is GrpcStatus.INVALID_ARGUMENT:
        # What the proxy refuses of a consumer's settings it says in words alone.
        remark = judge_remark(details)
        if remark is not None:
            return remark
    if code is GrpcStatus.RESOURCE_EXHAUSTED and _TOO_LARGE.search(details):
        return Judgement(SinkRejected, "payload_too_large", CONTENT)
    return _GRPC.get(code) or Judgement(SinkUnavailable, code.name.lower())
