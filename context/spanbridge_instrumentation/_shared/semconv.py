"""Names of the OpenTelemetry semantic conventions for messaging, version 1.44, in one place.

They are written out here because the ``opentelemetry-semantic-conventions`` package keeps them in private modules
that move between releases, and sets no histogram buckets.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION_NAME: Final = "messaging.destination.name"
DESTINATION_TEMPLATE: Final = "messaging.destination.template"
CLIENT_ID: Final = "messaging.client.id"
CONSUMER_GROUP: Final = "messaging.consumer.group.name"
BATCH_COUNT: Final = "messaging.batch.message_count"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION_ID: Final = "messaging.message.conversation_id"
BODY_SIZE: Final = "messaging.message.body.size"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

METRIC_OPERATION_DURATION: Final = "messaging.client.operation.duration"
METRIC_PROCESS_DURATION: Final = "messaging.process.duration"
METRIC_SENT: Final = "messaging.client.sent.messages"
METRIC_CONSUMED: Final = "messaging.client.consumed.messages"

# Not in the conventions, which have no metric of lag or delay.
METRIC_DELAY: Final = "spanbridge.delivery.delay"
METRIC_DELAY_NEGATIVE: Final = "spanbridge.delivery.delay.negative"
METRIC_IN_FLIGHT: Final = "spanbridge.consumer.in_flight"
METRIC_IN_FLIGHT_AGE: Final = "spanbridge.consumer.in_flight.age"
DELAY_SINCE: Final = "spanbridge.delivery.delay.since"

DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Bucket boundaries in seconds that the metric conventions name for both duration histograms."""

DELAY_BUCKETS: Final = (*DURATION_BUCKETS, 30, 60, 300, 1800, 3600)
"""The same for delays, which are minutes and hours where something is late."""
