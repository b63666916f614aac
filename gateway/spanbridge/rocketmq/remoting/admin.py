"""What is asked of name servers and brokers: routes, offsets, topics and consumer groups. No I/O.

Offsets count the messages of one queue from 0. All but the route is asked of the broker that holds the queue (its
master). The remoting port of a proxy in local mode gives routes and no offsets, and its refusal carries a wrong number:
who asks it runs into the deadline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.frame import Frame, parse_json

_READ: Final = 4  # PermName
_WRITE: Final = 2
_MASTER: Final = "0"  # MixAll.MASTER_ID


@dataclass(frozen=True, slots=True)
class BrokerQueues:
    """A topic's queues on one broker, and the address of its master (None while it has none)."""

    broker: str
    master: str | None
    read_queues: int
    write_queues: int


@dataclass(frozen=True, slots=True)
class TopicRoute:
    """Where a topic's queues are, broker by broker in the order of their names."""

    brokers: tuple[BrokerQueues, ...]


def topic_route(topic: str) -> Call[TopicRoute | None]:
    """A topic's route, or None where there is no such topic. Asked of a name server."""

    def read(response: Frame) -> TopicRoute | None:
        return _route(parse_json(response.body)) if response.code == ResponseCode.SUCCESS else None

    return Call(
        what=f"give the route of topic {topic!r}",
        code=RequestCode.GET_ROUTEINFO_BY_TOPIC,
        fields={"topic": topic, "acceptStandardJsonOnly": "true"},
        accepted=frozenset({ResponseCode.SUCCESS, ResponseCode.TOPIC_NOT_EXIST}),
        read=read,
    )


def _route(found: Any) -> TopicRoute:
    masters = {broker["brokerName"]: broker["brokerAddrs"].get(_MASTER) for broker in found["brokerDatas"]}
    brokers = [
        BrokerQueues(
            broker=str(queues["brokerName"]),
            master=_text_or_none(masters.get(queues["brokerName"])),
            read_queues=int(queues["readQueueNums"]) if int(queues["perm"]) & _READ else 0,
            write_queues=int(queues["writeQueueNums"]) if int(queues["perm"]) & _WRITE else 0,
        )
        for queues in found["queueDatas"]
    ]
    return TopicRoute(tuple(sorted(brokers, key=lambda queues: queues.broker)))


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def max_offset(topic: str, queue: int) -> Call[int]:
    """The offset that the queue's next message will get.

    A broker fills its queues a moment after it has answered a send, so this may lag behind the last response.
    """
    return _offset("max offset", RequestCode.GET_MAX_OFFSET, {"topic": topic, "queueId": str(queue)})


def min_offset(topic: str, queue: int) -> Call[int]:
    """The offset of the oldest message that the queue still holds."""
    return _offset("min offset", RequestCode.GET_MIN_OFFSET, {"topic": topic, "queueId": str(queue)})


def offset_at(topic: str, queue: int, milliseconds: int) -> Call[int]:
    """The offset of the queue's first message stored at this time (Unix time) or later.

    Where all messages are older, the answer is the last one's or the one after it, whichever the broker's store gives.
    """
    fields = {"topic": topic, "queueId": str(queue), "timestamp": str(milliseconds)}
    return _offset(f"offset at {milliseconds} ms", RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, fields)


def _offset(what: str, code: int, fields: dict[str, str]) -> Call[int]:
    return Call(
        what=f"give the {what} of topic {fields['topic']!r}, queue {fields['queueId']}",
        code=code,
        fields=fields,
        read=lambda response: int(response.fields["offset"]),
    )


def committed_offset(group: str, topic: str, queue: int) -> Call[int | None]:
    """The offset of the group's next message of the queue, or None where the group has never committed one.

    For a group that receives by POP (gRPC) and not in order, this is what was *delivered*, not what was acknowledged.
    """

    def read(response: Frame) -> int | None:
        return int(response.fields["offset"]) if response.code == ResponseCode.SUCCESS else None

    return Call(
        what=f"give the committed offset of group {group!r}, topic {topic!r}, queue {queue}",
        code=RequestCode.QUERY_CONSUMER_OFFSET,
        # Without this, a broker answers 0 for a queue whose oldest messages it still has, as if 0 were committed.
        fields={"consumerGroup": group, "topic": topic, "queueId": str(queue), "setZeroIfNotFound": "false"},
        accepted=frozenset({ResponseCode.SUCCESS, ResponseCode.QUERY_NOT_FOUND}),
        read=read,
    )


def groups_of_topic(topic: str) -> Call[tuple[str, ...]]:
    """The consumer groups that are online for a topic or have offsets in it."""
    return Call(
        what=f"name the groups of topic {topic!r}",
        code=RequestCode.QUERY_TOPIC_CONSUME_BY_WHO,
        fields={"topic": topic},
        read=lambda response: tuple(sorted(map(str, parse_json(response.body)["groupList"]))),
    )


