"""A suffix of an MQTT topic as a carrier, for MQTT 3.1.1, which has no user properties."""

from .context import TraceContext, context_from_compact, parse_compact
from .errors import TraceContextError, wrong_type
from .extracted import Extracted

SUFFIX = "/~tp/"
"""Between the plain topic and the compact form."""

MAX_TOPIC_BYTES = 65535
"""MQTT 3.1.1 section 1.5.3: a UTF-8 string's length has two bytes."""


def inject_topic(topic: str, context: TraceContext, retain: bool = False) -> str:
    """The topic to publish to. A suffix already there is replaced.

    The topic comes back as it is when the message is to be retained (a broker would keep one message per trace) and
    when it would grow over 65535 bytes.

    :raises TypeError: the topic is not text.
    """
    plain = split_topic(topic)[0]
    if retain:
        return topic
    result = plain + SUFFIX + context.compact
    # A character has at most four bytes, so that most topics need not be encoded to know.
    fits = len(result) * 4 <= MAX_TOPIC_BYTES or len(result.encode("utf-8", "surrogatepass")) <= MAX_TOPIC_BYTES
    return result if fits else topic


def extract_topic(topic: str) -> Extracted:
    """The context in a topic's suffix. No topic makes it raise.

    :raises TypeError: the topic is not text.
    """
    _, context, problem = split_topic(topic)
    return Extracted(context, problem)


def split_topic(topic: str) -> tuple[str, "TraceContext | None", "str | None"]:
    """The plain topic, the context and the problem. No topic makes it raise.

    A suffix that does not decode is taken off as well: a context must not keep the message from its route.

    :raises TypeError: the topic is not text. Some devices' clients give bytes, which are to be decoded first.
    """
    if not isinstance(topic, str):
        raise wrong_type("topic", "text", topic)
    if SUFFIX not in topic:
        return topic, None, None
    if topic[-40:-35] == SUFFIX and len(topic) > 40:
        context = context_from_compact(topic[-35:])
        if context is not None:
            return topic[:-40], context, None
    at = topic.rfind("/")
    if at < len(SUFFIX) or topic[at - 4 : at + 1] != SUFFIX:
        return topic, None, None
    try:
        return topic[: at - 4], parse_compact(topic[at + 1 :]), None
    except TraceContextError as error:
        return topic[: at - 4], None, error.problem


def suffix_filter(topic_filter: str) -> "str | None":
    """The filter to subscribe to as well, so that suffixed topics arrive; None when the filter has them already."""
    return None if topic_filter.endswith("#") else topic_filter + SUFFIX + "+"
