"""``[[downlinks]]`` and ``[downlink]``: which RocketMQ messages become which MQTT messages, and within which bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from spanbridge.config.models.base import Conflict, Duration, Kind, Section, Size, WholeSeconds, invalid
from spanbridge.config.models.routes import is_reserved_name
from spanbridge.config.problems import did_you_mean
from spanbridge.core import rocketmq_rules as rules
from spanbridge.core.downlinks import Away, ContextForm, Downlink
from spanbridge.core.policy import ContextPolicy
from spanbridge.core.template import DOWN, Template, TemplateError

USER_PROPERTY_CARRIERS = (ContextForm.COMPACT, ContextForm.W3C)
"""Carriers that MQTT 3.1.1 has no place for."""


def _legal(problem_of: Callable[[str], str | None], what: str) -> AfterValidator:
    def check(text: str) -> str:
        problem = problem_of(text)
        if problem is not None:
            raise invalid(f"is not {what}: it {problem}")
        return text

    return AfterValidator(check)


def check_publish_template(text: str) -> str:
    """A template over a RocketMQ message, whose written parts an MQTT topic may hold (MQTT 5.0 section 4.7)."""
    if not text:
        raise invalid("is empty", "a topic is at least one character long (MQTT-4.7.3-1)")
    try:
        template = Template.parse(text, DOWN)
    except TemplateError as error:
        raise invalid(str(error), _meant(text) or "`{{` and `}}` are literal braces") from None
    written = "".join(part if isinstance(part, str) else part.default for part in template.parts)
    if any(character in written for character in "+#\0"):
        raise invalid("a topic to publish to has no `+`, `#` or NUL (MQTT-3.3.2-2)")
    return text


def _meant(text: str) -> str | None:
    """The field that the first unknown name was probably meant to be."""
    for part in text.split("{")[1:]:
        name = part.partition("}")[0].partition("|")[0]
        if name not in DOWN.names and not name.startswith("property."):
            prefix, dot, rest = name.partition(".")
            if dot and prefix in ("user", "properties", "prop"):
                return f"did you mean `{{property.{rest}}}`?"
            return did_you_mean(name, DOWN.names)
    return None


PublishText = Annotated[str, AfterValidator(check_publish_template), Kind("template")]
ReceivedTopic = Annotated[str, _legal(rules.received_topic_problem, "a topic RocketMQ takes")]
GroupName = Annotated[str, _legal(rules.consumer_group_problem, "a consumer group RocketMQ takes")]


class DownlinkSection(Section):
    """Messages of `topic` that `consumer_group` receives are published to `mqtt_topic`."""

    topic: ReceivedTopic = Field(description="RocketMQ topic to receive from.", examples=["commands"])
    consumer_group: GroupName = Field(
        description="Consumer group that keeps the place in the topic. It has one subscription: no other downlink and "
        "no other application may use it for anything else.",
        examples=["spanbridge-commands"],
    )
    mqtt_topic: PublishText = Field(
        description="MQTT topic to publish to: `{key}` (the first), `{keys}`, `{tag}`, `{message_group}`, `{topic}`, "
        "`{property.NAME}`. A message that lacks a field without a default, or for which it is no topic, is rejected.",
        examples=["devices/{key}/commands"],
    )
    name: str | None = Field(default=None, min_length=1, description="Name in metrics and logs. Defaults to the topic.")
    filter: str = Field(
        default="*", min_length=1, description='Which messages: `*`, a tag, tags (`"reboot || update"`), or SQL92.'
    )
    filter_type: Literal["tag", "sql92"] = Field(
        default="tag",
        description="What `filter` is. Over gRPC, `sql92` works whatever the brokers' `enablePropertyFilter` is.",
    )
    broker: str | None = Field(
        default=None, description="`name` of the `[[mqtt]]` to publish to. Needed when there are several."
    )
    qos: Literal[0, 1, 2] = Field(
        default=1, description="QoS to publish with; a message's own `mqtt.qos` goes before it. 0 is at most once."
    )
    retain: bool = Field(
        default=False, description="Publish with RETAIN; a message's own `mqtt.retain` goes before it."
    )
    expiry: WholeSeconds | None = Field(
        default=None,
        ge=1,
        le=0xFFFFFFFF,
        description="How long a message is wanted, from when its producer made it (Message Expiry Interval). A "
        "message's own `mqtt.expiry` goes before it. What is no longer wanted is dropped and counted.",
    )
    away: Away = Field(
        default=Away.WAIT,
        strict=False,
        description="What becomes of a message whose device is not connected: `wait` in its session at the MQTT "
        "broker, `retain` it there, let it `expire`, or `retry` until somebody subscribes or its attempts are used up "
        "(MQTT 5 only).",
    )
    context: ContextPolicy = Field(
        default=ContextPolicy.CONTINUE,
        strict=False,
        description="The sender's trace: `continue` it, `link` a new one to it, or hand it on by `passthrough`.",
    )
    trust: bool = Field(default=True, description="Believe the sender's trace context. If not, a new trace starts.")
    carrier: ContextForm | None = Field(
        default=None,
        strict=False,
        description="How the trace context travels to the device: user property `tp` (`compact`) or `traceparent` "
        "(`w3c`), two more levels of the topic (`topic-suffix`), a member of the payload (`json-payload`), or `none`. "
        "Defaults to `compact`, with MQTT 3.1.1 to `none`.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """What MQTT or RocketMQ cannot do, whatever the broker."""
        if self.filter_type == "tag" and (problem := rules.tag_filter_problem(self.filter)) is not None:
            hint = 'separate tags by `||`, or set `filter_type = "sql92"`'
            yield Conflict(("filter", "filter_type"), f"is no tag expression: it {problem}", hint)
        if self.carrier is ContextForm.TOPIC_SUFFIX and (self.retain or self.away is Away.RETAIN):
            cause = "retain" if self.retain else "away"
            message = "cannot be used with retained messages: each would stay under a topic of its own"
            yield Conflict(("carrier", cause), message, "use another carrier, or do not retain")
        if self.away is Away.RETRY and self.qos == 0:
            message = "is not known at QoS 0: the broker answers nothing"
            yield Conflict(("away", "qos"), message, "set `qos = 1`")
        if self.away is Away.EXPIRE and self.expiry is None:
            yield Conflict(("away", "expiry"), "needs `expiry`", 'set `expiry = "1h"`, or `away = "wait"`')
        if is_reserved_name(self.effective_name):
            setting = "topic" if self.name is None else "name"
            yield Conflict((setting,), "is kept for the gateway itself, as all names in parentheses are")

    @property
    def effective_name(self) -> str:
        """``name``, or the topic."""
        return self.name or self.topic

    def build(self, broker: str) -> Downlink:
        """The downlink as the core uses it, to publish to the ``[[mqtt]]`` of that name."""
        return Downlink(
            name=self.effective_name,
            topic=self.topic,
            group=self.consumer_group,
            publish=Template.parse(self.mqtt_topic, DOWN),
            broker=broker,
            filter=self.filter,
            sql=self.filter_type == "sql92",
            qos=self.qos,
            retain=self.retain,
            expiry=self.expiry,
            away=self.away,
            context=self.context,
            trust=self.trust,
            form=self.carrier,
        )


class DownlinkBounds(Section):
    """RocketMQ to MQTT."""

    max_in_flight: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="Messages of one downlink, received and not yet acknowledged, at which it stops receiving.",
    )
    max_in_flight_bytes: Size = Field(
        default=16 << 20, ge=1 << 16, description="The same by size of bodies and properties."
    )
    invisible_time: Duration = Field(
        default=60.0,
        ge=10,
        le=43200,
        description="How long RocketMQ hides a received message from others. The gateway renews it while the message "
        "is in its hands; after a crash, others get the message this much later.",
    )
    drain_timeout: Duration = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="How long SIGTERM waits for the MQTT broker's answers. The rest is given back to RocketMQ at once.",
    )
    attempts: int = Field(
        default=3,
        ge=0,
        le=16,
        description="How often a message of a message group that the MQTT broker does not take now is published again "
        "from here, before it is nacked or goes to the dead letters. Other messages come again from RocketMQ.",
    )
    backoff_initial: Duration = Field(
        default=0.2, ge=0.01, le=60, description="Shortest pause between these attempts, and the first."
    )
    backoff_maximum: Duration = Field(default=2.0, ge=0.01, le=600, description="Longest pause between these attempts.")

    def conflicts(self) -> Iterator[Conflict]:
        """Pauses grow."""
        if self.backoff_maximum < self.backoff_initial:
            yield Conflict(("backoff_maximum", "backoff_initial"), "is smaller than `backoff_initial`")
