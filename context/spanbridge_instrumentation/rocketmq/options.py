"""Options of the RocketMQ instrumentor: keywords of ``instrument()`` and ``instrument_client()``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import Span

from spanbridge_instrumentation._shared.loops import LoopSpans

SendHook = Callable[[Span, Any], Any]
"""``hook(span, message)``, before the message is sent."""

ReceiptHook = Callable[[Span, Any], Any]
"""``hook(span, receipt)``, when the broker has taken the message."""

ReceiveHook = Callable[[Span, Sequence[Any]], Any]
"""``hook(span, messages)``, when a poll brought messages."""

ConsumeHook = Callable[[Span, Any], Any]
"""``hook(span, message)``, before the message is processed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RocketMQOptions:
    """Hooks get spans that are recorded only; what they raise is told once and goes no further."""

    send_hook: SendHook | None = None
    receipt_hook: ReceiptHook | None = None
    receive_hook: ReceiveHook | None = None
    consume_hook: ConsumeHook | None = None
    loop_spans: LoopSpans
