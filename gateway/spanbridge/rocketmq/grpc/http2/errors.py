"""What ends a connection."""

from __future__ import annotations


class Http2Error(Exception):
    """The peer broke the protocol, or a limit of ours. The text is for an operator."""
