"""What ends a connection, or keeps it from coming about."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl

CLOSED = "it closed the connection"

# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH (x509_vfy.h).
_OTHER_NAME = frozenset({62, 64})
# OpenSSL's reasons. An alert is what the peer says.
_TLS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|HTTP_REQUEST", "there is no TLS on this port"),
        (r"ALERT_CERTIFICATE_REQUIRED", "it wants a certificate of ours: see cert_file, key_file"),
        (r"ALERT_(?:BAD_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA)", "it does not accept our certificate: see cert_file"),
        (r"UNEXPECTED_EOF", CLOSED),
    )
)
_NUMBERS = {
    errno.ECONNREFUSED: "connection refused, nothing listens there",
    errno.EHOSTUNREACH: "there is no way to that host",
    errno.ENETUNREACH: "there is no way to that host",
    errno.ETIMEDOUT: "it does not take connections",
}
_NUMBER = re.compile(r"\[Errno (\d+)\]")


class Http2Error(Exception):
    """The peer broke the protocol, or a limit of ours. The text is for an operator."""


class Unconnected(Exception):  # noqa: N818 - a state
    """There is no connection. The text is for an operator; ``tls`` says that certificates or TLS are to blame."""

    def __init__(self, cause: str, *, tls: bool = False) -> None:
        super().__init__(cause)
        self.tls = tls


def unconnected(error: Exception) -> Unconnected:
    """Why a connection did not come about."""
    if isinstance(error, UnicodeError | socket.gaierror):
        return Unconnected("the name does not resolve")
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return Unconnected(_NUMBERS[error.errno])
    several = _NUMBER.findall(str(error))  # of a name with several addresses
    if several and int(several[-1]) in _NUMBERS:
        return Unconnected(_NUMBERS[int(several[-1])])
    return Unconnected(broken(error), tls=isinstance(error, ssl.SSLError))


def broken(error: Exception | None) -> str:
    """Why a connection ended, in an operator's words. None is an end without an error."""
    if error is None or isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return CLOSED
    if isinstance(error, ssl.SSLError):
        return _of_tls(error)
    if isinstance(error, OSError) and error.errno:
        return f"the connection broke, {os.strerror(error.errno)}"
    return f"the connection broke, {' '.join(str(error).split())}"


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return "its certificate was issued for another name"
        return f"its certificate is not accepted, {error.verify_message}"
    reason = (error.reason or str(error)).replace(" ", "_").upper()
    known = next((said for pattern, said in _TLS if pattern.search(reason)), None)
    return known or f"TLS failed, {' '.join(str(error).split())}"
