"""Errors of the remoting protocol. Each message is one line: what was asked, of whom, and what came of it."""

from __future__ import annotations

from spanbridge.core.errors import SpanbridgeError
from spanbridge.rocketmq.remoting.codes import ResponseCode, response_name

_LONGEST_REMARK = 300
"""Characters of a remark that help to understand it. The broker puts stack traces into some."""


class RemotingError(SpanbridgeError):
    """Base of what this package raises."""

    reason = "remoting"


class FrameError(RemotingError):
    """Bytes that are not this protocol, or something that does not fit into it."""

    reason = "protocol"


class RemotingUnavailable(RemotingError):  # noqa: N818 - named for the state, as the field does
    """Nobody answered: refused, closed, or the deadline passed. A new connection may help."""

    reason = "unavailable"


class RemotingRefused(RemotingError):  # noqa: N818
    """The server answered with another code than those that the request allows for.

    ``code`` is its response code, ``remark`` its explanation on one line.
    """

    reason = "refused"

    def __init__(self, what: str, address: str, code: int, remark: str | None) -> None:
        self.code = code
        self.remark = one_line(remark or "")
        explained = f"{self.remark} ({response_name(code)})" if self.remark else response_name(code)
        super().__init__(f"RocketMQ at {address} refused to {what}: {explained}", reason=_reason(code))


def one_line(text: str) -> str:
    """``text`` on one line, without control characters, and cut when it is long."""
    text = text[: 4 * _LONGEST_REMARK]  # a frame may bring 16 MiB of it
    line = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST_REMARK else f"{line[:_LONGEST_REMARK]}..."


def _reason(code: int) -> str | None:
    try:
        return ResponseCode(code).name.lower()
    except ValueError:
        return None