def members_of_group(group: str) -> Call[int]:
    """How many consumers of a group the broker knows.

    Those of gRPC are known to a broker in local mode only: in cluster mode it is the proxy that knows them.
    """

    def read(response: Frame) -> int:
        if response.code == ResponseCode.SUCCESS:
            return len(parse_json(response.body)["consumerIdList"])
        return 0  # SYSTEM_ERROR "no consumer for this group" (ConsumerManageProcessor)

    return Call(
        what=f"name the members of group {group!r}",
        code=RequestCode.GET_CONSUMER_LIST_BY_GROUP,
        fields={"consumerGroup": group},
        accepted=frozenset({ResponseCode.SUCCESS, ResponseCode.SYSTEM_ERROR}),
        read=read,
    )


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A broker's settings of a group: whether it receives in order, whether it may receive at all, and how often a
    message is delivered again before it is a dead letter.
    """

    ordered: bool
    consumes: bool
    retries: int


def all_groups() -> Call[dict[str, ConsumerGroup]]:
    """Each consumer group of a broker (``consumeMessageOrderly``, ``consumeEnable``, ``retryMaxTimes``).

    RocketMQ 4 has no order of groups: whether queues are read in order is each client's affair there.
    Asking for one group (``GET_SUBSCRIPTIONGROUP_CONFIG``) would create it where brokers make groups by themselves.
    """

    def read(response: Frame) -> dict[str, ConsumerGroup]:
        table = parse_json(response.body)["subscriptionGroupTable"]
        return {
            str(name): ConsumerGroup(
                ordered=config.get("consumeMessageOrderly") is True,
                consumes=config.get("consumeEnable") is not False,
                retries=int(config.get("retryMaxTimes", 16)),
            )
            for name, config in table.items()
        }

    return Call(what="name its groups", code=RequestCode.GET_ALL_SUBSCRIPTIONGROUP_CONFIG, read=read)


class FilterVerdict(Enum):
    """What a broker says of an SQL92 filter. Without ``enablePropertyFilter`` it does not look at it."""

    TAKEN = "taken"
    REFUSED = "refused"
    UNSEEN = "unseen"


def sql_filter(group: str, topic: str, expression: str) -> Call[tuple[FilterVerdict, str]]:
    """Have a broker parse an SQL92 filter, as RocketMQ's own clients do before they subscribe; and its words.

    Nothing is subscribed to or received.
    """
    verdicts = {
        int(ResponseCode.SUCCESS): FilterVerdict.TAKEN,
        int(ResponseCode.SUBSCRIPTION_PARSE_FAILED): FilterVerdict.REFUSED,
    }
    subscription = {"topic": topic, "subString": expression, "expressionType": "SQL92", "tagsSet": [], "codeSet": []}
    body = {"clientId": "spanbridge-check", "group": group, "subscriptionData": subscription}
    return Call(
        what=f"look at the filter of group {group!r}",
        code=RequestCode.CHECK_CLIENT_CONFIG,
        body=json.dumps(body).encode(),
        accepted=frozenset({*verdicts, int(ResponseCode.SYSTEM_ERROR)}),
        read=lambda response: (verdicts.get(response.code, FilterVerdict.UNSEEN), response.remark or ""),
    )


def create_topic(
    topic: str, *, queues: int, message_type: str | None = None, attributes: Mapping[str, str] | None = None
) -> Call[None]:
    """Create or change a topic on one broker.

    ``message_type`` is the attribute ``message.type`` (``NORMAL``, ``FIFO``, ...). Attributes are added or changed, and
    none is removed.
    """
    wanted = dict(attributes or {}) | ({"message.type": message_type} if message_type else {})
    fields = {
        "topic": topic,
        "defaultTopic": "TBW102",
        "readQueueNums": str(queues),
        "writeQueueNums": str(queues),
        "perm": str(_READ | _WRITE),
        "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": "0",
        "order": "false",
    }
    if wanted:
        fields["attributes"] = ",".join(f"+{name}={value}" for name, value in wanted.items())
    kind = f" of type {message_type}" if message_type else ""
    return Call(
        what=f"create topic {topic!r}{kind}", code=RequestCode.UPDATE_AND_CREATE_TOPIC, fields=fields, read=_nothing
    )


def delete_topic(topic: str) -> Call[None]:
    """Remove a topic and its messages from one broker. It is no error when there is none."""
    return Call(
        what=f"delete topic {topic!r}", code=RequestCode.DELETE_TOPIC_IN_BROKER, fields={"topic": topic}, read=_nothing
    )


def delete_route(topic: str) -> Call[None]:
    """Remove a topic's route from one name server; else it stays there until the broker has registered again."""
    return Call(
        what=f"delete the route of topic {topic!r}",
        code=RequestCode.DELETE_TOPIC_IN_NAMESRV,
        fields={"topic": topic},
        read=_nothing,
    )


def create_group(
    group: str, *, orderly: bool = False, max_attempts: int = 16, attributes: Mapping[str, str] | None = None
) -> Call[None]:
    """Create or change a consumer group on one broker.

    ``orderly`` delivers a queue's messages one batch after the other (``consumeMessageOrderly``). A message goes to the
    dead-letter topic after ``max_attempts`` deliveries.
    """
    config = {
        "groupName": group,
        "consumeEnable": True,
        "consumeMessageOrderly": orderly,
        "retryMaxTimes": max_attempts,
        "attributes": dict(attributes or {}),
    }
    return Call(
        what=f"create group {group!r}",
        code=RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
        body=json.dumps(config).encode(),
        read=_nothing,
    )


def delete_group(group: str, *, offsets: bool = True) -> Call[None]:
    """Remove a consumer group from one broker, with its committed offsets unless told otherwise."""
    return Call(
        what=f"delete group {group!r}",
        code=RequestCode.DELETE_SUBSCRIPTIONGROUP,
        fields={"groupName": group, "cleanOffset": "true" if offsets else "false"},
        read=_nothing,
    )


def _nothing(_: Frame) -> None:
    return None
