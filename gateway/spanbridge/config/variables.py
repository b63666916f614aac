"""Environment variables that begin with our name and that nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from spanbridge.config.environment import PREFIX
from spanbridge.config.lookup import section_in
from spanbridge.config.models import Config, Section
from spanbridge.config.problems import Finding

_OURS = "SPANBRIDGE_"

KNOWN = frozenset({
    "SPANBRIDGE_CONFIG",  # the command line
    "SPANBRIDGE_CACHE", "SPANBRIDGE_MAVEN_URL", "SPANBRIDGE_MQTT", "SPANBRIDGE_READY",  # the devstack reads these
    "SPANBRIDGE_ROCKETMQ_NAMESRV",  # and prints these for programs of the user's own
    *(f"SPANBRIDGE_MQTT_{version}_{part}" for version in ("V5", "V311") for part in ("URL", "HOST", "PORT")),
    "SPANBRIDGE_MQTT_CONTEXT_FORMAT", "SPANBRIDGE_MQTT_V311_CARRIER", "SPANBRIDGE_MQTT_TOPIC_TEMPLATES",
    "SPANBRIDGE_LOOP_SPANS", "SPANBRIDGE_PROFILING", "SPANBRIDGE_PROFILING_RATE", "SPANBRIDGE_PROFILING_INTERVAL",
    "SPANBRIDGE_PROFILING_DIRECTORY",
    "SPANBRIDGE_PROFILING_PYROSCOPE_URL", "SPANBRIDGE_PROFILING_PYROSCOPE_HEADERS",
    "SPANBRIDGE_MQTT_ACK_TIMEOUT",  # the instrumentation of paho-mqtt
})  # fmt: skip
"""Variables beside the overrides."""

# Kubernetes and Docker name these after a Service or a link that is called spanbridge (or spanbridge-something).
_SERVICE = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


def unknown_variables(environ: Mapping[str, str]) -> list[Finding]:
    """A warning for each variable that looks like one of ours and is none."""
    names = [name for name in sorted(environ) if name.startswith(_OURS) and not name.startswith(PREFIX)]
    return [
        Finding(
            loc=(),
            message="nothing reads this variable",
            hint=_meant(name),
            severity="warning",
            source=name,
        )
        for name in names
        if name not in KNOWN and not _is_service(name, environ[name])
    ]


def _is_service(name: str, value: str) -> bool:
    match = _SERVICE.search(name)
    if match is None:
        return False
    return match[0] != "_PORT" or _SERVICE_URL.match(value) is not None


def _meant(name: str) -> str:
    overrides = {PREFIX + "__".join(path).upper() for path in _paths(Config)}
    flat = {re.sub("_+", "_", known): known for known in (*KNOWN, *overrides)}
    close = get_close_matches(name, flat, n=1, cutoff=0.8)
    return f"did you mean `{flat[close[0]]}`?" if close else f"settings are written {PREFIX}SECTION__SETTING"


def _paths(section: type[Section], start: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None:
            yield (*start, name)
        else:
            yield from _paths(inner, (*start, name, "0") if name in ("routes", "downlinks") else (*start, name))
