"""The compact form of a parent: its 26 bytes in base64url without padding, exactly 35 characters.

docs/wire-format.md specifies it. It is legal in an MQTT topic level and 36 % shorter than the text form.
"""

from binascii import a2b_base64, b2a_base64

from .errors import TraceContextError
from .traceparent import check

LENGTH = 35
"""Characters of the compact form."""

_LAST = frozenset("AEIMQUYcgkosw048")
"""Characters whose two spare bits are zero: 26 bytes are 208 bits, 35 characters are 210."""

try:
    a2b_base64("AAAA")
    _decode_base64 = a2b_base64
except TypeError:  # MicroPython's takes bytes only

    def _decode_base64(data: str) -> bytes:  # type: ignore[misc]
        return a2b_base64(data.encode())


def encode(raw: bytes) -> str:
    """The 35 characters for 26 bytes."""
    return b2a_base64(raw).decode()[:LENGTH].replace("+", "-").replace("/", "_")


def read(text: str) -> "bytes | None":
    """The 26 bytes for 35 characters of base64url with zero spare bits, unchecked otherwise; None for anything else."""
    try:
        if len(text) != LENGTH or text[34] not in _LAST or "+" in text or "/" in text:
            return None
        if "-" in text:
            text = text.replace("-", "+")
        if "_" in text:
            text = text.replace("_", "/")
        # The decoder skips characters it does not know; then there are fewer than 26 bytes, or none.
        raw = _decode_base64(text + "=")
    except Exception:  # noqa: BLE001 - MicroPython's library raises bare Exception where others raise binascii.Error
        return None
    return raw if len(raw) == 26 else None


def decode(text: str) -> bytes:
    """The 26 bytes for 35 characters.

    :raises TraceContextError: not 35 characters of base64url with zero spare bits, or version ff (problem
        ``malformed``), or an all-zero id (``zero_id``).
    """
    raw = read(text)
    if raw is None:
        raise TraceContextError("compact form: not 35 characters of base64url")
    return check(raw)
