"""MQTT adapters: sources for v5 and v3.1.1."""
