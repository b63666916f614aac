"""What runs in other images, run here: the script that creates topics, and mosquitto with its configuration."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from paho.mqtt import publish

from spanbridge.devstack.mqtt_setup import mosquitto_path
from spanbridge.devstack.ports import LOOPBACK, PortLease, accepts

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPT = DEPLOY / "rocketmq" / "create-topics.sh"

# As the real one: exit code 0 whatever happens, and nothing works until the broker has registered.
MQADMIN = """
echo "$@" >>calls
[ -e registered ] || { echo "SubCommandException"; touch registered; exit 0; }
case $1 in
    updateTopic | updateSubGroup) touch "made-$7" ;;
    topicRoute) [ -e "made-$5" ] && echo '"queueDatas":[]' ;;
    getConsumerConfig) [ -e "made-$5" ] && echo "groupName = $5" ;;
esac
exit 0
"""


def create(directory: Path, *topics: str, groups: str = "", deadline: int = 20) -> subprocess.CompletedProcess[str]:
    (directory / "mqadmin").write_text(MQADMIN)
    environment = {
        "PATH": os.environ["PATH"],
        "MQADMIN": "sh mqadmin",
        "NAMESRV_ADDR": "ns:9876",
        "CONSUMER_GROUPS": groups,
        "DEADLINE": str(deadline),
    }
    command = ["sh", str(SCRIPT), *topics]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_creates_topics_and_groups_once_the_broker_is_there(tmp_path: Path) -> None:
    done = create(tmp_path, "telemetry", "orders:FIFO:1", groups="billing")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "topic telemetry: NORMAL, 8 queues",
        "topic orders: FIFO, 1 queues",
        "group billing",
    ]
    calls = (tmp_path / "calls").read_text()
    assert "updateTopic -n ns:9876 -c DefaultCluster -t orders -r 1 -w 1 -a +message.type=FIFO" in calls
    assert "updateSubGroup -n ns:9876 -c DefaultCluster -g billing" in calls


def test_says_what_could_not_be_created(tmp_path: Path) -> None:
    done = create(tmp_path, "telemetry", deadline=0)
    assert done.returncode == 1
    assert "topic telemetry: NORMAL, 8 queues could not be created" in done.stderr
    assert "SubCommandException" in done.stderr


@pytest.mark.mosquitto
@pytest.mark.skipif(mosquitto_path() is None, reason="mosquitto is not on the PATH")
def test_mosquitto_takes_its_configuration(tmp_path: Path) -> None:
    ports = PortLease()
    try:
        run_mosquitto(tmp_path, ports.take())
    finally:
        ports.release()
    assert (tmp_path / "mosquitto.db").exists(), "it saves sessions when it stops"


def run_mosquitto(directory: Path, port: int) -> None:
    text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text()
    text = text.replace("listener 1883", f"listener {port} {LOOPBACK}").replace("/mosquitto/data", str(directory))
    if os.geteuid() == 0:
        text += "user root\n"
    (directory / "mosquitto.conf").write_text(text)
    command = [mosquitto_path() or "", "-c", str(directory / "mosquitto.conf")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as broker:
        deadline = time.monotonic() + 20
        while not accepts(port) and broker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if broker.poll() is None:  # by an acknowledgement: it listens before it minds signals
            publish.single("t", b"x", qos=1, hostname=LOOPBACK, port=port)
        broker.terminate()
        said, _ = broker.communicate(timeout=20)
    assert broker.returncode == 0, said
