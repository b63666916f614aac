"""What the environment says about profiling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote, urlsplit

from spanbridge_profiling.sampler import DEFAULT_RATE

ENV_SWITCH: Final = "SPANBRIDGE_PROFILING"
ENV_RATE: Final = "SPANBRIDGE_PROFILING_RATE"
ENV_INTERVAL: Final = "SPANBRIDGE_PROFILING_INTERVAL"
ENV_PYROSCOPE: Final = "SPANBRIDGE_PROFILING_PYROSCOPE_URL"
ENV_PYROSCOPE_HEADERS: Final = "SPANBRIDGE_PROFILING_PYROSCOPE_HEADERS"
ENV_DIRECTORY: Final = "SPANBRIDGE_PROFILING_DIRECTORY"
MOST = 1000
_DEFAULT_INTERVAL = 15.0
_PATH = "/v1development/profiles"
_WAYS = ("otlp", "file", "pyroscope")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


class SettingError(Exception):
    """A variable cannot be used. The message names it, without values that may be secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``ways`` are of ``_WAYS``. ``rate`` is per second of CPU time; ``interval`` and ``timeout`` are seconds."""

    ways: tuple[str, ...]
    rate: int = DEFAULT_RATE
    interval: float = _DEFAULT_INTERVAL
    directory: str = "."
    endpoint: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float = 10.0
    certificate: str | None = None
    gzip: bool = False
    pyroscope: str = ""
    pyroscope_headers: tuple[tuple[str, str], ...] = ()


def read_settings(environ: Mapping[str, str]) -> Settings | None:
    """The settings; None where profiling is not asked for, or OTEL_SDK_DISABLED turns everything off.

    :raises SettingError: a value that cannot be used.
    """
    switch = environ.get(ENV_SWITCH, "").strip().lower()
    if switch in ("", "0", "false", "off", "none") or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    ways = tuple(way.strip() for way in switch.split(","))
    if not set(ways) <= set(_WAYS):
        raise SettingError(f"{ENV_SWITCH}={switch!r} is none of off, otlp, file, pyroscope (or several, otlp,file)")
    found = Settings(
        ways=ways,
        rate=round(_number(environ, ENV_RATE, DEFAULT_RATE, 1, MOST)),
        interval=_number(environ, ENV_INTERVAL, _DEFAULT_INTERVAL, 1, 3600),
        directory=environ.get(ENV_DIRECTORY, "").strip() or ".",
    )
    if "pyroscope" in ways:
        found = _with_pyroscope(found, environ)
    return found if "otlp" not in ways else _with_receiver(found, environ)


def _with_pyroscope(settings: Settings, environ: Mapping[str, str]) -> Settings:
    url = environ.get(ENV_PYROSCOPE, "").strip() or "http://localhost:4040"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise SettingError(f"{ENV_PYROSCOPE} is no http:// or https:// URL without credentials")
    headers = read_headers(environ.get(ENV_PYROSCOPE_HEADERS, ""), ENV_PYROSCOPE_HEADERS)
    return replace(settings, pyroscope=url, pyroscope_headers=headers)


def _with_receiver(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Where OTLP goes: OTEL_EXPORTER_OTLP_PROFILES_* and the common variables, as for other signals."""

    def get(name: str) -> str:
        own = environ.get(f"OTEL_EXPORTER_OTLP_PROFILES_{name}", "").strip()
        return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()

    endpoint = environ.get("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", "").strip()
    if not endpoint:
        base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
        endpoint = _over_http(base, get("PROTOCOL")).rstrip("/") + _PATH
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingError("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT or _ENDPOINT is no http:// or https:// URL")
    return replace(
        settings,
        endpoint=endpoint,
        headers=read_headers(get("HEADERS")),
        timeout=_milliseconds(get("TIMEOUT")),
        certificate=get("CERTIFICATE") or None,
        gzip=get("COMPRESSION").lower() == "gzip",
    )


def _over_http(base: str, protocol: str) -> str:
    """The common endpoint. Where the other signals use gRPC there, profiles go to HTTP's usual port of that host."""
    if not base:
        return "http://localhost:4318"
    if protocol.lower() not in ("", "grpc") or ":4317" not in base:
        return base
    return (base if "://" in base else f"http://{base}").replace(":4317", ":4318")


def read_headers(
    value: str, name_of: str = "OTEL_EXPORTER_OTLP_PROFILES_HEADERS or _HEADERS"
) -> tuple[tuple[str, str], ...]:
    """``name=value`` pairs with percent-encoded values (W3C Baggage, as OpenTelemetry has it).

    :raises SettingError: it is no such list; names ``name_of``.
    """
    found = []
    for pair in filter(None, (part.strip() for part in value.split(","))):
        name, equals, content = pair.partition("=")
        text = unquote(content.strip())
        if not equals or not _HEADER.fullmatch(name.strip()) or not text.isprintable() or not text.isascii():
            raise SettingError(f"{name_of} is no list of name=value pairs")
        found.append((name.strip(), text))
    return tuple(found)


def _milliseconds(value: str) -> float:
    if not value:
        return 10.0
    if not value.isdecimal() or not int(value):
        raise SettingError("OTEL_EXPORTER_OTLP_PROFILES_TIMEOUT or _TIMEOUT is no number of milliseconds above zero")
    return int(value) / 1000


def _number(environ: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    value = environ.get(name, "").strip()
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise SettingError(f"{name}={value!r} is no number from {least:g} to {most:g}")
    return number
