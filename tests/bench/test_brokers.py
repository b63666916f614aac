"""The generator and the reader on the real brokers: what is published is found again, all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rocketmq import ClientConfiguration, Credentials, Message, Producer

from bench.payload import Phase, pack, unpack
from bench.processes import Child, ChildError
from bench.procstat import cpu_seconds, rss_mib
from bench.remoting import Broker, RemotingError
from spanbridge.devstack.pytest_plugin import SharedStack

pytestmark = pytest.mark.brokers


def test_stored_messages_are_read_back_with_their_times(devstack: SharedStack) -> None:
    topic = devstack.topic(queues=2)
    producer = Producer(ClientConfiguration(devstack.rocketmq.endpoints, Credentials()), (topic,))
    producer.startup()
    with Broker(f"{devstack.rocketmq.host}:{devstack.rocketmq.broker_port}") as broker:
        begin = broker.max_offsets(topic, 2)
        for seq in range(70):  # more than the broker hands out at once, in either queue
            message = Message()
            message.topic = topic
            message.body = pack(1, Phase.LOAD, seq, seq)
            producer.send(message)
        end = broker.max_offsets(topic, 2)
        found = list(broker.read(topic, begin, end))
    producer.shutdown()
    assert sum(end) - sum(begin) == 70
    assert sorted(unpack(stored.body).seq for stored in found) == list(range(70))
    assert all(stored.store_ms > 1_700_000_000_000 for stored in found)


def test_an_unknown_topic_is_an_error(devstack: SharedStack) -> None:
    with (
        Broker(f"{devstack.rocketmq.host}:{devstack.rocketmq.broker_port}") as broker,
        pytest.raises(RemotingError, match="no-such-topic"),
    ):
        list(broker.read("no-such-topic", [0], [1]))


@pytest.mark.parametrize(("shape", "carrier"), [("plain", "tp"), ("v311_suffix", "suffix")])
def test_the_generator_publishes_what_it_may_and_accounts_for_all(
    mqtt_devstack: SharedStack, tmp_path: Path, shape: str, carrier: str
) -> None:
    command = [sys.executable, "-m", "bench.loadgen", "--host", mqtt_devstack.mqtt_v5.host, "--run-id", "5"]
    command += ["--port", str(mqtt_devstack.mqtt_v5.port), "--shape", shape, "--carrier", carrier]
    with Child(command, tmp_path / "generator.log") as generator:
        assert generator.hear() == "ready"
        assert cpu_seconds(generator.pid) > 0
        assert rss_mib(generator.pid) > 5
        generator.tell("probe")
        generator.tell("limit 3000")
        assert generator.ask("pace 1000 20") == "paced"
        result = json.loads(generator.ask("stop"))
    assert result["published"] == 3021
    assert result["unacked"] == []


def test_a_process_that_ends_is_reported_with_what_it_logged(tmp_path: Path) -> None:
    script = "import sys; sys.exit('no broker there')"
    with Child([sys.executable, "-c", script], tmp_path / "bridge.log") as child:
        with pytest.raises(ChildError, match="bridge ended: no broker there"):
            child.hear()
        with pytest.raises(ProcessLookupError):
            rss_mib(child.pid)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["traced", "downlink_traced"])
def test_a_run_of_the_gateway_ends_with_one_json_line(mode: str) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--only", mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result[mode]["lost"] == 0
    assert result[mode]["msgs_per_s"] > 0
    assert result[mode]["spans_per_msg"] >= 2
    assert result[mode]["idle_rss_mib"] > 10
