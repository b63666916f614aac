"""Host names and addresses, as text."""

from __future__ import annotations

import ipaddress


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
