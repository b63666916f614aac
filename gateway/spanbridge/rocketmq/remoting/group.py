"""What a consumer tells brokers of itself, and what they know of its group. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.codes import RequestCode
from spanbridge.rocketmq.remoting.frame import Frame, parse_json
from spanbridge.rocketmq.remoting.placing import java_hash
from spanbridge.rocketmq.remoting.pop import GroupTopic

POP: Final = "CONSUME_POP"
PULL: Final = "CONSUME_PASSIVELY"
_PAUSES: Final = (1.0, 5.0, 10.0, 30.0, *(60.0 * minutes for minutes in range(1, 11)), 1200.0, 1800.0, 3600.0, 7200.0)
"""Seconds. ``CustomizedRetryPolicy``, what a group has unless something else was set."""
_LONGEST_PAUSE: Final = 7200.0


class GroupSettings(NamedTuple):
    """What brokers hold of a group. ``pauses`` are in seconds: after the first failure, the second, and so on."""

    orderly: bool = False
    max_attempts: int = 17
    pauses: tuple[float, ...] = _PAUSES

    def pause(self, attempt: int) -> float:
        """Seconds after which a message that failed for the ``attempt``-th time is to come again."""
        return self.pauses[max(0, min(attempt, len(self.pauses)) - 1)]


def group_settings(group: str) -> Call[GroupSettings]:
    """The group's settings. A broker that makes groups by itself makes this one now, as it would for the first pull."""
    return Call(
        what=f"give the settings of group {group!r}",
        code=RequestCode.GET_SUBSCRIPTIONGROUP_CONFIG,
        fields={"group": group},
        read=lambda response: _settings(parse_json(response.body)),
    )


def _settings(config: Any) -> GroupSettings:
    return GroupSettings(
        orderly=config.get("consumeMessageOrderly") is True,
        max_attempts=max(0, int(config.get("retryMaxTimes", 16))) + 1,
        pauses=_pauses(config.get("groupRetryPolicy") or {}) or _PAUSES,
    )


def _pauses(policy: Any) -> tuple[float, ...]:
    """``GroupRetryPolicy``: a list of pauses in milliseconds, or how they grow."""
    if policy.get("type") == "EXPONENTIAL" and policy.get("exponentialRetryPolicy"):
        growing = policy["exponentialRetryPolicy"]
        initial, longest = int(growing["initial"]) / 1000, int(growing["max"]) / 1000
        factor = min(max(1, int(growing["multiplier"])), 16)
        return tuple(min(initial * factor**step, longest, _LONGEST_PAUSE) for step in range(32))
    listed = (policy.get("customizedRetryPolicy") or {}).get("next") or ()
    return tuple(min(max(0.0, int(pause) / 1000), _LONGEST_PAUSE) for pause in listed)


def consumer_heartbeat(
    client_id: str, names: GroupTopic, subscriptions: Sequence[dict[str, Any]], consume_type: str
) -> Call[int]:
    """Tell a broker that this consumer lives, and what it subscribes to. The answer is the broker's version.

    ``subscriptions`` are ``SubscriptionData``, as :func:`subscription_data` makes it.
    """
    living = {
        "clientID": client_id,
        "producerDataSet": [],
        "consumerDataSet": [
            {
                "groupName": names.group,
                "consumeType": consume_type,
                "messageModel": "CLUSTERING",
                "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET",
                "subscriptionDataSet": list(subscriptions),
                "unitMode": False,
            }
        ],
        "heartbeatFingerprint": 0,
        "withoutSub": False,
    }
    return Call(
        what=f"take a heartbeat of group {names.group!r}",
        code=RequestCode.HEART_BEAT,
        body=json.dumps(living, separators=(",", ":")).encode(),
        read=lambda response: response.version,
    )


def subscription_data(topic: str, expression: str, tags: frozenset[str] | None, version: int) -> dict[str, Any]:
    """``tags`` are those of a tag expression, none for all; None for SQL92. ``version`` grows with each."""
    return {
        "classFilterMode": False,
        "topic": topic,
        "subString": expression,
        "tagsSet": sorted(tags or ()),
        "codeSet": sorted(java_hash(tag) for tag in tags or ()),
        "subVersion": version,
        "expressionType": "SQL92" if tags is None else "TAG",
    }


def consumer_goodbye(client_id: str, group: str) -> Call[None]:
    """Tell a broker that this consumer is gone."""
    return Call(
        what=f"forget a consumer of group {group!r}",
        code=RequestCode.UNREGISTER_CLIENT,
        fields={"clientID": client_id, "consumerGroup": group},
        read=_nothing,
    )


def send_back(
    group: str, topic: str, physical_offset: int, message_id: str, *, level: int, max_attempts: int | None = None
) -> Call[None]:
    """Have a stored message come again by the group's retry topic, after the pause of a delay level.

    A negative ``level`` moves it to the group's dead letters. With 0 the broker takes the level by the attempts.
    ``topic`` is that of the queue which holds it.
    """
    fields = {
        "offset": str(physical_offset),
        "group": group,
        "delayLevel": str(level),
        "originMsgId": message_id,
        "originTopic": topic,
        "unitMode": "false",
    }
    if max_attempts is not None:
        fields["maxReconsumeTimes"] = str(max_attempts)
    return Call(
        what=f"take back a message of group {group!r}",
        code=RequestCode.CONSUMER_SEND_MSG_BACK,
        fields=fields,
        read=_nothing,
    )


def _nothing(_: Frame) -> None:
    return None
