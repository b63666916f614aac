"""A throw-away certificate authority for TLS on loopback."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from spanbridge.devstack.errors import DevstackError
from spanbridge.installing import install_command


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: the authority, a server certificate for localhost and 127.0.0.1, and a client certificate."""

    ca_file: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path

    @classmethod
    def make(cls, directory: Path) -> Certificates:
        """Write a new set into ``directory``.

        Raises:
            DevstackError: the package trustme is not installed.
        """
        try:
            import trustme
        except ImportError as error:
            raise DevstackError("TLS needs the package trustme", hint=install_command("devstack")) from error

        directory.mkdir(parents=True, exist_ok=True)
        made = cls(*(directory / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key")))
        authority = trustme.CA()
        server = authority.issue_cert("localhost", "127.0.0.1")
        client = authority.issue_cert("client@spanbridge.test", common_name="spanbridge-client")
        authority.cert_pem.write_to_path(made.ca_file)
        for issued, certificate, key in (
            (server, made.server_cert, made.server_key),
            (client, made.client_cert, made.client_key),
        ):
            for part in issued.cert_chain_pems:
                part.write_to_path(certificate, append=certificate.exists())
            key.touch(mode=0o600)
            key.write_bytes(_pkcs8(issued.private_key_pem.bytes()))
        return made

    def client_context(self, *, with_certificate: bool) -> ssl.SSLContext:
        """A context for a client that trusts this authority, and shows the client certificate if asked to."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if with_certificate:
            context.load_cert_chain(self.client_cert, self.client_key)
        return context


def _pkcs8(pem: bytes) -> bytes:
    """The key in the form that Java reads (RFC 5208); trustme writes that of RFC 5915."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(pem, None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
