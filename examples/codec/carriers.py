"""Every carrier in two lines each: ``python examples/codec/carriers.py`` prints what goes over the wire."""

from spanbridge_context import (
    TraceContext,
    extract_rocketmq,
    extract_user_properties,
    inject_json,
    inject_rocketmq,
    inject_topic,
    inject_user_properties,
    split_json,
    split_topic,
)

context = TraceContext.new()
print("context          ", context.traceparent)

properties = inject_user_properties([("unit", "C")], context)
print("user properties  ", properties)
assert extract_user_properties(properties).context == context

properties = inject_user_properties([("unit", "C")], context, "w3c")
print("the same, w3c    ", properties)
assert extract_user_properties(properties).context == context

topic = inject_topic("site/a12/dev/7/temperature", context)
print("topic (3.1.1)    ", topic)
assert split_topic(topic) == ("site/a12/dev/7/temperature", context, None)

payload = inject_json(b'{"value": 21.50, "unit": "C"}', context)
print("payload (3.1.1)  ", payload.decode())
assert split_json(payload) == (b'{"value": 21.50, "unit": "C"}', context, None)

message = inject_rocketmq({"mqtt.topic": "site/a12/dev/7/temperature"}, context.child())
print("RocketMQ message ", message)
received, problem = extract_rocketmq(message)
assert problem is None
assert received is not None
assert received.trace_id == context.trace_id
