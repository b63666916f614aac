"""Ports.

What the pipelines need from the outside. Adapters implement them; contract tests hold for each implementation.
"""

from __future__ import annotations

from spanbridge.ports.common import Clock, Link, PeerStatus, Reporter, Service
from spanbridge.ports.offsets import Offsets, TopicQueue
from spanbridge.ports.publisher import P, Publication, Published, Publisher
from spanbridge.ports.sink import Head, Sink
from spanbridge.ports.source import Acked, Deliver, QueueSource, Received, Released, Source
from spanbridge.ports.spool import Spool, Written

__all__ = [
    "Acked",
    "Clock",
    "Deliver",
    "Head",
    "Link",
    "Offsets",
    "P",
    "PeerStatus",
    "Publication",
    "Published",
    "Publisher",
    "QueueSource",
    "Received",
    "Released",
    "Reporter",
    "Service",
    "Sink",
    "Source",
    "Spool",
    "TopicQueue",
    "Written",
]
