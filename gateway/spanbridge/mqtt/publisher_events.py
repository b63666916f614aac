"""What an MQTT publisher reports beside what every connection does (:mod:`spanbridge.mqtt.events`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Severity
from spanbridge.mqtt.events import MqttEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class SentAnew(MqttEvent):
    """The broker lost the publisher's session: unanswered messages are sent as new, so they may arrive twice."""

    name: ClassVar[str] = "mqtt.publish.sent_anew"
    severity: ClassVar[Severity] = Severity.WARNING

    def text(self) -> str:
        return (
            f"{self.source}: {self.broker} no longer has the session of this client; {self.count} unanswered "
            "message(s) are sent as new, so some may arrive twice"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QosLimited(MqttEvent):
    """The broker takes no QoS as high as MQTT has (Maximum QoS): messages above are published with its highest."""

    name: ClassVar[str] = "mqtt.publish.qos_limited"
    severity: ClassVar[Severity] = Severity.WARNING

    maximum_qos: int

    def text(self) -> str:
        loss = "messages can be lost on the way to the broker" if self.maximum_qos == 0 else "messages may come twice"
        return (
            f"{self.source}: {self.broker} takes QoS {self.maximum_qos} at most; what is above is published with "
            f"that, {loss}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainUnavailable(MqttEvent):
    """The broker retains nothing (Retain Available): messages to be retained are refused, not sent without."""

    name: ClassVar[str] = "mqtt.publish.retain_unavailable"
    severity: ClassVar[Severity] = Severity.WARNING

    def text(self) -> str:
        return f"{self.source}: {self.broker} does not retain messages; those that are to be retained are not published"
