"""The TLS context of a connection, and what OpenSSL says in words.

Making a context reads files and blocks: not for the event loop.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from spanbridge.core.errors import SourceError
from spanbridge.core.tls import TlsOptions


def client_context(options: TlsOptions) -> ssl.SSLContext:
    """A client context, TLS 1.2 or later.

    :raises SourceError: a file is missing, not PEM, encrypted under another password, or key and certificate do not
        belong together. The text names the file.
    """
    context = ssl.create_default_context(cafile=None)
    if options.ca_file is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load(context.load_verify_locations, "ca_file", options.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.cert_file is not None:
        _load_own(context, options, options.cert_file)
    elif options.key_file is not None:
        raise SourceError("tls.key_file is set without tls.cert_file", reason="tls_config")
    return context


def _load_own(context: ssl.SSLContext, options: TlsOptions, cert_file: str) -> None:
    password = options.key_password or ""  # empty, not None: OpenSSL would ask on the terminal
    try:
        context.load_cert_chain(cert_file, options.key_file, lambda: password)
    except OSError as error:
        files = f"tls.cert_file {cert_file!r}" + (f", tls.key_file {options.key_file!r}" if options.key_file else "")
        raise SourceError(f"{files}: {_cause(error)}", reason="tls_config") from None


def _load(load: Callable[[str], None], what: str, path: str) -> None:
    try:
        load(path)
    except OSError as error:
        raise SourceError(f"tls.{what} {path!r}: {_cause(error)}", reason="tls_config") from None


def _cause(error: OSError) -> str:
    """One line."""
    if isinstance(error, ssl.SSLError):
        return tls_cause(error, "not a usable PEM file")
    return error.strerror or str(error)


def tls_cause(error: ssl.SSLError, default: str = "handshake failure") -> str:
    """What OpenSSL found, in words: the text of an ``ssl.SSLError`` repeats library names and line numbers."""
    return (error.reason or default).replace("_", " ").lower()
