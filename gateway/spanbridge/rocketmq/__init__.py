"""RocketMQ 5 adapter: an asyncio gRPC producer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from spanbridge.rocketmq.options import RocketmqOptions

if TYPE_CHECKING:
    from spanbridge.ports import Reporter
    from spanbridge.rocketmq.grpc.producer import GrpcProducer

__all__ = ["RocketmqOptions", "create_sink"]


def create_sink(options: RocketmqOptions, reporter: Reporter) -> GrpcProducer:
    """A sink for one cluster. Loads gRPC and protobuf (about 24 MiB resident) only now.

    :raises SinkMisconfigured: the endpoints are not ``host:port`` separated by ``;``, or a key cannot be sent.
    """
    # gRPC's C core writes to standard error by itself, past our log and its rate limits. It reads this when it loads.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from spanbridge.rocketmq.grpc.producer import GrpcProducer  # noqa: PLC0415 - see above

    return GrpcProducer(options, reporter)
