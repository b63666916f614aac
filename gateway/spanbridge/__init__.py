"""spanbridge: an asyncio gateway between MQTT and Apache RocketMQ that carries one trace context across both."""

__version__ = "0.1.0"
