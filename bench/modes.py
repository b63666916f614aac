"""In which modes it is measured, on the way up and on the way down: the gateway, and the bridge one would write."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One column of the benchmark.

    ``carrier`` is how the devices send their context ("none": they send none), ``sampled`` how many of a hundred
    contexts carry the sampled flag, ``exports`` whether the bridge has an exporter at all. ``backlog`` is how many
    messages the generator may be ahead of RocketMQ: always many times what the bridge has in flight. ``down`` is the
    way from RocketMQ to the devices; there the generator is ahead of the devices, and contexts are ``traceparent``.
    ``remoting`` receives without the proxy.
    """

    name: str
    bridge: str
    carrier: str
    sampled: int
    exports: bool
    backlog: int
    about: str
    down: bool = False
    remoting: bool = False


MODES = (
    Mode(
        name="untraced", bridge="gateway", carrier="tp", sampled=100, exports=False, backlog=8000,
        about="gateway, the same messages, nothing exported (the default): contexts handed on, metrics for Prometheus",
    ),
    Mode(
        name="sampled_10", bridge="gateway", carrier="tp", sampled=10, exports=True, backlog=8000,
        about="gateway, every device sends a context, 10 % of them sampled",
    ),
    Mode(
        name="traced", bridge="gateway", carrier="tp", sampled=100, exports=True, backlog=8000,
        about="gateway, every device sends a sampled context, all spans exported",
    ),
    Mode(
        name="baseline_untraced", bridge="baseline", carrier="traceparent", sampled=100, exports=False, backlog=2000,
        about="paho-mqtt callback to rocketmq-python-client send_async, no OpenTelemetry; contexts are not looked at",
    ),
    Mode(
        name="baseline_traced", bridge="baseline", carrier="traceparent", sampled=100, exports=True, backlog=2000,
        about="the same, with two OpenTelemetry SDK spans a message",
    ),
    Mode(
        name="downlink", bridge="gateway", carrier="traceparent", sampled=100, exports=False, backlog=8000, down=True,
        about="gateway, RocketMQ to MQTT, every command with a sampled context, nothing exported (the default)",
    ),
    Mode(
        name="downlink_traced", bridge="gateway", carrier="traceparent", sampled=100, exports=True, backlog=8000,
        down=True, about="the same, all spans exported",
    ),
    Mode(
        name="downlink_remoting", bridge="gateway", carrier="traceparent", sampled=100, exports=False, backlog=8000,
        down=True, remoting=True, about='as `downlink`, `protocol = "remoting"`',
    ),
    Mode(
        name="baseline_downlink", bridge="baseline", carrier="traceparent", sampled=100, exports=False, backlog=2000,
        down=True, about="SimpleConsumer receive to paho-mqtt publish to ack, no OpenTelemetry; contexts not looked at",
    ),
)  # fmt: skip

SHAPE_MODES = ("untraced", "traced")
"""The modes in which every shape is measured."""
COMPARED = (*SHAPE_MODES, "downlink", "downlink_traced")
"""The modes in which another commit's gateway is measured as well."""


def mode(name: str) -> Mode:
    """The mode of that name.

    :raises KeyError: there is none.
    """
    return {one.name: one for one in MODES}[name]
