"""Who may see what: health and metrics are for all, every other page wants the token (ADR 0106)."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from enum import Enum

FREE = ("/livez", "/readyz", "/metrics")
"""Pages for probes and scrapers, which bring no token."""
CHALLENGE = 'Bearer, Basic realm="spanbridge", charset="UTF-8"'
"""What a request has to bring (RFC 9110 section 11.6.1). Basic is for browsers, which ask for no bearer token."""


class Denied(Enum):
    """Why a page is not shown."""

    CLOSED = "it needs a token where other machines can ask"
    WRONG = "the token is missing or wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The rule. With a token, it is wanted of everybody; without one, this machine alone sees what is not free.

    ``exposed`` says that other machines reach the server.
    """

    token: str | None = field(default=None, repr=False)
    exposed: bool = False

    def denied(self, path: str, authorization: str) -> Denied | None:
        """Why who brings this Authorization header may not see that page, or None."""
        if path in FREE:
            return None
        if self.token is None:
            return Denied.CLOSED if self.exposed else None
        # Compared in a time that tells nothing of the token.
        same = hmac.compare_digest(_brought(authorization), self.token.encode())
        return None if same else Denied.WRONG


OPEN = Access()
"""This machine sees everything."""


def _brought(authorization: str) -> bytes:
    """The token of a header: as it is (RFC 6750 section 2.1), or the password of any user (RFC 7617 section 2)."""
    scheme, _, given = authorization.partition(" ")
    given = given.strip()
    if scheme.lower() == "bearer":
        return given.encode()
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):  # ValueError: it is not ASCII
        return b""
