"""In which modes it is measured: three of the gateway, two of the bridge one would write without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One column of the benchmark.

    ``carrier`` is how the devices send their context ("none": they send none), ``sampled`` how many of a hundred
    contexts carry the sampled flag, ``exports`` whether the bridge has an exporter at all. ``backlog`` is how many
    messages the generator may be ahead of RocketMQ: always many times what the bridge has in flight.
    """

    name: str
    bridge: str
    carrier: str
    sampled: int
    exports: bool
    backlog: int
    about: str


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
)  # fmt: skip

SHAPE_MODES = ("untraced", "traced")
"""The modes in which every shape is measured."""


def mode(name: str) -> Mode:
    """The mode of that name.

    :raises KeyError: there is none.
    """
    return {one.name: one for one in MODES}[name]
