"""``[profiling]``: which of the gateway's own work takes CPU time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from spanbridge.config.models.base import Conflict, Duration, Secret, Section, invalid

# RFC 9110 section 5.6.2 (names), W3C Baggage (percent-encoded values)
_PAIR = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+=(?:[!-$&-+\--~]|%(?:[2-6][0-9A-Fa-f]|7[0-9A-Ea-e]))*"
_PAIRS = re.compile(rf"{_PAIR}(?:\s*,\s*{_PAIR})*")


class Profiling(Section):
    """CPU profiles of the gateway itself. Off unless asked for; without samples to take it costs nothing."""

    enabled: bool = Field(
        default=False,
        description=(
            "Serve `/debug/pprof/profile` on the admin server, to those who may see `/status` there. Samples are taken "
            "only while a profile is made."
        ),
    )
    push: Literal["none", "otlp", "pyroscope"] = Field(
        default="none",
        description=(
            "Sample all the time, and send profiles: `otlp` to the receiver that the OTEL_EXPORTER_OTLP_PROFILES_* "
            "(or common) variables name, `pyroscope` to a Pyroscope server. OTLP profiles are in development: a "
            "receiver for opentelemetry-proto 1.10 or later is needed."
        ),
    )
    pyroscope_url: str = Field(
        default="http://localhost:4040", description='The Pyroscope server, for `push = "pyroscope"`.'
    )
    pyroscope_headers: Secret | None = Field(
        default=None,
        description=(
            "What goes with each request to it: `name=value` pairs with percent-encoded values, separated by commas "
            "(`X-Scope-OrgID=plant`, `Authorization=Bearer%20...`); `file:PATH` reads them from a file."
        ),
    )
    rate: int = Field(
        default=25, ge=1, le=1000, description="Samples per second of CPU time. More for a closer look, at its cost."
    )
    interval: Duration = Field(default=15.0, ge=1, le=3600, description="Pause between two profiles that are pushed.")

    @field_validator("pyroscope_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        except ValueError:
            usable = False
        if not usable:
            raise invalid("is no http:// or https:// URL", "write `http://host:4040`")
        if parts.username is not None:
            raise invalid("has a user name or password", "give them as `pyroscope_headers`")
        return url

    @field_validator("pyroscope_headers")
    @classmethod
    def _check_headers(cls, headers: SecretStr | None) -> SecretStr | None:
        if headers is not None and not _PAIRS.fullmatch(headers.get_secret_value().strip()):
            raise invalid("is no list of `name=value` pairs", "write a space in a value as `%20`, a comma as `%2C`")
        return headers

    def conflicts(self) -> Iterator[Conflict]:
        """Headers for a server that nothing is sent to are a mistake."""
        if self.pyroscope_headers is not None and self.push != "pyroscope":
            message = 'is for `push = "pyroscope"`, and nothing is sent there'
            yield Conflict(("pyroscope_headers", "push"), message, "set `push`, or drop the headers")
