"""What a server names and prescribes, when it makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.rocketmq.grpc.producer import GrpcProducer
from spanbridge.rocketmq.grpc.routes import read_route
from spanbridge.rocketmq.grpc.stubs import definition, service
from spanbridge.rocketmq.options import RocketmqOptions


def route(*brokers: list[tuple[str, int]]) -> Any:
    response = service.QueryRouteResponse()
    for number, addresses in enumerate(brokers):
        queue = response.message_queues.add(permission=definition.Permission.Value("READ_WRITE"))
        queue.broker.name = f"broker-{number}"
        queue.accept_message_types.append(definition.MessageType.Value("NORMAL"))
        for host, port in addresses:
            queue.broker.endpoints.addresses.add(host=host, port=port)
    return response


def test_queues_that_lead_nowhere_are_left_out() -> None:
    found = read_route("t", route([], [("a", 8081), ("", 8081), ("b", 0), ("c", 70_000)]), None)
    assert [target.addresses for target in found.targets] == [("a:8081",)]
    assert found.queues == 1
    with pytest.raises(SinkMisconfigured, match="no writable queue"):
        read_route("t", route([]), None)
    assert read_route("t", route([]), ("proxy:8081",)).queues == 1


@pytest.mark.parametrize("multiplier", [float("nan"), float("inf"), 3e38, -1.0])
def test_no_server_makes_us_wait_for_ever(multiplier: float) -> None:
    class Nobody:
        def report(self, event: object) -> None:
            """Nothing."""

    sink = GrpcProducer(RocketmqOptions(endpoints="127.0.0.1:1"), Nobody())
    settings = definition.Settings()
    policy = settings.backoff_policy.exponential_backoff
    policy.initial.FromSeconds(3600)
    policy.max.FromSeconds(1 << 30)
    policy.multiplier = multiplier
    sink._on_settings(settings)
    backoff = sink._retry()
    assert all(0 < backoff.next_delay(1.0) <= 60 for _ in range(100))
