"""The metadata that goes with every request, signed when access keys are set."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from hashlib import sha1

from spanbridge import __version__
from spanbridge.core.errors import SinkMisconfigured
from spanbridge.core.rocketmq_rules import encodable, header_problem
from spanbridge.rocketmq.grpc.http2 import hpack
from spanbridge.rocketmq.options import RocketmqOptions

Metadata = tuple[tuple[str, str], ...]

_HIDDEN = "***"


class Credentials:
    """Writes request metadata; never shows what it knows.

    The signature is ``MQv2-HMAC-SHA1``: HMAC-SHA1 of the ``x-mq-date-time`` header under the secret key, in hex
    (``DefaultAuthenticationContextBuilder`` in apache/rocketmq is the judge). It changes once a second, so it is made
    once a second.

    :raises SinkMisconfigured: namespace, access key or session token cannot be sent in a header.
    """

    __slots__ = ("_base", "_block", "_counter", "_made", "_options", "_second", "_wall")

    def __init__(self, options: RocketmqOptions, client_id: str, wall: Callable[[], float] = time.time) -> None:
        for name in ("namespace", "access_key", "security_token"):
            if problem := header_problem(getattr(options, name) or ""):
                raise SinkMisconfigured(f"rocketmq {name}: {problem}", reason="illegal_header")
        base = [
            # Parsed as LanguageCode by the proxy, which knows PYTHON and answers an error to names it does not know.
            ("x-mq-language", "PYTHON"),
            ("x-mq-protocol", "v2"),
            ("x-mq-client-version", __version__),
            ("x-mq-client-id", client_id),
        ]
        if options.namespace:
            base.append(("x-mq-namespace", options.namespace))
        if options.security_token:
            base.append(("x-mq-session-token", options.security_token))
        self._base = tuple(base)
        self._options = options
        self._wall = wall
        self._second = -1
        self._made: Metadata = ()
        self._block = b""
        self._counter = 0

    def __repr__(self) -> str:
        return "Credentials(***)"

    def metadata(self) -> Metadata:
        """Headers for one request."""
        return (*self._made_now(), self._number())

    def block(self) -> bytes:
        """The same as a header block."""
        self._made_now()
        return self._block + hpack.encode((self._number(),))

    def _made_now(self) -> Metadata:
        second = int(self._wall())
        if second != self._second:
            self._made = self._make(second)
            self._block = hpack.encode(self._made)
            self._second = second
        return self._made

    def _number(self) -> tuple[str, str]:
        self._counter += 1
        return "x-mq-request-id", f"{self._second:x}-{self._counter:x}"

    def redact(self, text: str) -> str:
        """``text`` on one line, at most 300 characters, without any secret that a server may have echoed."""
        for secret in (self._options.secret_key, self._options.security_token):
            if secret:
                text = text.replace(secret, _HIDDEN)
        line = " ".join(encodable(text).split())
        return line if len(line) <= 300 else line[:297] + "..."

    def _make(self, second: int) -> Metadata:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        made = (*self._base, ("x-mq-date-time", stamp))
        access, secret = self._options.access_key, self._options.secret_key
        if not access or not secret:
            return made
        # SHA-1 is what the protocol prescribes; as an HMAC it is not broken.
        signature = hmac.new(secret.encode(), stamp.encode(), sha1).hexdigest()
        value = f"MQv2-HMAC-SHA1 Credential={access}, SignedHeaders=x-mq-date-time, Signature={signature}"
        return (*made, ("authorization", value))
