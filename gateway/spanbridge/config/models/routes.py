"""``[[routes]]``: which messages go where, and what of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from spanbridge.config.models.base import Kind, Section, Size, invalid
from spanbridge.config.models.mqtt import parse_filter
from spanbridge.config.problems import did_you_mean
from spanbridge.core import rocketmq_rules as rules
from spanbridge.core import routes as core
from spanbridge.core.policy import Carrier, ContextPolicy
from spanbridge.core.template import Field as TemplateField
from spanbridge.core.template import Template, TemplateError


def check_filter(text: str) -> str:
    """A filter that MQTT allows, with unique level names."""
    parse_filter(text)
    return text


def check_template(text: str, info: ValidationInfo) -> str:
    """A template whose fields the route's filter can fill."""
    if not text:
        raise invalid("is empty", "leave the setting out to send none")
    try:
        template = Template.parse(text)
    except TemplateError as error:
        raise invalid(str(error), "`{{` and `}}` are literal braces") from None
    filter_text = info.data.get("filter")
    if filter_text is not None:
        topic_filter = parse_filter(filter_text)
        for field in template.fields:
            _check_field(field, topic_filter)
    return text


def _check_field(field: TemplateField, topic_filter: core.TopicFilter) -> None:
    if field.kind == "level":
        names = [name for _, name in topic_filter.names]
        if field.name not in names:
            hint = did_you_mean(field.name, [*names, "topic", "client_id"])
            raise invalid(f"the filter has no level named `{{{field.name}}}`", hint or _known(names))
    elif field.kind == "index":
        levels = len(topic_filter.levels)
        if int(field.name) >= levels and topic_filter.levels[-1] != "#":
            raise invalid(
                f"the filter has {levels} levels, so `topic[{field.name}]` is always empty", "levels count from 0"
            )


def _known(names: list[str]) -> str:
    if names:
        return "it names " + ", ".join(f"`{{{name}}}`" for name in names)
    return "name one in the filter, as in `devices/{device}/telemetry`"


def _checked_literal(problem_of: Callable[[str], str | None]) -> AfterValidator:
    """What is written out, without fields, has to be legal in RocketMQ as it stands; the rest shows at run time."""

    def check(text: str) -> str:
        template = Template.parse(text)
        literal = "".join(part for part in template.parts if isinstance(part, str))
        problem = None if template.fields else problem_of(literal)
        if problem is not None:
            raise invalid(f"RocketMQ does not take it: it {problem}")
        return text

    return AfterValidator(check)


def check_timestamp(text: str) -> str:
    """What is written out of a delivery timestamp has to be part of a number."""
    written = [part for part in Template.parse(text).parts if isinstance(part, str)]
    if not all(part.isascii() and part.isdecimal() for part in written):
        raise invalid("is never Unix time in milliseconds", "take it from the message, as in `{user.deliver-at}`")
    return text


FilterText = Annotated[str, AfterValidator(check_filter), Kind("filter")]
TemplateText = Annotated[str, AfterValidator(check_template), Kind("template")]
TopicText = Annotated[TemplateText, _checked_literal(rules.topic_problem)]
TagText = Annotated[TemplateText, _checked_literal(rules.tag_problem)]
KeyText = Annotated[TemplateText, _checked_literal(rules.key_problem)]
GroupText = Annotated[TemplateText, _checked_literal(rules.group_problem)]
TimestampText = Annotated[TemplateText, AfterValidator(check_timestamp)]


class Route(Section):
    """Messages whose topic matches `filter` go to `topic`. Of several matching routes the most specific one wins."""

    filter: FilterText = Field(
        description="MQTT topic filter; a level may be `+`, `{name}` (a `+` that templates can use), the last also `#`."
    )
    topic: TopicText = Field(description="RocketMQ topic.")
    name: str | None = Field(
        default=None, min_length=1, description="Name in metrics and logs. Defaults to the filter."
    )
    source: str | None = Field(default=None, description="Only messages of the broker with this `name`.")
    qos: Literal[0, 1, 2] = Field(default=1, description="QoS of the subscription. 0 is at most once.")
    tag: TagText | None = Field(default=None, description="Message tag.")
    keys: list[KeyText] = Field(default=[], max_length=16, description="Message keys, for finding a message again.")
    message_group: GroupText | None = Field(
        default=None, description="Message group: messages of one group stay in order. For FIFO topics, and only there."
    )
    delivery_timestamp: TimestampText | None = Field(
        default=None, description="Unix time in milliseconds at which consumers see the message. For DELAY topics."
    )
    context: ContextPolicy = Field(
        default=ContextPolicy.CONTINUE,
        strict=False,
        description="The device's trace: `continue` it, `link` a new one to it, or hand it on by `passthrough`.",
    )
    trust: bool = Field(default=True, description="Believe the device's trace context. If not, a new trace starts.")
    carriers: list[Annotated[Carrier, Field(strict=False)]] = Field(
        default=[],
        description="Where MQTT 3.1.1 devices put their trace context: `topic-suffix`, `json-payload`.",
    )
    max_payload: Size | None = Field(
        default=None, ge=1, description="Larger payloads go to `uplink.rejected_topic`, or are dropped and counted."
    )

    @property
    def effective_name(self) -> str:
        """``name``, or the filter."""
        return self.name or self.filter

    def build(self) -> core.Route:
        """The route as the core uses it."""
        return core.Route(
            name=self.effective_name,
            filter=core.TopicFilter.parse(self.filter),
            topic=Template.parse(self.topic),
            tag=_optional(self.tag),
            keys=tuple(Template.parse(key) for key in self.keys),
            message_group=_optional(self.message_group),
            delivery_timestamp=_optional(self.delivery_timestamp),
            context=self.context,
            trust=self.trust,
            carriers=frozenset(self.carriers),
            source=self.source,
            max_payload=self.max_payload,
        )


def _optional(text: str | None) -> Template | None:
    return None if text is None else Template.parse(text)
