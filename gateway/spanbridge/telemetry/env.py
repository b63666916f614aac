"""The OTEL_* variables of OTLP exporters (OpenTelemetry specification, "OpenTelemetry Protocol Exporter")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from spanbridge.core.errors import ConfigError

Signal = Literal["traces", "metrics", "profiles"]
Protocol = Literal["grpc", "http/protobuf"]
_SIGNALS = ("TRACES", "METRICS", "LOGS", "PROFILES")
_SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
_SECRET = 6
"""Characters from which on a header's value may be a secret; a shorter one would blot out words."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110 section 5.6.2
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


class TelemetryConfigError(ConfigError):
    """An OTEL_* variable cannot be used. The message names it; values are shown only where they hold no secret."""

    reason = "telemetry_config"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpSettings:
    """Where one signal goes. ``timeout`` is in seconds. ``target`` is ``host:port`` for gRPC, a URL for HTTP."""

    signal: Signal
    protocol: Protocol = "grpc"
    target: str = field(default="localhost:4317", repr=False)  # a URL may hold a password
    secure: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout: float = 10.0
    compression: Literal["none", "gzip", "deflate"] = "none"
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None

    @property
    def label(self) -> str:
        """The receiver for people: without user name, password or query."""
        if self.protocol == "grpc":
            return self.target
        parts = urlsplit(self.target)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"

    def redact(self, text: str) -> str:
        """``text`` without what a receiver may have echoed of the headers' values, the URL's password or its query."""
        parts = urlsplit(self.target if "://" in self.target else "")
        words = [word for _, value in self.headers for word in (value, *value.split())]
        words += [parts.password or "", unquote(parts.password or ""), parts.query]
        words += [value for _, value in parse_qsl(parts.query)]
        for word in sorted(set(words), key=len, reverse=True):
            if len(word) >= _SECRET:
                text = text.replace(word, "***")
        return text


def exporter_kind(signal: Signal, environ: Mapping[str, str]) -> str:
    """``otlp``, ``console`` or ``none``.

    Unlike the specification, nothing is exported unless a variable asks for it: a gateway without a collector should
    not knock at localhost for ever. An OTEL_EXPORTER_OTLP_* variable asks, unless it is another signal's.
    ``prometheus`` for metrics is ``none``: they are not pushed, and /metrics is a matter of the configuration.

    :raises TelemetryConfigError: an exporter that the gateway does not have.
    """
    if disabled(environ):
        return "none"
    name = f"OTEL_{signal.upper()}_EXPORTER"
    kind = environ.get(name, "").strip().lower()
    if not kind:
        return "otlp" if any(_asks(key, signal) and value.strip() for key, value in environ.items()) else "none"
    if kind == "prometheus" and signal == "metrics":
        return "none"
    if kind not in ("otlp", "console", "none"):
        raise TelemetryConfigError(f"{name}={kind!r} is not known here: use otlp, console or none")
    return kind


def _asks(name: str, signal: Signal) -> bool:
    others = tuple(f"OTEL_EXPORTER_OTLP_{one}_" for one in _SIGNALS if one != signal.upper())
    return name.startswith("OTEL_EXPORTER_OTLP_") and not name.startswith(others)


def otlp_settings(signal: Signal, environ: Mapping[str, str]) -> OtlpSettings:
    """The exporter's settings; a signal's own variables (OTEL_EXPORTER_OTLP_TRACES_*) win over the common ones.

    :raises TelemetryConfigError: a value that cannot be used.
    """
    variables = _Variables(signal, environ)
    protocol = variables.choice("PROTOCOL", ("grpc", "http/protobuf"), "grpc")
    target, secure = _grpc_target(variables) if protocol == "grpc" else _http_target(variables)
    choices = ("none", "gzip") if protocol == "grpc" else ("none", "gzip", "deflate")
    return OtlpSettings(
        signal=signal,
        protocol=protocol,  # type: ignore[arg-type]
        target=target,
        secure=secure,
        headers=_headers(variables),
        timeout=variables.milliseconds("TIMEOUT", 10_000),
        compression=variables.choice("COMPRESSION", choices, "none"),  # type: ignore[arg-type]
        certificate=variables.get("CERTIFICATE")[1] or None,
        client_key=variables.get("CLIENT_KEY")[1] or None,
        client_certificate=variables.get("CLIENT_CERTIFICATE")[1] or None,
    )


def disabled(environ: Mapping[str, str]) -> bool:
    """Whether OTEL_SDK_DISABLED turns everything off.

    :raises TelemetryConfigError: neither ``true`` nor ``false``.
    """
    return _boolean("OTEL_SDK_DISABLED", environ.get("OTEL_SDK_DISABLED", ""))


