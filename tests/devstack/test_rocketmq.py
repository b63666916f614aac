"""RocketMQ as the devstack runs it. That stored messages outlive crashes is tested where clients go through them."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from rocketmq.grpc_protocol import definition_pb2 as definition
from rocketmq.grpc_protocol import service_pb2 as service
from rocketmq.grpc_protocol.service_pb2_grpc import MessagingServiceStub
from typer.testing import CliRunner

from spanbridge.config.environment import PREFIX
from spanbridge.config.example import EXAMPLE
from spanbridge.config.load import examine_text
from spanbridge.devstack import Devstack, FaultProxy, RocketmqBroker, ServiceError
from spanbridge.devstack.cli import app
from spanbridge.devstack.errors import DevstackError
from spanbridge.devstack.probe import NotYet
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.devstack.rocketmq_probe import RocketmqProbe
from spanbridge.devstack.state import StackState, claim
from spanbridge.rocketmq.remoting.admin import max_offset
from spanbridge.rocketmq.remoting.blocking import BlockingClient

pytestmark = pytest.mark.brokers
METADATA = (("x-mq-client-id", f"test-{uuid.uuid4().hex[:8]}"), ("x-mq-language", "PYTHON"), ("x-mq-protocol", "v2"))
CALL: dict[str, Any] = {"metadata": METADATA, "timeout": 5}


@contextmanager
def stub(endpoints: str, credentials: Any = None) -> Iterator[Any]:
    options = [("grpc.enable_http_proxy", 0), ("grpc.ssl_target_name_override", "localhost")]
    channel = (
        grpc.secure_channel(endpoints, credentials, options)
        if credentials
        else grpc.insecure_channel(endpoints, options)
    )
    with channel:
        yield MessagingServiceStub(channel)


def route(messaging: Any, endpoints: str, topic: str) -> Any:
    host, port = endpoints.split(":")
    address = {"scheme": "IPv4", "addresses": [{"host": host, "port": int(port)}]}
    return messaging.QueryRoute(service.QueryRouteRequest(topic={"name": topic}, endpoints=address), **CALL)


def send(messaging: Any, topic: str, body: bytes, **system: Any) -> Any:
    properties = {"message_id": f"01{uuid.uuid4().hex.upper()}", "message_type": "NORMAL", **system}
    message = {"topic": {"name": topic}, "system_properties": properties, "body": body}
    return messaging.SendMessage(service.SendMessageRequest(messages=[message]), **CALL).status


def stored(broker: RocketmqBroker, topic: str, queues: int = 1) -> int:
    """Messages in the topic, by the maximum offsets of its queues."""
    with BlockingClient(f"{broker.host}:{broker.broker_port}") as client:
        return sum(client.ask_all(max_offset(topic, queue) for queue in range(queues)))


def test_the_environment_that_is_printed_is_what_the_gateway_reads(devstack: SharedStack) -> None:
    environment = devstack.stack.env()
    report = examine_text(EXAMPLE, environment, base=Path())
    assert report.config is not None, report.problems
    assert report.config.rocketmq.endpoints == devstack.rocketmq.endpoints
    assert (report.config.mqtt[0].url, report.config.mqtt[0].version) == (devstack.mqtt_v5.url, "5")
    assert all(name.startswith(PREFIX) for name in environment)  # nothing that nobody reads


@pytest.mark.parametrize("message_type", ["NORMAL", "FIFO", "DELAY", "TRANSACTION", "LITE", "PRIORITY"])
def test_topics_have_the_type_asked_for_and_are_routed_at_once(devstack: SharedStack, message_type: Any) -> None:
    topic = devstack.topic(message_type, queues=3)
    with stub(devstack.rocketmq.endpoints) as messaging:
        queues = route(messaging, devstack.rocketmq.endpoints, topic).message_queues
    expected = definition.MessageType.Value(message_type)
    assert [list(queue.accept_message_types) for queue in queues] == [[expected]] * 3


def test_a_topic_of_an_unknown_type_is_refused(devstack: SharedStack) -> None:
    with pytest.raises(ServiceError, match="refused to create topic"):
        devstack.rocketmq.create_topic("Odd", "SQUARE")  # type: ignore[arg-type]


def test_a_topic_that_nobody_made_does_not_exist(devstack: SharedStack) -> None:
    with stub(devstack.rocketmq.endpoints) as messaging:
        answer = route(messaging, devstack.rocketmq.endpoints, devstack.unique("missing"))
    assert answer.status.code == definition.Code.TOPIC_NOT_FOUND


def test_groups_can_be_made_in_order_or_not(devstack: SharedStack) -> None:
    assert devstack.group().startswith("G-")
    assert devstack.rocketmq.create_group(devstack.unique("mine"), fifo=True).startswith("mine-")
    with pytest.raises(ServiceError, match="refused to create group"):
        devstack.rocketmq.create_group("not a name!")


def test_the_proxy_takes_tls_on_the_same_port(devstack: SharedStack) -> None:
    topic = devstack.topic()
    rocketmq = devstack.rocketmq
    # The proxy's own certificate is made anew at each start, so it is trusted as it is found.
    certificate = ssl.get_server_certificate((rocketmq.host, rocketmq.port), timeout=5)
    assert "BEGIN CERTIFICATE" in certificate
    with stub(rocketmq.endpoints) as messaging:
        assert send(messaging, topic, b"plain").code == definition.Code.OK


def test_a_fault_proxy_stands_between_client_and_proxy(devstack: SharedStack) -> None:
    topic = devstack.topic(queues=1)
    with FaultProxy(devstack.rocketmq.endpoints) as faults, stub(faults.endpoints) as messaging:
        assert send(messaging, topic, b"before").code == definition.Code.OK
        faults.hang()
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            messaging.QueryRoute(service.QueryRouteRequest(topic={"name": topic}), metadata=METADATA, timeout=0.5)
        faults.resume()
        assert send(messaging, topic, b"after").code == definition.Code.OK
    assert stored(devstack.rocketmq, topic) == 2


def test_the_command_line_shows_what_a_topic_receives(
    devstack: SharedStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    topic, group = devstack.topic(), devstack.unique("look")
    runner, command = CliRunner(), ["consume", topic, "--group", group, "--json"]
    with claim("default") as path:
        StackState.of("default", devstack.stack).write(path)
        with stub(devstack.rocketmq.endpoints) as messaging:
            for number in range(6):
                answer = send(messaging, topic, b"%d" % number, tag="temp", keys=["k"])
                assert answer.code == definition.Code.OK
        some = runner.invoke(app, [*command, "--count", "2"])
        rest = runner.invoke(app, [*command, "--wait", "2"])
        again = runner.invoke(app, [*command, "--wait", "0.5"])
        missing = runner.invoke(app, ["consume", devstack.unique("missing")])
    assert (some.exit_code, rest.exit_code, again.exit_code, again.stdout) == (0, 0, 0, "")
    shown = [json.loads(line) for line in (some.stdout + rest.stdout).splitlines()]
    assert sorted(message["body"] for message in shown) == list("012345")  # each once, nothing hidden by --count
    assert len(some.stdout.splitlines()) == 2
    assert {"body": "0", "tag": "temp", "keys": ["k"], "properties": {}} in shown
    assert missing.exit_code == 1
    assert missing.stderr.startswith("error: TOPIC_NOT_FOUND")


def test_a_paused_broker_accepts_and_never_answers(rocketmq_broker: RocketmqBroker) -> None:
    topic = rocketmq_broker.create_topic()
    probe = RocketmqProbe(rocketmq_broker.endpoints, topic, "any")
    rocketmq_broker.pause()
    try:
        started = time.monotonic()
        with pytest.raises(NotYet, match=r"(?i)deadline"):
            probe.route(topic)
        assert time.monotonic() - started > 1
    finally:
        rocketmq_broker.resume()
    probe.route(topic)


def test_rocketmq_4_has_no_proxy() -> None:
    for asked in (
        {"cluster_mode": True},
        {"credentials": ("a", "b"), "authorization": True},
        {"proxy_config": {"x": 1}},
    ):
        with pytest.raises(DevstackError, match=r"4\.9\.7 has no proxy"):
            Devstack.up(rocketmq_version="4.9.7", mqtt_v5=False, mqtt_v311=False, **asked)
    with pytest.raises(DevstackError, match=r"RocketMQ 3 is not known"):
        Devstack.up(rocketmq_version="3", mqtt_v5=False, mqtt_v311=False)


def test_a_stack_with_rocketmq_4_on_the_command_line(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}

    def devstack(*words: str) -> str:
        command = [sys.executable, "-m", "spanbridge.devstack.cli", *words, "--name", "four"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert "RocketMQ 4.9.7" in devstack("up", "--detach", "--only", "rocketmq", "--rocketmq", "4.9.7")
    try:
        devstack("topic", "telemetry")
        assert devstack("status").rstrip().endswith("ready")
        assert json.loads(devstack("env", "--json"))["SPANBRIDGE__ROCKETMQ__PROTOCOL"] == "remoting"
        looked = devstack("consume", "SPANBRIDGE_READY", "--count", "1", "--json")
        assert len(json.loads(looked)["body"]) == 32  # the mark of the readiness probe
    finally:
        devstack("down")
