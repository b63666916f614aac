"""Alerts on RocketMQ's own exporter fire by what they are for, with a real RocketMQ and a real Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from rocketmq import ClientConfiguration, Credentials, FilterExpression, Message, Producer, SimpleConsumer

from spanbridge.demo.prometheus import prometheus_program
from spanbridge.devstack.rocketmq import RocketmqBroker
from tests.deploy.alarms import Watch, fired
from tests.deploy.test_dashboard import DEPLOY
from tests.e2e.harness import wait_until

pytestmark = [
    pytest.mark.brokers,
    pytest.mark.timeout(900),
    pytest.mark.skipif(prometheus_program() is None, reason="prometheus is not on the PATH"),
]

LIMIT = 300.0
LAG_MESSAGES = "consumer_group:rocketmq_consumer_lag_messages:sum"


@pytest.fixture
def watch(rocketmq_broker: RocketmqBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    directory = tmp_path_factory.mktemp("watch")
    watch = Watch(directory, {"rocketmq": [rocketmq_broker.exporter]}, [DEPLOY / "prometheus" / "lag.yml"])
    yield watch
    watch.close()


def fires(watch: Watch, alert: str, **labels: str) -> None:
    def has() -> bool:
        client = watch.client
        return client.until(lambda _: any(labels.items() <= found.items() for found in fired(client, alert)))

    wait_until(has, f"{alert} to fire", LIMIT)


def test_a_group_stops_receiving_leaves_and_nobody_is_left(rocketmq_broker: RocketmqBroker, watch: Watch) -> None:
    topic, group = rocketmq_broker.create_topic(None, queues=1), rocketmq_broker.create_group(None)
    labels = {"consumer_group": group, "topic": topic}
    configuration = ClientConfiguration(rocketmq_broker.endpoints, Credentials())
    producer = Producer(configuration, (topic,))
    producer.startup()
    consumer = SimpleConsumer(configuration, group, {topic: FilterExpression()})
    consumer.startup()
    message = Message()
    message.topic, message.body = topic, b"one of two"
    producer.send(message)
    wait_until(lambda: [consumer.ack(each) for each in consumer.receive(1, 15)], "a message", LIMIT)
    producer.send(message)

    # It stays connected and asks for nothing more.
    fires(watch, "RocketmqConsumerBehind", **labels)
    lag = f'{LAG_MESSAGES}{{consumer_group="{group}",topic="{topic}",is_retry="false"}}'
    assert watch.client.value(lag) == 1

    for client in (consumer, producer):
        client.shutdown()
    fires(watch, "RocketmqConsumerGone", **labels)
    fires(watch, "RocketmqExporterSilent")
    assert watch.client.query(lag) == []


def test_the_exporter_listens_on_loopback_alone(rocketmq_broker: RocketmqBroker) -> None:
    host, _, port = rocketmq_broker.exporter.partition(":")
    assert re.fullmatch(r"127\.\d+\.\d+\.\d+", host)
    with open("/proc/net/tcp") as own, open("/proc/net/tcp6") as six:
        lines = [line.split() for line in (*own, *six)]
    listening = {fields[1] for fields in lines if fields[3] == "0A" and fields[1].endswith(f":{int(port):04X}")}
    assert listening == {f"0100007F:{int(port):04X}"}
