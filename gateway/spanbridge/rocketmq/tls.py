"""TLS towards RocketMQ, in both protocols: the PEM files, read and checked, and read again when they were renewed."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from pathlib import Path

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.core.tls import TlsOptions

# OpenSSL's reasons. The rest is the same for whatever does not parse.
_FILE_PROBLEMS = {"NO_CERTIFICATE_OR_CRL_FOUND": "no certificate in it", "KEY_VALUES_MISMATCH": "they do not match"}


def load_context(tls: TlsOptions, protocols: Sequence[str] = ()) -> ssl.SSLContext:
    """A context for connections that speak one of ``protocols`` (ALPN). Blocking.

    :raises SinkMisconfigured: a file cannot be used.
    """
    if (tls.cert_file is None) != (tls.key_file is None):
        raise SinkMisconfigured("rocketmq tls: cert_file and key_file go together", reason="tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # ca_file may hold the server's own certificate, whoever has issued it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    files = ""
    try:
        for files in _paths(tls):
            Path(files).open("rb").close()  # OpenSSL does not say which one it misses
        if tls.ca_file is not None:
            files = tls.ca_file
            context.load_verify_locations(files)
        elif tls.verify:
            context.load_default_certs()
        if tls.cert_file is not None:
            files = f"{tls.cert_file} with {tls.key_file}"
            password = tls.key_password or ""  # empty, not None: OpenSSL would ask on the terminal
            context.load_cert_chain(tls.cert_file, tls.key_file, lambda: password)
    except ssl.SSLError as error:
        cause = _FILE_PROBLEMS.get(error.reason or "", "no PEM file, or a key under another password")
        raise SinkMisconfigured(f"rocketmq tls: {files} cannot be used: {cause}", reason="tls") from None
    except OSError as error:
        raise SinkMisconfigured(f"rocketmq tls: {files} cannot be used: {error.strerror}", reason="tls") from None
    return context


def _paths(tls: TlsOptions) -> list[str]:
    return [path for path in (tls.ca_file, tls.cert_file, tls.key_file) if path is not None]


class TlsFiles:
    """What new connections use. ``context`` is None without TLS, and until :meth:`load`."""

    def __init__(self, tls: TlsOptions | None, protocols: Sequence[str] = ()) -> None:
        self.context: ssl.SSLContext | None = None
        self.server_name = None if tls is None else tls.server_name
        self._tls = tls
        self._protocols = protocols
        self._told: tuple[tuple[int, int], ...] | None = None
        """What :meth:`load` has seen last."""
        self._read: tuple[tuple[int, int], ...] | None = None
        """What ``context`` is made of."""

    def load(self) -> bool:
        """Read the files if they changed since the last time, and say whether they did. Blocking.

        :raises SinkMisconfigured: a file cannot be used. What was read before stays in use.
        """
        if self._tls is None:
            return False
        seen = self._stamps(self._tls)
        if seen == self._told:
            return False
        if seen != self._read:
            self.context, self._read = load_context(self._tls, self._protocols), seen
        self._told = seen
        return True

    def fresh(self) -> ssl.SSLContext | None:
        """The context from the files as they are now, None without TLS. Blocking.

        While a file cannot be used, which may be since it is being written, it is the former one.
        :meth:`load`, which comes first, tells of such a file.
        """
        if self._tls is None:
            return None
        assert self.context is not None, "None would mean: without TLS"
        seen = self._stamps(self._tls)
        if seen != self._read:
            with contextlib.suppress(SinkMisconfigured, OSError):
                self.context, self._read = load_context(self._tls, self._protocols), seen
        return self.context

    @staticmethod
    def _stamps(tls: TlsOptions) -> tuple[tuple[int, int], ...]:
        """Size and time of change of each file; of one that cannot be read, zeros."""

        def stamp(path: str) -> tuple[int, int]:
            try:
                status = Path(path).stat()
            except OSError:
                return 0, 0
            return status.st_size, status.st_mtime_ns

        return tuple(map(stamp, _paths(tls)))
