"""MQTT 5.0 and 3.1.1 as bytes: a decoder that is fed, and functions that encode. No sockets, no clocks."""

from __future__ import annotations

from spanbridge.mqtt.codec.answers import Answers
from spanbridge.mqtt.codec.decoder import Decoder, Publishes

__all__ = ["Answers", "Decoder", "Publishes"]
