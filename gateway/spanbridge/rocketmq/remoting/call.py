"""A request together with how to read its response, so that one description serves every kind of connection. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from spanbridge.rocketmq.remoting.codes import ResponseCode
from spanbridge.rocketmq.remoting.errors import FrameError, RemotingRefused, RemotingUnavailable
from spanbridge.rocketmq.remoting.frame import AclKeys, Frame, HeaderFormat, encode, signed

T = TypeVar("T")

_LARGEST_OPAQUE = 2**31 - 1
_LARGEST_BINARY_CODE = 2**15 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """``what`` completes "RocketMQ refused to"; ``read`` is given responses whose code is in ``accepted``.

    ``read`` may raise what comes of looking into JSON of another shape (``KeyError``, ``ValueError``, ...): it means
    that the response lacks what it should hold.
    """

    what: str
    code: int
    read: Callable[[Frame], T]
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    accepted: frozenset[int] = frozenset({ResponseCode.SUCCESS})


class CallWriter:
    """Numbers, signs and encodes the requests of one connection."""

    def __init__(self, keys: AclKeys | None, header_format: HeaderFormat) -> None:
        self._keys = keys
        self._format = header_format
        self._opaque = 0

    def write(self, call: Call[T]) -> tuple[int, bytes]:
        """The number that its response will carry, and the bytes to send.

        :raises FrameError: the request does not fit the protocol.
        """
        self._opaque = self._opaque % _LARGEST_OPAQUE + 1
        frame = Frame(
            code=call.code,
            opaque=self._opaque,
            fields=call.fields if self._keys is None else signed(call.fields, call.body, self._keys),
            body=call.body,
            header_format=self._format if call.code <= _LARGEST_BINARY_CODE else HeaderFormat.JSON,
        )
        return self._opaque, encode(frame)


def answer(call: Call[T], response: Frame, address: str) -> T:
    """What the response says.

    :raises RemotingRefused: its code is not one of those accepted.
    :raises RemotingUnavailable: the server is about to stop and did not handle the request.
    :raises FrameError: it lacks what it should hold.
    """
    if response.code == ResponseCode.GO_AWAY:
        raise RemotingUnavailable(f"RocketMQ at {address} stops and did not {call.what}", reason="go_away")
    if response.code not in call.accepted:
        raise RemotingRefused(call.what, address, response.code, response.remark)
    try:
        return call.read(response)
    except FrameError as error:
        raise FrameError(f"RocketMQ at {address}, asked to {call.what}: {error}") from None
    except (AttributeError, KeyError, IndexError, ValueError, TypeError) as error:
        raise FrameError(
            f"RocketMQ at {address}, asked to {call.what}, gave a response without what it should hold: "
            f"{type(error).__name__}"
        ) from None


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``; an IPv6 address stands in brackets.

    :raises ValueError: it is not of that form.
    """
    host, separator, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or not bare or (":" in bare) != (bare is not host) or not port.isascii() or not port.isdecimal():
        raise ValueError(f"{address!r} is not host:port")
    if not 0 < int(port) < 2**16:
        raise ValueError(f"{address!r} has no port between 1 and 65535")
    return bare, int(port)
