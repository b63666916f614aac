"""Hosts and endpoints as text."""

from __future__ import annotations

import pytest

from spanbridge.core.hosts import endpoint_problem, split_endpoint


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("proxy:8081", ("proxy", 8081)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:8081", ("::1", 8081)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
    ],
)
def test_endpoints(text: str, parts: tuple[str, int]) -> None:
    assert endpoint_problem(text) is None
    assert split_endpoint(text) == parts


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not `host:port`"),
        ("proxy", "is not `host:port`"),
        (":8081", "is not `host:port`"),
        ("proxy:", "is not `host:port`"),
        ("proxy:0", "is not `host:port`"),
        ("proxy:65536", "is not `host:port`"),
        ("proxy:" + "1" * 5000, "is not `host:port`"),
        ("proxy:²", "is not `host:port`"),
        ("a:b:1", "is not `host:port`"),
        ("::1:8081", "has an IPv6 address without brackets"),
        ("2001:db8::1", "has an IPv6 address without brackets"),
        ("[::1", "has no host name before its port"),
        ("[proxy]:8081", "has no IPv6 address in its brackets"),
        ("a b:1", "has no host name before its port"),
        ("user@proxy:1", "has no host name before its port"),
        ("a..b:1", "has no host name before its port"),
    ],
)
def test_what_is_no_endpoint(text: str, problem: str) -> None:
    assert endpoint_problem(text) == problem
