"""``[[routes]]``: which messages go where, and what of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from spanbridge.config.models.base import Conflict, Kind, Section, Size, invalid
from spanbridge.config.models.filters import FilterText, parse_filter
from spanbridge.config.problems import did_you_mean
from spanbridge.core import rocketmq_rules as rules
from spanbridge.core import routes as core
from spanbridge.core.policy import Carrier, ContextPolicy
from spanbridge.core.template import FIELD_NAMES, Template, TemplateError
from spanbridge.core.template import Field as TemplateField


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
            hint = did_you_mean(field.name, [*names, *FIELD_NAMES])
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


def is_reserved_name(name: str) -> bool:
    """Names in parentheses, such as ``(unroutable)``, stand for what no route took."""
    return name.startswith("(") and name.endswith(")")


def check_route_name(name: str) -> str:
    """A name that metrics and /status do not use for something else."""
    if is_reserved_name(name):
        raise invalid("is kept for the gateway itself, as all names in parentheses are", "leave out the parentheses")
    return name


RouteName = Annotated[str, AfterValidator(check_route_name)]
TemplateText = Annotated[str, AfterValidator(check_template), Kind("template")]
TopicText = Annotated[TemplateText, _checked_literal(rules.topic_problem)]
TagText = Annotated[TemplateText, _checked_literal(rules.tag_problem)]
KeyText = Annotated[TemplateText, _checked_literal(rules.key_problem)]
GroupText = Annotated[TemplateText, _checked_literal(rules.group_problem)]
TimestampText = Annotated[TemplateText, AfterValidator(check_timestamp)]


class RouteSection(Section):
    """Messages whose topic matches `filter` go to `topic`. Of several matching routes the most specific one wins."""

    filter: FilterText = Field(
        description="MQTT topic filter; a level may be `+` or `{name}` (a `+` that templates can use), the last also "
        "`#`.",
        examples=["devices/{device}/telemetry"],
    )
    topic: TopicText = Field(
        description="RocketMQ topic. A message for which it comes out empty is unroutable.", examples=["telemetry"]
    )
    name: RouteName | None = Field(
        default=None, min_length=1, description="Name in metrics and logs. Defaults to the filter."
    )
    source: str | None = Field(default=None, description="Only messages of the broker with this `name`.")
    qos: Literal[0, 1, 2] = Field(default=1, description="QoS of the subscription. 0 is at most once.")
    tag: TagText | None = Field(default=None, description="Message tag.")
    keys: list[KeyText] = Field(default=[], max_length=16, description="Message keys, for finding a message again.")
    message_group: GroupText | None = Field(
        default=None,
        description="Message group: messages of one group stay in order. For FIFO topics, and only there. A message "
        "for which it comes out empty is refused alone (`uplink.rejected_topic`).",
    )
    delivery_timestamp: TimestampText | None = Field(
        default=None,
        description="Unix time in milliseconds at which consumers see the message. For DELAY topics, and only there. "
        "A message for which it comes out empty is refused alone.",
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

    spool: bool = Field(
        default=True,
        description="Whether its messages go to the spool while RocketMQ is away, where there is a `[spool]`.",
    )
    when_full: Literal["block", "drop_oldest", "drop_newest"] = Field(
        default="block",
        description="What happens when the spool is full: `block` leaves messages with the MQTT broker, `drop_newest` "
        "drops them, `drop_oldest` gives up the oldest file of the spool that holds such messages only.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """A topic has one message type, and a name means one thing."""
        if self.message_group is not None and self.delivery_timestamp is not None:
            message = "cannot be used with `message_group`: a RocketMQ topic is either FIFO or DELAY"
            yield Conflict(("delivery_timestamp", "message_group"), message, "remove one, or make two routes")
        if self.name is None and is_reserved_name(self.filter):
            yield Conflict(("filter", "name"), "as a name is kept for the gateway itself", "give the route a `name`")

    @property
    def effective_name(self) -> str:
        """``name``, or the filter."""
        return self.name or self.filter

    @property
    def message_type(self) -> str:
        """The type of RocketMQ topic that takes its messages."""
        return "DELAY" if self.delivery_timestamp else "FIFO" if self.message_group else "NORMAL"

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
            spool=self.spool,
            when_full=self.when_full,
        )


def _optional(text: str | None) -> Template | None:
    return None if text is None else Template.parse(text)
