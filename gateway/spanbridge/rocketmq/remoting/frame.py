"""Frames of RocketMQ's remoting protocol, between bytes and values. No I/O.

A frame is ``length(4) | header format(1) + header length(3) | header | body``, big-endian, the length not counting
itself (``RemotingCommand``). The header comes in two formats (``SerializeType``). A server reads both, and answers in
the one that it is set to: RocketMQ 5.5.0 answers in JSON, whatever the format of the request.

- JSON: an object with ``code``, ``language``, ``version``, ``opaque``, ``flag``, ``remark`` and ``extFields``
- binary (``RocketMQSerializable``): ``code(2) language(1) version(2) opaque(4) flag(4)``, the remark behind its length
  (4), and behind their length (4) the fields: each a name behind its length (2) and a value behind its length (4)

The binary header has two bytes for the code, so it carries no code above 32767 (POP requests have such codes).
"""

from __future__ import annotations

import hmac
import json
import struct
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from spanbridge.rocketmq.remoting.errors import FrameError

MAX_FRAME: Final = 16 * 1024 * 1024
"""Bytes; Netty's limit in client and server (``com.rocketmq.remoting.frameMaxLength``). The length itself counts."""
MAX_HEADER: Final = 1024 * 1024
"""Bytes. The longest header in use carries a message's properties (32 KiB) or a batch's message ids."""
PYTHON: Final = 3
"""``LanguageCode.PYTHON``"""
VERSION: Final = 513
"""``MQVersion.V5_5_0``. From V4_9_4 (401) on, name servers answer with plain JSON."""

_FLAG_RESPONSE: Final = 1
_FLAG_ONEWAY: Final = 2
_LANGUAGES: Final = (
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST",
    "NODE_JS",
)  # fmt: skip
_OTHER: Final = 7
_FIXED = struct.Struct(">hBhii")
_INT = struct.Struct(">i")
_SHORT = struct.Struct(">h")
_SHORT_RANGE: Final = range(-(2**15), 2**15)
_INT_RANGE: Final = range(-(2**31), 2**31)
_LONGEST_NAME: Final = 2**15 - 1


class HeaderFormat(IntEnum):
    """How the header is written; the value is the first byte of the second word."""

    JSON = 0
    BINARY = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One request or response. ``code`` is a request code or, in a response, a response code; ``opaque`` pairs both."""

    code: int
    opaque: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    remark: str | None = None
    flag: int = 0
    version: int = VERSION
    language: int = PYTHON
    header_format: HeaderFormat = HeaderFormat.BINARY

    @property
    def is_response(self) -> bool:
        """Whether it answers the request with the same ``opaque``."""
        return bool(self.flag & _FLAG_RESPONSE)

    @property
    def is_oneway(self) -> bool:
        """Whether the sender wants no response."""
        return bool(self.flag & _FLAG_ONEWAY)

    def response(self, code: int, *, remark: str | None = None, body: bytes = b"") -> Frame:
        """The response to this request, in its header format."""
        return Frame(
            code=code,
            opaque=self.opaque,
            remark=remark,
            body=body,
            flag=_FLAG_RESPONSE,
            header_format=self.header_format,
        )


@dataclass(frozen=True, slots=True)
class AclKeys:
    """Who asks, for clusters that want to know (ACL 1.0 and 2.0)."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)

    @classmethod
    def given(cls, access_key: str | None, secret_key: str | None, security_token: str | None) -> AclKeys | None:
        """The keys of a client's options; None where it has none."""
        return None if access_key is None or secret_key is None else cls(access_key, secret_key, security_token)


def signed(fields: Mapping[str, str], body: bytes, keys: AclKeys) -> dict[str, str]:
    """The fields with ``AccessKey``, ``SecurityToken`` and ``Signature`` added.

    The signature is the Base64 of the HMAC-SHA1, under the secret key, of the values of all other fields in the order
    of their names, and the body (``AclClientRPCHook``, ``AclUtils.combineRequestContent``, ``AclSigner``). Fields
    without a value are left out: servers read none there (``RocketMQSerializable``), and would sign "null" for it.
    """
    named = {name: value for name, value in fields.items() if value} | {"AccessKey": keys.access_key}
    if keys.security_token is not None:
        named["SecurityToken"] = keys.security_token
    named.pop("Signature", None)
    content = "".join(named[name] for name in sorted(named)).encode() + body
    signature = hmac.digest(keys.secret_key.encode(), content, "sha1")
    return {**named, "Signature": b64encode(signature).decode()}


def encode(frame: Frame) -> bytes:
    """The bytes of a frame.

    :raises FrameError: it does not fit the protocol: a code, a name or the whole is too large, or text is not Unicode.
    """
    try:
        header = _json_header(frame) if frame.header_format is HeaderFormat.JSON else _binary_header(frame)
    except UnicodeEncodeError as error:
        raise FrameError(f"a header holds text that is not Unicode: {error.reason}") from None
    except struct.error as error:
        raise FrameError(f"a number does not fit into a binary header: {error}") from None
    size = 4 + len(header) + len(frame.body)
    if len(header) > MAX_HEADER or 4 + size > MAX_FRAME:
        raise FrameError(
            f"a frame with a header of {len(header)} bytes and a body of {len(frame.body)} is larger than allowed "
            f"({MAX_HEADER} and {MAX_FRAME} bytes)"
        )
    return struct.pack(">iI", size, frame.header_format << 24 | len(header)) + header + frame.body


