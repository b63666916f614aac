"""Errors and response codes of the remoting protocol, as judgements. No I/O."""

from __future__ import annotations

from typing import Final

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable
from spanbridge.rocketmq.errors import (
    ACCESS,
    CONTENT,
    NAMES,
    Judgement,
    build,
    clean,
    judge_access,
    judge_remark,
    which_part,
)
from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode, response_name
from spanbridge.rocketmq.remoting.errors import FrameError, RemotingError, RemotingRefused
from spanbridge.rocketmq.remoting.frame import AclKeys

_HIDDEN: Final = "***"

_CODES: Final[dict[int, Judgement]] = {
    ResponseCode.SYSTEM_ERROR: Judgement(SinkUnavailable, "system_error"),
    ResponseCode.SYSTEM_BUSY: Judgement(SinkThrottled, "broker_busy", "Sending slows down."),
    ResponseCode.FLOW_CONTROL: Judgement(SinkThrottled, "broker_busy", "Sending slows down."),
    ResponseCode.REQUEST_CODE_NOT_SUPPORTED: Judgement(
        SinkMisconfigured, "unimplemented", "This is no name server or broker: check the port."
    ),
    ResponseCode.MESSAGE_ILLEGAL: Judgement(SinkRejected, "message_illegal", CONTENT),
    ResponseCode.SERVICE_NOT_AVAILABLE: Judgement(
        SinkUnavailable, "store_unavailable", "Look at the broker's disk, store and role."
    ),
    ResponseCode.NO_PERMISSION: Judgement(
        SinkMisconfigured, "forbidden", f"Check the topic's and the broker's write permission. {ACCESS}"
    ),
    ResponseCode.TOPIC_NOT_EXIST: NAMES["TOPIC_NOT_FOUND"],
    ResponseCode.SUBSCRIPTION_PARSE_FAILED: NAMES["ILLEGAL_FILTER_EXPRESSION"],
    ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST: NAMES["CONSUMER_GROUP_NOT_FOUND"],
    ResponseCode.NO_MESSAGE: NAMES["INVALID_RECEIPT_HANDLE"],
    ResponseCode.POLLING_FULL: NAMES["TOO_MANY_REQUESTS"],
}
_BY_CODE: Final = frozenset({ResponseCode.SYSTEM_BUSY, ResponseCode.FLOW_CONTROL, ResponseCode.TOPIC_NOT_EXIST})
"""Codes that say all; of others, the remark may say more."""
_OF_ACCESS: Final = frozenset({ResponseCode.NO_PERMISSION, ResponseCode.SYSTEM_ERROR})
"""Codes under which brokers refuse somebody: with ACL 2.0, and with ACL 1.0."""
_RIGHTS: Final[dict[int, str]] = {
    RequestCode.SEND_MESSAGE_V2: "PUB",
    RequestCode.SEND_BATCH_MESSAGE: "PUB",
    RequestCode.GET_SUBSCRIPTIONGROUP_CONFIG: "GET",
}
_LOST: Final[dict[str, Judgement]] = {
    "timeout": Judgement(SinkUnavailable, "deadline_exceeded"),
    "tls": Judgement(
        SinkMisconfigured, "tls", "Check that the port speaks TLS, that ca_file holds its issuer, and server_name."
    ),
    "go_away": Judgement(SinkUnavailable, "go_away"),
}
_GONE: Final = Judgement(SinkUnavailable, "unavailable")
_UNDECODABLE: Final = Judgement(
    SinkUnavailable, "undecodable", "Is this a name server or broker of RocketMQ, and not its gRPC proxy?"
)


def right_for(code: int) -> str:
    """The action that an account needs for a request with this code."""
    return _RIGHTS.get(code, "SUB")


def judge(
    error: RemotingError,
    what: str,
    address: str,
    keys: AclKeys | None,
    body_size: int | None = None,
    *,
    right: str = "PUB",
) -> SinkError:
    """A remoting error as the sink's. ``body_size`` is of the one message that was sent, None for a batch.

    ``right`` is what the request takes.
    """
    if isinstance(error, RemotingRefused):
        text = clean(redacted(error.remark, keys))
        cause = f"{response_name(error.code)} ({text})" if text else response_name(error.code)
        return build(_of_code(error, body_size, right), what, address, cause)
    judgement = _UNDECODABLE if isinstance(error, FrameError) else _LOST.get(error.reason, _GONE)
    return build(judgement, what, address, str(error))


def _of_code(error: RemotingRefused, body_size: int | None, right: str) -> Judgement:
    known = _CODES.get(error.code) or Judgement(SinkUnavailable, error.reason)
    judgement = known if error.code in _BY_CODE else judge_remark(error.remark) or known
    if error.code in _OF_ACCESS:
        judgement = judge_access(error.remark, right) or judgement
    return judgement if body_size is None else which_part(judgement, error.remark, body_size)


def redacted(text: str, keys: AclKeys | None) -> str:
    """A server's words without our secrets."""
    for secret in (keys.secret_key, keys.security_token) if keys is not None else ():
        if secret:
            text = text.replace(secret, _HIDDEN)
    return text
