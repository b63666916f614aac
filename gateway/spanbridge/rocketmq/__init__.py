"""RocketMQ adapter: asyncio producers and consumers, over gRPC and over the native protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spanbridge.rocketmq.options import ConsumerOptions, RocketmqOptions
from spanbridge.rocketmq.protocols import ClusterProtocol, ask_protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spanbridge.core.message import Message
    from spanbridge.ports import Acked, QueueSource, Received, Reporter
    from spanbridge.rocketmq.auto import AutoProducer
    from spanbridge.rocketmq.auto_consumer import AutoConsumer
    from spanbridge.rocketmq.grpc.consumer import GrpcConsumer
    from spanbridge.rocketmq.grpc.inquiry import GroupInquiry
    from spanbridge.rocketmq.grpc.producer import GrpcProducer
    from spanbridge.rocketmq.remoting.consumer import RemotingConsumer
    from spanbridge.rocketmq.remoting.producer import RemotingProducer

__all__ = [
    "ClusterProtocol",
    "ConsumerOptions",
    "RocketmqOptions",
    "ask_protocol",
    "create_consumer",
    "create_inquiry",
    "create_sink",
]


def create_sink(
    options: RocketmqOptions, reporter: Reporter, protocol: ClusterProtocol | None = None
) -> GrpcProducer | RemotingProducer | AutoProducer:
    """A sink for one cluster. Loads protobuf (about 5 MiB resident) only now, and only for gRPC.

    ``protocol`` is what is known of the cluster, for ``protocol="auto"``; all parts of a gateway share it.

    :raises SinkMisconfigured: the endpoints are not ``host:port`` separated by ``;``, or a key cannot be sent.
    """
    if options.protocol == "auto":
        from spanbridge.rocketmq.auto import AutoProducer  # noqa: PLC0415 - few need it

        return AutoProducer(options, reporter, protocol or ClusterProtocol(), _create_producer)
    return _create_producer(options, reporter)


def _create_producer(options: RocketmqOptions, reporter: Reporter) -> GrpcProducer | RemotingProducer:
    if options.protocol == "remoting":
        from spanbridge.rocketmq.remoting.producer import RemotingProducer  # noqa: PLC0415 - loads as late

        return RemotingProducer(options, reporter)
    from spanbridge.rocketmq.grpc.producer import GrpcProducer  # noqa: PLC0415 - loads protobuf

    return GrpcProducer(options, reporter)


def _unheard_received(messages: Sequence[Message], began_ns: int, ended_ns: int) -> None:
    pass


def _unheard_acked(topic: str, count: int, began_ns: int, ended_ns: int, error: str | None) -> None:
    pass


def create_consumer(
    options: ConsumerOptions,
    reporter: Reporter,
    *,
    received: Received = _unheard_received,
    acked: Acked = _unheard_acked,
    protocol: ClusterProtocol | None = None,
) -> GrpcConsumer | RemotingConsumer | AutoConsumer:
    """A source of what a consumer group receives from one topic. Loads protobuf only for gRPC.

    ``received`` and ``acked`` are told of calls, for telemetry. ``protocol`` is as with :func:`create_sink`.

    :raises SinkMisconfigured: the endpoints are not ``host:port`` separated by ``;``, or a key cannot be sent.
    """
    if options.cluster.protocol == "auto":
        from spanbridge.rocketmq.auto_consumer import AutoConsumer  # noqa: PLC0415 - few need it

        def make(found: ConsumerOptions) -> QueueSource[Message]:
            return create_consumer(found, reporter, received=received, acked=acked)

        return AutoConsumer(options, reporter, protocol or ClusterProtocol(), make)
    if options.cluster.protocol == "remoting":
        from spanbridge.rocketmq.remoting.consumer import RemotingConsumer  # noqa: PLC0415 - protobuf loads as late

        return RemotingConsumer(options, reporter, received, acked)
    from spanbridge.rocketmq.grpc.consumer import GrpcConsumer  # noqa: PLC0415 - loads protobuf

    return GrpcConsumer(options, reporter, received, acked)


def create_inquiry(options: ConsumerOptions, reporter: Reporter) -> GroupInquiry:
    """Who asks about a consumer group and its topic, and receives nothing. Loads protobuf only now.

    :raises SinkMisconfigured: the endpoints are not ``host:port`` separated by ``;``, or a key cannot be sent.
    """
    from spanbridge.rocketmq.grpc.inquiry import GroupInquiry  # noqa: PLC0415 - loads protobuf

    return GroupInquiry(options, reporter)
