"""Routes, offsets, topics, groups and stored messages on a real broker, over either connection and header format."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest

from spanbridge.devstack import Devstack, RocketmqBroker
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.rocketmq.remoting import admin
from spanbridge.rocketmq.remoting.blocking import BlockingClient, ask_once
from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.client import RemotingClient
from spanbridge.rocketmq.remoting.codes import ResponseCode
from spanbridge.rocketmq.remoting.errors import RemotingRefused, RemotingUnavailable
from spanbridge.rocketmq.remoting.frame import AclKeys, HeaderFormat
from spanbridge.rocketmq.remoting.pull import pull

pytestmark = pytest.mark.brokers
KEYS = AclKeys("gateway", "correct-horse-battery-staple")
EITHER = pytest.mark.parametrize("header_format", HeaderFormat)


def send(topic: str, queue: int, body: bytes, properties: str = "") -> Call[int]:
    """Store a message (SEND_MESSAGE_V2); the answer is its offset."""
    fields = {"a": "test", "b": topic, "c": "TBW102", "d": "4", "e": str(queue), "f": "0", "h": "0", "i": properties}
    fields |= {"g": str(int(time.time() * 1000)), "j": "0", "k": "false"}
    return Call(what="store", code=310, fields=fields, body=body, read=lambda answer: int(answer.fields["queueOffset"]))


def commit(group: str, topic: str, queue: int, offset: int) -> Call[None]:
    """Commit an offset (UPDATE_CONSUMER_OFFSET)."""
    fields = {"consumerGroup": group, "topic": topic, "queueId": str(queue), "commitOffset": str(offset)}
    return Call(what="commit", code=15, fields=fields, read=lambda _: None)


def store(client: BlockingClient, topic: str, queue: int, messages: list[Call[int]]) -> list[int]:
    """Send messages to an empty queue, and wait until it has them: it is filled a moment after the response.

    One by one: a broker handles the requests of one connection side by side.
    """
    offsets = [client.ask(message) for message in messages]
    while client.ask(admin.max_offset(topic, queue)) < len(messages):
        time.sleep(0.01)
    return offsets


def broker_of(rocketmq: RocketmqBroker) -> str:
    return f"{rocketmq.host}:{rocketmq.broker_port}"


@EITHER
def test_offsets_follow_what_is_stored_and_committed(devstack: SharedStack, header_format: HeaderFormat) -> None:
    topic, group = devstack.topic(queues=2), devstack.group()
    with BlockingClient(broker_of(devstack.rocketmq), header_format=header_format) as client:
        assert client.ask(admin.groups_of_topic(topic)) == ()
        assert store(client, topic, 1, [send(topic, 1, b"%d" % number) for number in range(3)]) == [0, 1, 2]
        assert client.ask_all([admin.max_offset(topic, 0), admin.max_offset(topic, 1)]) == [0, 3]
        assert client.ask(admin.min_offset(topic, 1)) == 0
        assert client.ask(admin.committed_offset(group, topic, 1)) is None
        client.ask(commit(group, topic, 1, 2))
        assert client.ask(admin.committed_offset(group, topic, 1)) == 2
        assert client.ask(admin.committed_offset(group, topic, 0)) is None
        assert client.ask(admin.groups_of_topic(topic)) == (group,)


def test_an_offset_is_found_by_time(devstack: SharedStack) -> None:
    topic = devstack.topic(queues=1)
    with BlockingClient(broker_of(devstack.rocketmq)) as client:
        store(client, topic, 0, [send(topic, 0, b"x") for _ in range(3)])
        first, _, last = client.ask(pull(devstack.group(), topic, 0, 0)).messages
        assert client.ask(admin.offset_at(topic, 0, first.store_ms - 60_000)) == 0
        assert client.ask(admin.offset_at(topic, 0, last.store_ms)) <= 2
        assert client.ask(admin.offset_at(topic, 0, last.store_ms + 60_000)) >= 2


@EITHER
def test_messages_are_pulled_with_their_properties(devstack: SharedStack, header_format: HeaderFormat) -> None:
    topic, group = devstack.topic(queues=1), devstack.group()
    with BlockingClient(broker_of(devstack.rocketmq), header_format=header_format) as client:
        before = int(time.time() * 1000)
        messages = [send(topic, 0, b"%d" % number, "KEYS\x01k\x02unit\x01°C\x02") for number in range(5)]
        store(client, topic, 0, messages)
        pulled = client.ask(pull(group, topic, 0, 1, at_most=2))
        assert [(one.queue_offset, one.body) for one in pulled.messages] == [(1, b"1"), (2, b"2")]
        assert pulled[1:] == (3, 0, 5)
        message = pulled.messages[0]
        assert (message.topic, message.queue_id) == (topic, 0)
        assert message.properties.items() >= {"KEYS": "k", "unit": "°C"}.items()
        assert before - 60_000 < message.store_ms < before + 60_000
        beyond = client.ask(pull(group, topic, 0, 99))
        assert (beyond.messages, beyond.max_offset) == ((), 5)
        assert client.ask(pull(group, topic, 0, 5)).messages == ()
        assert client.ask(admin.committed_offset(group, topic, 0)) is None
        with pytest.raises(
            RemotingRefused, match="give messages of topic 'no-such-topic', queue 0, offset 0"
        ) as caught:
            client.ask(pull(group, "no-such-topic", 0, 0))
        assert caught.value.code == ResponseCode.TOPIC_NOT_EXIST
        assert caught.value.reason == "topic_not_exist"


@EITHER
def test_a_name_server_gives_routes(devstack: SharedStack, header_format: HeaderFormat) -> None:
    topic = devstack.topic(queues=3)
    with BlockingClient(devstack.rocketmq.namesrv, header_format=header_format) as client:
        route = client.ask(admin.topic_route(topic))
        assert route == admin.TopicRoute((admin.BrokerQueues("broker-a", broker_of(devstack.rocketmq), 3, 3),))
        assert client.ask(admin.topic_route(devstack.unique("missing"))) is None
        with pytest.raises(RemotingRefused, match="request type 30 not supported") as caught:
            client.ask(admin.max_offset(topic, 0))
        assert caught.value.code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED


def test_topics_come_with_attributes_and_go(devstack: SharedStack) -> None:
    topic = devstack.unique("topic")
    attributes = {"lite.topic.expiration": "30"}
    with BlockingClient(broker_of(devstack.rocketmq)) as client:
        client.ask(admin.create_topic(topic, queues=2, message_type="LITE", attributes=attributes))
        client.ask(send(topic, 1, b"x"))
        client.ask(admin.create_topic(topic, queues=4))
        client.ask(send(topic, 3, b"x"))
        client.ask(admin.delete_topic(topic))
        client.ask(admin.delete_topic(topic))
        ask_once(devstack.rocketmq.namesrv, admin.delete_route(topic))
        with pytest.raises(RemotingRefused, match="store"):
            client.ask(send(topic, 0, b"x"))
        for wrong in ({"message.type": "SQUARE"}, {"no.such.attribute": "1"}):
            with pytest.raises(RemotingRefused, match="refused to create topic"):
                client.ask(admin.create_topic(topic, queues=1, attributes=wrong))
    assert ask_once(devstack.rocketmq.namesrv, admin.topic_route(topic)) is None


def subscription_group(client: BlockingClient, group: str) -> bytes:
    """What the broker keeps of a group (GET_SUBSCRIPTIONGROUP_CONFIG)."""
    return client.ask(Call(what="show", code=352, fields={"group": group}, read=lambda answer: answer.body))


def test_groups_come_and_go(devstack: SharedStack) -> None:
    group, topic = devstack.unique("group"), devstack.topic(queues=1)
    with BlockingClient(broker_of(devstack.rocketmq)) as client:
        client.ask(admin.create_group(group, orderly=True, max_attempts=3))
        kept = subscription_group(client, group)
        assert b'"consumeMessageOrderly":true' in kept
        assert b'"retryMaxTimes":3' in kept
        client.ask(commit(group, topic, 0, 0))
        client.ask(admin.delete_group(group))
        assert client.ask(admin.committed_offset(group, topic, 0)) is None
        client.ask(admin.delete_group(group))
        with pytest.raises(RemotingRefused, match="refused to create group 'not a name!'"):
            client.ask(admin.create_group("not a name!"))


@pytest.mark.anyio
async def test_the_asynchronous_client_asks_the_same(devstack: SharedStack) -> None:
    topic = await anyio.to_thread.run_sync(lambda: devstack.topic(queues=4))
    async with RemotingClient(devstack.rocketmq.namesrv) as names:
        route = await names.ask(admin.topic_route(topic))
    assert route is not None
    master = route.brokers[0].master
    assert master is not None
    async with RemotingClient(master) as client:
        for queue in range(4):
            assert await client.ask(send(topic, queue, bytes(1000))) == 0
            while await client.ask(admin.max_offset(topic, queue)) < 1:
                await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_brokers_and_name_servers_take_tls(devstack: SharedStack) -> None:
    topic = await anyio.to_thread.run_sync(lambda: devstack.topic(queues=1))
    trusting = devstack.rocketmq.certificates.client_context(with_certificate=False)
    async with RemotingClient(broker_of(devstack.rocketmq), tls=trusting) as client:
        assert await client.ask(admin.max_offset(topic, 0)) == 0
    async with RemotingClient(devstack.rocketmq.namesrv, tls=trusting) as client:
        assert await client.ask(admin.topic_route(topic)) is not None
    with pytest.raises(RemotingUnavailable, match="TLS: unable to get local issuer certificate") as caught:
        await RemotingClient(broker_of(devstack.rocketmq), tls=ssl.create_default_context()).connect()
    assert caught.value.reason == "tls"


@pytest.mark.anyio
async def test_a_broker_that_dies_ends_its_connections(rocketmq_broker: RocketmqBroker) -> None:
    async with RemotingClient(broker_of(rocketmq_broker)) as client:
        assert await client.ask(admin.max_offset("any", 0)) == 0
        await anyio.to_thread.run_sync(rocketmq_broker.kill)
        assert isinstance(await client.wait_ended(), RemotingUnavailable)
        with pytest.raises(RemotingUnavailable, match="ended: "):
            await client.ask(admin.max_offset("any", 0))


@pytest.fixture(scope="module")
def secured() -> Iterator[RocketmqBroker]:
    with Devstack.up(mqtt_v5=False, mqtt_v311=False, credentials=(KEYS.access_key, KEYS.secret_key)) as stack:
        yield stack.rocketmq


@EITHER
def test_keys_decide(secured: RocketmqBroker, header_format: HeaderFormat) -> None:
    """Asked of the proxy's remoting port: of the devstack's servers it is the one that checks signatures."""
    topic = secured.create_topic(queues=1)
    address = f"{secured.host}:{secured.remoting_port}"
    with BlockingClient(address, keys=KEYS, header_format=header_format) as client:
        assert client.ask(admin.topic_route(topic)) is not None
    token = AclKeys(KEYS.access_key, KEYS.secret_key, security_token="token")
    with BlockingClient(address, keys=token, header_format=header_format) as client:
        assert client.ask(admin.topic_route(topic)) is not None
    wrong = [
        (AclKeys(KEYS.access_key, "tr0ub4dor"), "check signature failed"),
        (AclKeys("nobody", "tr0ub4dor"), "User:nobody is not found"),
        (None, "username cannot be null"),
    ]
    for keys, told in wrong:
        with BlockingClient(address, keys=keys, header_format=header_format) as client:
            with pytest.raises(RemotingRefused, match=told) as caught:
                client.ask(admin.topic_route(topic))
            assert "tr0ub4dor" not in f"{caught.value!r} {caught.value}"


def test_nothing_of_grpc_is_loaded() -> None:
    code = (
        "import sys; from spanbridge.rocketmq.remoting import admin, blocking, client, pull;"
        "assert not {'grpc', 'google.protobuf', 'rocketmq'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
