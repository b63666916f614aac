"""Zero-code OpenTelemetry instrumentors for MQTT and RocketMQ clients.

``opentelemetry-instrument python app.py`` finds the instrumentors by their entry points; nothing here needs importing.
Code that polls or loops names what it works on::

    from spanbridge_instrumentation import process

    async for message in client.messages:
        with process(message):
            ...

Each client has its instrumentor: :class:`spanbridge_instrumentation.paho.PahoInstrumentor` for paho-mqtt 2 and aiomqtt.
Importing this package loads no client library.
"""

from spanbridge_instrumentation.process import process

__all__ = ["process"]
