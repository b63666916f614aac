"""TLS towards the proxies: the PEM files, read and checked, and read again when they were renewed."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import grpc

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.core.tls import TlsOptions

# OpenSSL's reasons. The rest is the same for whatever does not parse.
_FILE_PROBLEMS = {"NO_CERTIFICATE_OR_CRL_FOUND": "no certificate in it", "KEY_VALUES_MISMATCH": "they do not match"}


def load_credentials(tls: TlsOptions) -> grpc.ChannelCredentials:
    """Read the PEM files. Blocking.

    :raises SinkMisconfigured: a file cannot be read, or something is asked for that gRPC for Python cannot do.
    """
    if not tls.verify:
        raise SinkMisconfigured(
            "rocketmq tls: verify = false is not possible with gRPC for Python. Put the server's own certificate "
            "into ca_file and the name it was issued for into server_name",
            reason="tls",
        )
    if tls.key_password is not None:
        raise SinkMisconfigured(
            "rocketmq tls: gRPC for Python reads no encrypted keys. Store key_file without a password "
            "(openssl pkey -in KEY -out PLAIN) and protect it by its file mode",
            reason="tls",
        )
    if (tls.cert_file is None) != (tls.key_file is None):
        raise SinkMisconfigured("rocketmq tls: cert_file and key_file go together", reason="tls")

    def read(path: str | None) -> bytes | None:
        try:
            return Path(path).read_bytes() if path is not None else None
        except OSError as error:
            raise SinkMisconfigured(f"rocketmq tls: {path}: {error.strerror}", reason="tls") from None

    credentials = grpc.ssl_channel_credentials(read(tls.ca_file), read(tls.key_file), read(tls.cert_file))
    load_context(tls)
    return credentials


def load_context(tls: TlsOptions) -> ssl.SSLContext:
    """The same files for connections that are not gRPC's own. Blocking.

    OpenSSL says what is wrong with a file; gRPC says no more of it than that it cannot make a handshaker.

    :raises SinkMisconfigured: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    files = tls.ca_file
    try:
        if tls.ca_file is not None:
            context.load_verify_locations(tls.ca_file)
        else:
            context.load_default_certs()
        if tls.cert_file is not None:
            files = f"{tls.cert_file} with {tls.key_file}"
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")  # a password, or it asks the terminal
    except ssl.SSLError as error:
        cause = _FILE_PROBLEMS.get(error.reason or "", "no PEM file, or an encrypted key")
        raise SinkMisconfigured(f"rocketmq tls: {files} cannot be used: {cause}", reason="tls") from None
    return context


class TlsFiles:
    """What new connections use. ``credentials`` and ``context`` are None without TLS, and until :meth:`load`."""

    def __init__(self, tls: TlsOptions | None) -> None:
        self.credentials: grpc.ChannelCredentials | None = None
        self.context: ssl.SSLContext | None = None
        self._tls = tls
        self._seen: tuple[tuple[int, int], ...] = ()
        self._read: tuple[tuple[int, int], ...] = ()
        """The same as ``_seen``, of ``context``: it is read anew for each connection, gRPC's credentials are not."""

    def load(self) -> bool:
        """Read the files if they changed since the last time, and say whether they did. Blocking.

        :raises SinkMisconfigured: see :func:`load_credentials`. What was read before stays in use.
        """
        if self._tls is None:
            return False
        seen = self._stamps(self._tls)
        if self.credentials is not None and seen == self._seen:
            return False
        credentials = load_credentials(self._tls)
        self.context = load_context(self._tls)
        self.credentials = credentials
        self._seen = self._read = seen
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
                self.context, self._read = load_context(self._tls), seen
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

        return tuple(stamp(path) for path in (tls.ca_file, tls.cert_file, tls.key_file) if path is not None)