def check_sampler(environ: Mapping[str, str]) -> None:
    """OTEL_TRACES_SAMPLER and _ARG, of which the SDK only warns: it would sample everything.

    :raises TelemetryConfigError: a sampler that is neither the SDK's nor an entry point, or an argument that is none.
    """
    name = environ.get("OTEL_TRACES_SAMPLER", "")
    if name and name.lower() not in _SAMPLERS:
        from importlib.metadata import entry_points  # noqa: PLC0415 - a search through all that is installed

        if not entry_points(group="opentelemetry_traces_sampler", name=name.strip()):
            raise TelemetryConfigError(f"OTEL_TRACES_SAMPLER={name!r} is not known here: use {' or '.join(_SAMPLERS)}")
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if argument and name.lower().endswith("traceidratio"):
        try:
            ratio = float(argument)
        except ValueError:
            ratio = -1.0
        if not 0.0 <= ratio <= 1.0:
            raise TelemetryConfigError(f"OTEL_TRACES_SAMPLER_ARG={argument!r} is not a number from 0 to 1")


def resource_attributes(environ: Mapping[str, str]) -> dict[str, str]:
    """OTEL_RESOURCE_ATTRIBUTES, of which the SDK leaves out what it cannot read.

    :raises TelemetryConfigError: it is not a list of ``name=value`` pairs.
    """
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))):
        name, equals, value = pair.partition("=")
        if not (equals and name.strip()):
            raise TelemetryConfigError(
                f"OTEL_RESOURCE_ATTRIBUTES is not a list of name=value pairs separated by commas: {pair[:40]!r}"
            )
        found[name.strip()] = unquote(value.strip())
    return found


def _boolean(name: str, text: str) -> bool:
    value = text.strip().lower()
    if value not in ("", "true", "false"):
        raise TelemetryConfigError(f"{name}={text!r} is not known here: use true or false")
    return value == "true"


def milliseconds(name: str, environ: Mapping[str, str], default: int) -> float:
    """A duration variable, in seconds.

    :raises TelemetryConfigError: not a number, or negative.
    """
    return number(name, environ, default) / 1000


def number(name: str, environ: Mapping[str, str], default: int) -> int:
    """A whole number from zero up; the default when unset or empty.

    :raises TelemetryConfigError: it is not.
    """
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise TelemetryConfigError(f"{name}={text!r} is not a whole number from zero up")
    return value


class _Variables:
    """Looks up ``OTEL_EXPORTER_OTLP_<SIGNAL>_<NAME>``, then ``OTEL_EXPORTER_OTLP_<NAME>``. Empty counts as unset."""

    def __init__(self, signal: Signal, environ: Mapping[str, str]) -> None:
        self.signal = signal
        self._environ = environ

    def get(self, name: str) -> tuple[str, str]:
        """The variable that is set and its value; the common one and "" when neither is."""
        own = f"OTEL_EXPORTER_OTLP_{self.signal.upper()}_{name}"
        common = f"OTEL_EXPORTER_OTLP_{name}"
        for variable in (own, common):
            value = self._environ.get(variable, "").strip()
            if value:
                return variable, value
        return common, ""

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        variable, value = self.get(name)
        value = value.lower() or default
        if value not in choices:
            raise TelemetryConfigError(f"{variable}={value!r} is not known here: use {' or '.join(choices)}")
        return value

    def milliseconds(self, name: str, default: int) -> float:
        variable, _ = self.get(name)
        return milliseconds(variable, self._environ, default)


def _grpc_target(variables: _Variables) -> tuple[str, bool]:
    variable, endpoint = variables.get("ENDPOINT")
    endpoint = endpoint or "http://localhost:4317"
    parts = _split(endpoint if "://" in endpoint else f"//{endpoint}")
    if parts is None:
        raise TelemetryConfigError(f"{variable} is not a URL or host:port that gRPC can reach")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    insecure = _boolean(*variables.get("INSECURE"))
    secure = parts.scheme == "https" if parts.scheme in ("http", "https") else not insecure
    return f"{host}:{parts.port or 4317}", secure


def _http_target(variables: _Variables) -> tuple[str, bool]:
    variable, endpoint = variables.get("ENDPOINT")
    endpoint = endpoint or "http://localhost:4318"
    parts = _split(endpoint)
    if parts is None or parts.scheme not in ("http", "https"):
        raise TelemetryConfigError(f"{variable} is not an http:// or https:// URL")
    if not variable.startswith(f"OTEL_EXPORTER_OTLP_{variables.signal.upper()}_"):
        # A common endpoint is a base: the signal's path is appended. A signal's own is used as it is.
        version = "v1development" if variables.signal == "profiles" else "v1"
        endpoint = f"{endpoint.rstrip('/')}/{version}/{variables.signal}"
    return endpoint, parts.scheme == "https"


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that names a host, and a port or none; None for any other text."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable else None


def _headers(variables: _Variables) -> tuple[tuple[str, str], ...]:
    variable, text = variables.get("HEADERS")
    found: list[tuple[str, str]] = []
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = pair.partition("=")
        name, value = unquote(name.strip()).lower(), unquote(value.strip())
        if not (equals and _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise TelemetryConfigError(f"{variable} is not a list of name=value pairs separated by commas")
        found.append((name, value))
    return tuple(found)
