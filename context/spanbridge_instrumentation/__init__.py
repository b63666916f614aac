"""Zero-code OpenTelemetry instrumentors for MQTT and RocketMQ clients."""
