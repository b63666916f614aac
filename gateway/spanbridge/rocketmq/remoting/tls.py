"""TLS towards name servers and brokers: the PEM files, read again when they were renewed. Making a context blocks."""

from __future__ import annotations

import ssl
from pathlib import Path

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.core.tls import TlsOptions


class RemotingTls:
    """What new connections use. ``context`` is None without TLS, and until :meth:`load`."""

    def __init__(self, tls: TlsOptions | None) -> None:
        self.context: ssl.SSLContext | None = None
        self.server_name = None if tls is None else tls.server_name
        self._tls = tls
        self._seen: tuple[tuple[int, int], ...] = ()

    def load(self) -> bool:
        """Read the files if they changed since the last time, and say whether they did. Blocking.

        :raises SinkMisconfigured: a file cannot be used. What was read before stays in use.
        """
        if self._tls is None:
            return False
        seen = tuple(_stamp(path) for path in (self._tls.ca_file, self._tls.cert_file, self._tls.key_file) if path)
        if self.context is not None and seen == self._seen:
            return False
        self.context = _context(self._tls)
        self._seen = seen
        return True


def _context(tls: TlsOptions) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    files = tls.ca_file
    try:
        if tls.ca_file is not None:
            context.load_verify_locations(tls.ca_file)
        elif tls.verify:
            context.load_default_certs()
        if tls.cert_file is not None:
            files = f"{tls.cert_file} with {tls.key_file}"
            password = tls.key_password or ""  # empty, not None: OpenSSL would ask on the terminal
            context.load_cert_chain(tls.cert_file, tls.key_file, lambda: password)
    except OSError as error:  # ssl.SSLError is one
        cause = error.strerror if not isinstance(error, ssl.SSLError) else None
        cause = cause or "not a usable PEM file, or a key under another password"
        raise SinkMisconfigured(f"rocketmq tls: {files} cannot be used: {cause}", reason="tls") from None
    return context


def _stamp(path: str) -> tuple[int, int]:
    """Size and time of change; of a file that cannot be read, zeros."""
    try:
        status = Path(path).stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
