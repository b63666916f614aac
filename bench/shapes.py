"""What the devices send and what the gateway is configured to make of it: one shape of work for each common use."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.payload import SIZE

README = Path(__file__).parents[1] / "README.md"
QUEUES = 8
BACKLOG = 8000
"""How many messages the generator may be ahead of RocketMQ: many times what the gateway has in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a gateway's configuration needs to know of the run: addresses, and the run's number."""

    mqtt: str
    """``host:port`` of the MQTT broker."""
    rocketmq: str
    """``host:port`` of RocketMQ's proxy."""
    name_server: str = "127.0.0.1:9876"
    """``host:port`` of RocketMQ's name server."""
    run_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One shape of work.

    ``publishes`` is the pattern of the MQTT topics: ``{run}`` is the run's number, ``{device}`` the device's name.
    Topics are new for each run where the pattern allows it: a session left in the broker never sees a later run's
    messages. ``variants`` are encoded MQTT 5 properties that follow the context, with their weights: a message carries
    one of them. ``environment`` is added to the gateway's.
    """

    name: str
    about: str
    config: Callable[[Setting], str]
    publishes: str = "bench/{run}/{device}"
    devices: int = 100
    topic: str = "bench"
    message_type: str = "NORMAL"
    payload: int = SIZE
    version: str = "5"
    carrier: str = "tp"
    variants: tuple[tuple[int, tuple[tuple[str, str], ...]], ...] = ((1, ()),)
    environment: dict[str, str] = field(default_factory=dict)
    backlog: int = BACKLOG

    def topics(self, run_id: int) -> str:
        """The pattern of this run's MQTT topics, with ``{device}`` left in it."""
        return self.publishes.replace("{run}", str(run_id))


def one_route(
    *, mqtt: str = "", route: str = "", topic: str = "bench", remoting: bool = False, workers: int = 1
) -> Callable[[Setting], str]:
    """A configuration of one route and every other setting as it comes, but for further lines of either table.

    ``remoting`` sends without the proxy, ``workers`` is how many processes share the subscription.
    """

    def config(setting: Setting) -> str:
        endpoints = f'"{setting.name_server}"\nprotocol = "remoting"' if remoting else f'"{setting.rocketmq}"'
        gateway = f"[gateway]\nworkers = {workers}\n\n" if workers > 1 else ""
        return f"""\
name = "bench-{setting.run_id}"

{gateway}[mqtt]
url = "mqtt://{setting.mqtt}"
{mqtt}
[rocketmq]
endpoints = {endpoints}

[[routes]]
filter = "bench/{setting.run_id}/{{device}}"
topic = "{topic}"
{route}
[admin]
port = 0
"""

    return config


def readme_config(setting: Setting) -> str:
    """The README's own configuration, with the addresses of this run.

    :raises ValueError: the README has no such configuration any more.
    """
    found = re.search(r"^```toml\n(\[mqtt\]\n.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError("README.md holds no configuration that begins with [mqtt]")
    text = found[1]
    for setting_name, value in (("url", f"mqtt://{setting.mqtt}"), ("endpoints", setting.rocketmq)):
        text, count = re.subn(rf'^{setting_name} = ".*"$', f'{setting_name} = "{value}"', text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"README.md: the configuration has {count} settings {setting_name}, expected one")
    return text


# The README's configuration has no name and no admin port, and its filter is the same in every run. A session that
# ends with its connection leaves nothing behind for the next run.
README_ENVIRONMENT = {"SPANBRIDGE__ADMIN__PORT": "0", "SPANBRIDGE__MQTT__SESSION_EXPIRY": "0"}

_TEN_PROPERTIES = (
    (":content-type", "application/json"),
    (":correlation-data", "0123456789ab"),
    *((f"property-{number}", f"value {number} of ten") for number in range(10)),
)

SHAPES = (
    Shape(name="plain", about="one route, nothing else; 100 topics, 128 bytes", config=one_route()),
    Shape(
        name="readme",
        about="the README's configuration; every fourth message has the user property kind",
        config=readme_config,
        publishes="devices/{device}/telemetry",
        topic="telemetry",
        variants=((6, ()), (1, (("kind", "alarm"),)), (1, (("kind", "status"),))),
        environment=README_ENVIRONMENT,
    ),
    Shape(name="topics_10k", about="as plain, 10 000 topics", config=one_route(), devices=10_000),
    Shape(
        name="properties",
        about="as plain, ten user properties, content type, correlation data",
        config=one_route(),
        variants=((1, _TEN_PROPERTIES),),
    ),
    Shape(name="payload_4k", about="as plain, 4096 bytes", config=one_route(), payload=4096),
    Shape(
        name="ordered",
        about="FIFO topic of 8 queues, message group is the device",
        config=one_route(route='message_group = "{device}"\n', topic="bench-fifo"),
        topic="bench-fifo",
        message_type="FIFO",
    ),
    Shape(name="workers_2", about="as plain, two workers", config=one_route(workers=2)),
    Shape(name="plain_remoting", about="as plain, to the brokers without a proxy", config=one_route(remoting=True)),
    Shape(
        name="ordered_remoting",
        about="as ordered, to the brokers without a proxy",
        config=one_route(route='message_group = "{device}"\n', topic="bench-fifo", remoting=True),
        topic="bench-fifo",
        message_type="FIFO",
    ),
    Shape(
        name="v311_suffix",
        about="as plain, MQTT 3.1.1, the context is in the topic",
        config=one_route(mqtt='version = "3.1.1"\n', route='carriers = ["topic-suffix"]\n'),
        version="3.1.1",
        carrier="suffix",
    ),
)  # fmt: skip
PLAIN = SHAPES[0]


def shape(name: str) -> Shape:
    """The shape of that name.

    :raises KeyError: there is none.
    """
    return {one.name: one for one in SHAPES}[name]
