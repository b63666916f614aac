"""Zero-code OpenTelemetry instrumentors for MQTT and RocketMQ clients.

``opentelemetry-instrument python app.py`` finds the instrumentors by their entry points; nothing here needs importing.
Code that wants to say precisely what it works on does so::

    from spanbridge_instrumentation import process

    async for message in client.messages:
        with process(message):
            ...

Each client has its instrumentor: :class:`spanbridge_instrumentation.paho.PahoInstrumentor` for paho-mqtt 2 and aiomqtt.
Importing this package loads no client library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spanbridge_instrumentation._process import process

__all__ = ["process"]


def __getattr__(name: str) -> Any:
    """``process``, which is noted: a program that asks for it says itself what it works on, so its loops do not."""
    if name != "process":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from spanbridge_instrumentation._process import process  # noqa: PLC0415
    from spanbridge_instrumentation._shared.loops import say_by_hand  # noqa: PLC0415

    say_by_hand()
    return process
