"""The demonstration's gateway: its configuration, and what RocketMQ needs to have for it."""

from __future__ import annotations

from typing import Final

from spanbridge.demo.cast import Places

SPARE_GROUP: Final = "mine"
"""A consumer group for whoever looks around."""

TOPICS: Final = ("telemetry", "meter-readings", "commands", "meter-commands", "answers")
GROUPS: Final = ("demo-consumers", "demo-answers", "demo-commands", "demo-meter-commands", SPARE_GROUP)


def gateway_config(places: Places, admin_port: int) -> str:
    """The configuration: two brokers, what goes up from each and comes down to it, everything else as it comes."""
    return f"""\
name = "demo"

[[mqtt]]
name = "v5"
url = "mqtt://{places.v5_host}:{places.v5_port}"
client_id = "demo-v5"

[[mqtt]]
name = "v311"
url = "mqtt://{places.v311_host}:{places.v311_port}"
version = "3.1.1"
client_id = "demo-v311"

[rocketmq]
endpoints = "{places.endpoints}"

[[routes]]
source = "v5"
filter = "devices/{{device}}/telemetry"
topic = "telemetry"
keys = ["{{device}}"]

[[routes]]
source = "v311"
filter = "meters/{{meter}}/reading"
topic = "meter-readings"
keys = ["{{meter}}"]
carriers = ["topic-suffix"]

# Commands go down ...
[[downlinks]]
topic = "commands"
consumer_group = "demo-commands"
broker = "v5"
mqtt_topic = "devices/{{key}}/commands"

[[downlinks]]
topic = "meter-commands"
consumer_group = "demo-meter-commands"
broker = "v311"
mqtt_topic = "meters/{{key}}/commands"
carrier = "topic-suffix"

# ... and answers come up.
[[routes]]
source = "v5"
filter = "devices/{{device}}/answers"
topic = "answers"
keys = ["{{device}}"]

[[routes]]
source = "v311"
filter = "meters/{{meter}}/answers"
topic = "answers"
keys = ["{{meter}}"]
carriers = ["topic-suffix"]

[downlink]
invisible_time = "10s"  # what a call to RocketMQ lost on a busy machine comes again after this long

[admin]
port = {admin_port}
"""
