"""The configuration that ``spanbridge init`` writes: it works as it stands, and shows what people change first."""

EXAMPLE = """\
# spanbridge: MQTT to Apache RocketMQ and back, with the trace context carried across.
# Check it:  spanbridge check -c spanbridge.toml
# Run it:    spanbridge run -c spanbridge.toml
#
# Text may hold ${NAME} or ${NAME:-default} from the environment. Secrets may be "file:/run/secrets/name".
# Any setting can be overridden: SPANBRIDGE__MQTT__URL=mqtt://broker SPANBRIDGE__ROCKETMQ__ENDPOINTS=proxy:8081

# name = "edge-1"                   # unique per gateway; default: "spanbridge-" and the host's name

# [gateway]
# workers = 2                       # processes that share the work; `spanbridge check` says what that does to order

[mqtt]                              # several brokers: [[mqtt]], each with a name
url = "mqtt://127.0.0.1:1883"       # mqtts:// for TLS
version = "5"                       # or "3.1.1"
# client_id = "spanbridge-edge-1"   # the session's name at the broker; default: the gateway's name
# username = "gateway"
# password = "file:/run/secrets/mqtt-password"
# session_expiry = "1d"             # how long the broker keeps messages while the gateway is away
# share = "gateways"                # several gateways split the messages
# subscribe = ["#"]                 # beside the routes' filters; see uplink.unroutable_topic

# [mqtt.tls]                        # with mqtts://
# ca_file = "ca.pem"                # relative to this file
# cert_file = "gateway.pem"         # mutual TLS
# key_file = "gateway.key"

[rocketmq]
endpoints = "127.0.0.1:8081"        # the gRPC proxy; several: "a:8081;b:8081"
# access_key = "gateway"
# secret_key = "file:/run/secrets/rocketmq-secret"
# tls = true

# The most specific matching route wins, wherever it stands.
[[routes]]
filter = "devices/{device}/telemetry"   # + and # as in MQTT; {device} is a + with a name
topic = "telemetry"                     # templates: {device}, {topic}, {topic[1]}, {source}, {user.site|none}
keys = ["{device}"]
# tag = "{user.kind|reading}"
# message_group = "{device|none}"       # FIFO topics only: keeps a device's messages in order
# context = "continue"                  # or "link", "passthrough"
# trust = true                          # false: do not believe the device's trace context
# carriers = ["topic-suffix"]           # how MQTT 3.1.1 devices send it; also "json-payload"

# Commands: what a consumer group receives is published to devices.
# [[downlinks]]
# topic = "commands"                    # RocketMQ topic
# consumer_group = "spanbridge-commands"  # one for each downlink; it has to exist
# mqtt_topic = "devices/{key}/commands" # {key}, {keys}, {tag}, {message_group}, {topic}, {property.site|none}
# filter = "reboot || update"           # tags; SQL92 with filter_type = "sql92"
# qos = 1
# expiry = "1h"                         # how long a message may wait for its device
# away = "wait"                         # or "retain", "expire", "retry": what becomes of it meanwhile
# carrier = "compact"                   # or "w3c", "topic-suffix", "json-payload", "none"

[uplink]
# unroutable_topic = "mqtt-unroutable"  # for messages without a route, of those that `subscribe` above brings
# rejected_topic = "mqtt-rejected"      # dead letters; `rejected = "spool"` keeps them here; else dropped
# max_in_flight = 4096                  # messages received and not yet acknowledged
# drain_timeout = "30s"

[downlink]
# max_in_flight = 1024                  # messages of one downlink received and not yet acknowledged
# invisible_time = "1m"                 # how long RocketMQ hides a message that the gateway has
# attempts = 3                          # for a message of a message group, before those behind it wait for RocketMQ

[admin]
# port = 9464                           # /livez /readyz /metrics /status on 127.0.0.1

[telemetry]                             # OTEL_EXPORTER_OTLP_ENDPOINT and friends say where to
# service_name = "spanbridge"
# log_format = "auto"                   # text on a terminal, else JSON lines
# log_level = "info"
"""
