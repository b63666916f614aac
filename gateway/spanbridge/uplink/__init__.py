"""MQTT to RocketMQ."""
