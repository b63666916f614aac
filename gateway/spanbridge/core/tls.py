"""What a connection over TLS is told, whichever peer it goes to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """TLS towards a peer. Paths are PEM files; ``ca_file`` None means the system's certificate authorities.

    ``cert_file`` and ``key_file`` are the client's own (mutual TLS). ``server_name`` is the name that the
    certificate must carry when it differs from the host connected to. ``verify`` false accepts any certificate.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = field(default=None, repr=False)
    server_name: str | None = None
    verify: bool = True
