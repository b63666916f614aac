"""Host names and addresses, as text."""

from __future__ import annotations

import ipaddress
import re

_PORT = re.compile(r"[0-9]{1,5}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host`` (IPv6 without brackets). Names but localhost are not looked up."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_host(text: str) -> bool:
    """Whether ``text`` can be the name or address (IPv6 without brackets) of a host: resolvers raise on other text."""
    try:
        text.encode("idna")
    except UnicodeError:  # an empty label, or one of more than 63 characters (RFC 1035 section 2.3.4)
        return False
    return bool(text) and not any(character.isspace() or character == "\0" for character in text)


def endpoint_problem(text: str) -> str | None:
    """Why ``text`` is not ``host:port`` (``[address]:port`` for IPv6, RFC 3986 section 3.2.2), or None."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or _PORT.fullmatch(port) is None or not 1 <= int(port) <= 65535:
        return "is not `host:port`"
    if ":" in host and not host.startswith("["):
        return "has an IPv6 address without brackets" if _is_ipv6(host) or _is_ipv6(text) else "is not `host:port`"
    if host.startswith("[") and host.endswith("]"):
        return None if _is_ipv6(host[1:-1]) else "has no IPv6 address in its brackets"
    return None if is_host(host) and not set(host) & set("[],/@") else "has no host name before its port"


def split_endpoint(text: str) -> tuple[str, int]:
    """Host (IPv6 without brackets) and port of what :func:`endpoint_problem` finds nothing wrong with."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
