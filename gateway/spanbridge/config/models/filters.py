"""Topic filters as people write them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from spanbridge.config.models.base import Kind, invalid
from spanbridge.core.routes import RouteError, TopicFilter

# A broker takes these first levels off: its messages come under the rest, which the filter as written does not match.
_STRIPPED = {
    "$queue": ("is a shared subscription of EMQX", "name a group by `share` in [mqtt]"),
    "$exclusive": (
        "is an exclusive subscription of EMQX",
        "it has no counterpart here: run one gateway, or several with `share` in [mqtt]",
    ),
}


def parse_filter(text: str) -> TopicFilter:
    """A filter to subscribe to, with the core's complaint as the validator's."""
    prefix, _, rest = text.partition("/")
    if prefix == "$share":
        raise invalid("is a shared subscription, whose messages come without `$share/GROUP/`", _share_hint(rest))
    if prefix in _STRIPPED:
        message, advice = _STRIPPED[prefix]
        raise invalid(
            f"{message}, whose messages come without `{prefix}/`",
            f'{advice}, and write `filter = "{rest or "…"}"` here',
        )
    try:
        return TopicFilter.parse(text)
    except RouteError as error:
        raise invalid(str(error)) from None


def _share_hint(text: str) -> str:
    group, _, rest = text.partition("/")
    return f'set `share = "{group or "…"}"` in [mqtt], and `filter = "{rest or "…"}"` here'


def check_filter(text: str) -> str:
    """A filter that MQTT allows, with unique level names."""
    parse_filter(text)
    return text


def check_extra_filter(text: str) -> str:
    """A filter that only brings messages: nothing looks at its levels."""
    if parse_filter(text).names:
        raise invalid("names a level, and no template looks at it here", "write `+`, or make a route of it")
    return text


FilterText = Annotated[str, AfterValidator(check_filter), Kind("filter")]
ExtraFilter = Annotated[str, AfterValidator(check_extra_filter), Kind("filter")]