def _json_header(frame: Frame) -> bytes:
    header: dict[str, Any] = {
        "code": frame.code,
        "language": _LANGUAGES[frame.language if 0 <= frame.language < len(_LANGUAGES) else _OTHER],
        "version": frame.version,
        "opaque": frame.opaque,
        "flag": frame.flag,
    }
    if frame.remark is not None:
        header["remark"] = frame.remark
    if frame.fields:
        header["extFields"] = dict(frame.fields)
    return json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()


def _binary_header(frame: Frame) -> bytes:
    if int(frame.code) not in _SHORT_RANGE:  # looking for a member of an enumeration would count through the range
        raise FrameError(f"code {frame.code} does not fit into a binary header")
    fixed = _FIXED.pack(frame.code, frame.language, frame.version, frame.opaque, frame.flag)
    remark = (frame.remark or "").encode()
    fields = b"".join(_binary_field(name.encode(), value.encode()) for name, value in frame.fields.items())
    return b"".join((fixed, _INT.pack(len(remark)), remark, _INT.pack(len(fields)), fields))


def _binary_field(name: bytes, value: bytes) -> bytes:
    if len(name) > _LONGEST_NAME:
        raise FrameError(f"a header field's name has {len(name)} bytes, at most {_LONGEST_NAME} are possible")
    return _SHORT.pack(len(name)) + name + _INT.pack(len(value)) + value


class FrameDecoder:
    """Cuts a stream of bytes into frames. It holds at most one frame and what came with its end."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take what was received; return the frames that are complete.

        :raises FrameError: the peer does not speak this protocol. The stream cannot be read any further.
        """
        self._buffer += data
        frames, at, end = [], 0, len(self._buffer)
        while end - at >= 4:
            (size,) = _INT.unpack_from(self._buffer, at)
            if not 4 <= size <= MAX_FRAME - 4:
                raise FrameError(f"the peer does not speak RocketMQ's remoting protocol: a frame of {size} bytes")
            if end - at < 4 + size:
                break
            with memoryview(self._buffer) as view, view[at + 4 : at + 4 + size] as content:
                frames.append(decode(content))
            at += 4 + size
        del self._buffer[:at]
        return frames


def decode(content: bytes | memoryview) -> Frame:
    """A frame from what follows its length.

    :raises FrameError: that is not a frame.
    """
    if len(content) < 4:
        raise FrameError("a frame ends before its header's length")
    (word,) = struct.unpack_from(">I", content)
    written, size = word >> 24, word & 0xFFFFFF
    if size > min(MAX_HEADER, len(content) - 4):
        raise FrameError(f"a header of {size} bytes in a frame of {len(content)}")
    header, body = bytes(content[4 : 4 + size]), bytes(content[4 + size :])
    if written == HeaderFormat.JSON:
        return _from_json(header, body)
    if written == HeaderFormat.BINARY:
        return _from_binary(header, body)
    raise FrameError(f"a header in format {written}, which is not known")


def parse_json(data: bytes) -> Any:
    """A value from JSON.

    :raises FrameError: that is not JSON.
    """
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {type(error).__name__}") from None


def _from_json(header: bytes, body: bytes) -> Frame:
    values = parse_json(header)
    if not isinstance(values, dict):
        raise FrameError("a header that is not a JSON object")
    remark, language = values.get("remark"), values.get("language")
    fields = values.get("extFields") or {}
    if not isinstance(fields, dict):
        raise FrameError("header fields that are not a JSON object")
    return Frame(
        code=_number(values, "code", None),
        opaque=_number(values, "opaque", 0),
        flag=_number(values, "flag", 0),
        version=_number(values, "version", 0),
        language=_LANGUAGES.index(language) if language in _LANGUAGES else _OTHER,
        remark=None if remark is None else _unicode(remark),
        fields={_unicode(name): _unicode(value) for name, value in fields.items() if value is not None},
        body=body,
        header_format=HeaderFormat.JSON,
    )


def _number(values: dict[str, Any], name: str, default: int | None) -> int:
    value = values.get(name, default)
    if type(value) is not int or value not in _INT_RANGE:
        raise FrameError(f"a header whose {name} is not a number of 32 bits")
    return value


def _unicode(value: Any) -> str:
    """A field's value, which is text; escapes of half characters are not."""
    if not isinstance(value, str):
        raise FrameError("a header field that is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FrameError("a header field with half a character") from None
    return value


def _from_binary(header: bytes, body: bytes) -> Frame:
    try:
        code, language, version, opaque, flag = _FIXED.unpack_from(header)
        remark, at = _text(header, _FIXED.size, _INT)
        (size,) = _INT.unpack_from(header, at)
        at, end = at + _INT.size, at + _INT.size + size
        if size < 0 or end > len(header):
            raise FrameError("header fields that are longer than their header")
        fields = {}
        while at < end:
            name, at = _text(header, at, _SHORT)
            fields[name], at = _text(header, at, _INT)
    except struct.error:
        raise FrameError("a binary header that ends too early") from None
    except UnicodeDecodeError:
        raise FrameError("a binary header with text that is not UTF-8") from None
    if at != end:
        raise FrameError("a header field that is longer than all of them")
    return Frame(
        code=code,
        opaque=opaque,
        flag=flag,
        version=version,
        language=language,
        remark=remark or None,
        fields=fields,
        body=body,
    )


def _text(data: bytes, at: int, length: struct.Struct) -> tuple[str, int]:
    """Text behind its length, and where it ends."""
    (size,) = length.unpack_from(data, at)
    start = at + length.size
    if size < 0 or size > len(data) - start:
        raise FrameError("a text that is longer than its header")
    return data[start : start + size].decode(), start + size
