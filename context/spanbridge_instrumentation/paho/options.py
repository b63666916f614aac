"""Options of the paho instrumentor: keywords of ``instrument()``, else environment variables, else defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.trace import Span

from spanbridge_instrumentation._shared.loops import LoopSpans
from spanbridge_instrumentation._shared.safety import choice, number

from .templates import Templates, TopicTemplate

PublishHook = Callable[[Span, str, Any, Any], Any]
"""``hook(span, topic, payload, properties)``, before the message is handed to paho."""

AckHook = Callable[[Span, Any, Any], Any]
"""``hook(span, message_info, reason_code)``, when the broker acknowledged (``reason_code`` is None for QoS 0)."""

ConsumeHook = Callable[[Span, Any], Any]
"""``hook(span, message)``, before the message is processed."""

ENV_FORMAT: Final = "SPANBRIDGE_MQTT_CONTEXT_FORMAT"
ENV_CARRIER: Final = "SPANBRIDGE_MQTT_V311_CARRIER"
ENV_TEMPLATES: Final = "SPANBRIDGE_MQTT_TOPIC_TEMPLATES"
ENV_ACK_TIMEOUT: Final = "SPANBRIDGE_MQTT_ACK_TIMEOUT"

FORMATS: Final = ("compact", "w3c", "propagator")
CARRIERS: Final = ("none", "topic", "json")

MAX_PENDING: Final = 8192
"""Publishes of a process that may wait for their acknowledgement with a span open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PahoOptions:
    """``ack_timeout`` is in seconds; the rest is described in docs/instrumentation-paho.md."""

    context_format: str
    v311_carrier: str
    ack_timeout: float
    templates: Templates
    loop_spans: LoopSpans
    publish_hook: PublishHook | None = None
    ack_hook: AckHook | None = None
    consume_hook: ConsumeHook | None = None


def read_options(
    *,
    context_format: str | None = None,
    v311_carrier: str | None = None,
    ack_timeout: float | None = None,
    loop_spans: bool | None = None,
    topic_templates: Iterable[str] | None = None,
    topic_template: TopicTemplate | None = None,
    publish_hook: PublishHook | None = None,
    ack_hook: AckHook | None = None,
    consume_hook: ConsumeHook | None = None,
) -> PahoOptions:
    """The options in force.

    :raises ValueError: a keyword has a value that is not allowed. A variable that has is told and ignored.
    """
    if topic_templates is None:
        topic_templates = [each.strip() for each in os.environ.get(ENV_TEMPLATES, "").split(",") if each.strip()]
    return PahoOptions(
        context_format=choice(ENV_FORMAT, FORMATS, "compact", context_format),
        v311_carrier=choice(ENV_CARRIER, CARRIERS, "none", v311_carrier),
        ack_timeout=number(ENV_ACK_TIMEOUT, 600.0, ack_timeout),
        loop_spans=LoopSpans(loop_spans),
        templates=Templates(topic_templates, topic_template),
        publish_hook=publish_hook,
        ack_hook=ack_hook,
        consume_hook=consume_hook,
    )
