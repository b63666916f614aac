"""Every answer becomes an error that says what can be done."""

from __future__ import annotations

import pytest

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable
from spanbridge.core.rocketmq_rules import BODY_AT_FAULT, DESTINATION_AT_FAULT, PROPERTIES_AT_FAULT
from spanbridge.rocketmq.errors import NAMES, build, clean, which_part
from spanbridge.rocketmq.grpc.answers import judge_code, judge_grpc
from spanbridge.rocketmq.grpc.http2.status import GrpcStatus
from spanbridge.rocketmq.grpc.stubs import definition
from spanbridge.rocketmq.remoting.answers import judge, right_for
from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.errors import RemotingRefused

CODE = definition.Code


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("TOPIC_NOT_FOUND", SinkMisconfigured),
        ("UNAUTHORIZED", SinkMisconfigured),
        ("FORBIDDEN", SinkMisconfigured),
        ("ILLEGAL_TOPIC", SinkMisconfigured),
        ("MESSAGE_PROPERTY_CONFLICT_WITH_TYPE", SinkMisconfigured),
        ("MESSAGE_BODY_TOO_LARGE", SinkRejected),
        ("MESSAGE_PROPERTIES_TOO_LARGE", SinkRejected),
        ("ILLEGAL_MESSAGE_TAG", SinkRejected),
        ("ILLEGAL_MESSAGE_KEY", SinkRejected),
        ("ILLEGAL_MESSAGE_GROUP", SinkRejected),
        ("ILLEGAL_MESSAGE_ID", SinkRejected),
        ("TOO_MANY_REQUESTS", SinkThrottled),
        ("INTERNAL_SERVER_ERROR", SinkUnavailable),
        ("PROXY_TIMEOUT", SinkUnavailable),
        ("MASTER_PERSISTENCE_TIMEOUT", SinkUnavailable),
        ("SLAVE_PERSISTENCE_TIMEOUT", SinkUnavailable),
        ("HA_NOT_AVAILABLE", SinkUnavailable),
    ],
)
def test_codes(name: str, error: type[SinkError]) -> None:
    verdict = judge_code(CODE.Value(name), name)
    assert verdict.error is error
    assert verdict.reason == name.lower()


def test_every_code_of_the_protocol_has_a_verdict_with_a_stable_reason() -> None:
    for name, number in CODE.items():
        verdict = judge_code(number, "")
        assert issubclass(verdict.error, SinkError)
        assert verdict.reason == name.lower()


def test_codes_from_the_future_keep_the_message() -> None:
    assert judge_code(40999, "") == judge_code(41999, "")
    assert judge_code(40999, "").error is SinkMisconfigured
    assert judge_code(59999, "").error is SinkUnavailable
    assert judge_code(59999, "").reason == "unknown_code"


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while", SinkThrottled, "broker_busy"),
        ("[PCBUSY_CLEAN_QUEUE]broker busy, start flow control for a while", SinkThrottled, "broker_busy"),
        ("[REJECTREQUEST]system busy, start flow control for a while", SinkThrottled, "broker_busy"),
        ("the message is illegal, maybe msg body or properties length not matched.", SinkRejected, "message_illegal"),
        ("message body size exceeded. RuntimeException.", SinkRejected, "message_body_too_large"),
        ("message properties length is too long", SinkRejected, "message_properties_too_large"),
        ("Required message key is missing", SinkRejected, "illegal_message_key"),
        ("create mapped file failed, server is busy or broken.", SinkUnavailable, "store_unavailable"),
        ("message topic length too long 128", SinkRejected, "illegal_topic"),
        ("timer message illegal, the delay time should not be bigger than", SinkRejected, "illegal_delivery_time"),
        ("timer message is under flow control, max num limit is 1", SinkThrottled, "broker_busy"),
        ("accurate timer message is not enabled, timerWheelEnable is false", SinkMisconfigured, "timer_disabled"),
        ("message store has shutdown, so putMessage is forbidden", SinkUnavailable, "store_unavailable"),
        ("topic[x] not exist, apply first please!", SinkMisconfigured, "topic_not_found"),
        ("Sending message to topic[x] is forbidden.", SinkMisconfigured, "forbidden"),
        ("service not available now. the broker's disk is full", SinkUnavailable, "store_unavailable"),
        ("in-sync replicas not enough", SinkUnavailable, "replicas_not_enough"),
        ("something new", SinkUnavailable, "internal_server_error"),
    ],
)
def test_remarks_of_a_broker_behind_its_own_proxy(text: str, error: type[SinkError], reason: str) -> None:
    verdict = judge_code(CODE.INTERNAL_SERVER_ERROR, text)
    assert (verdict.error, verdict.reason) == (error, reason)


REMARK = (
    "the message is illegal, maybe msg body or properties length not matched. msg body length limit 2000B, "
    "msg properties length limit 32KB."
)


@pytest.mark.parametrize(
    ("text", "size", "reason"),
    [
        (REMARK, 2001, "message_body_too_large"),
        (REMARK, 2000, "message_properties_too_large"),
        ("the message is illegal", 2001, "message_illegal"),
    ],
)
def test_a_remark_for_two_parts_is_told_apart_by_the_bodys_size(text: str, size: int, reason: str) -> None:
    assert which_part(judge_code(CODE.INTERNAL_SERVER_ERROR, text), text, size).reason == reason


def test_every_rejection_says_what_to_shed() -> None:
    rejections = {judgement.reason for judgement in NAMES.values() if judgement.error is SinkRejected}
    ours = {"message_corrupted", "illegal_message_id"}  # nothing that a sender can shed: faults of ours
    assert rejections - ours <= PROPERTIES_AT_FAULT | BODY_AT_FAULT | DESTINATION_AT_FAULT


def test_a_topic_deleted_meanwhile_is_not_taken_for_a_wrong_type() -> None:
    text = "TopicMessageType validate failed, the expected type is UNSPECIFIED, but actual type is NORMAL"
    assert judge_code(CODE.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE, text).reason == "topic_not_found"


@pytest.mark.parametrize(
    ("code", "details", "error", "reason"),
    [
        (GrpcStatus.UNAVAILABLE, "Connection refused", SinkUnavailable, "unavailable"),
        (GrpcStatus.DEADLINE_EXCEEDED, "Deadline Exceeded", SinkUnavailable, "deadline_exceeded"),
        (GrpcStatus.UNIMPLEMENTED, "", SinkMisconfigured, "unimplemented"),
        (GrpcStatus.UNAUTHENTICATED, "", SinkMisconfigured, "unauthenticated"),
        (GrpcStatus.PERMISSION_DENIED, "", SinkMisconfigured, "permission_denied"),
        (GrpcStatus.RESOURCE_EXHAUSTED, "quota", SinkThrottled, "resource_exhausted"),
        (GrpcStatus.RESOURCE_EXHAUSTED, "gRPC message exceeds maximum size 1", SinkRejected, "payload_too_large"),
        (GrpcStatus.INTERNAL, "", SinkUnavailable, "internal"),
    ],
)
def test_calls_without_an_answer(code: GrpcStatus, details: str, error: type[SinkError], reason: str) -> None:
    verdict = judge_grpc(code, details)
    assert (verdict.error, verdict.reason) == (error, reason)


def test_every_grpc_status_has_a_verdict() -> None:
    for code in GrpcStatus:
        assert issubclass(judge_grpc(code, "").error, SinkError)


def test_the_text_names_place_cause_and_remedy() -> None:
    error = build(judge_code(CODE.TOPIC_NOT_FOUND, ""), "topic 'x'", "h:1", "TOPIC_NOT_FOUND (no route.)")
    assert str(error) == (
        "RocketMQ at h:1, topic 'x': TOPIC_NOT_FOUND (no route.). "
        "Create the topic (mqadmin updateTopic) or correct the route."
    )
    assert str(build(judge_code(59999, ""), "topic 'x'", "h:1", "why")) == "RocketMQ at h:1, topic 'x': why."


def test_java_noise_is_taken_out() -> None:
    text = (
        "org.apache.rocketmq.proxy.common.ProxyException: no route For more information, please visit the url, http://x"
    )
    assert clean(text) == "no route"


@pytest.mark.parametrize(
    ("text", "reason", "told"),
    [
        (
            "User:gw has no permission to access Topic:t from 127.0.0.1, no matched policies.",
            "forbidden",
            "SUB on the topic",
        ),
        (
            "User:gw has no permission to access Group:g from ::1, the decision is deny.",
            "forbidden",
            "SUB on the consumer group",
        ),
        ("User:gw is not found.", "unauthorized", "access key"),
        ("User:gw is disabled.", "unauthorized", "access key"),
        ("check signature failed.", "unauthorized", "access key"),
        ("something else", "unauthorized", "access key"),
    ],
)
def test_a_missing_right_is_told_apart_from_a_wrong_key(text: str, reason: str, told: str) -> None:
    verdict = judge_code(CODE.UNAUTHORIZED, text, "SUB")
    assert (verdict.error, verdict.reason) == (SinkMisconfigured, reason)
    assert told in verdict.advice
    refusal = RemotingRefused("send", "h:1", ResponseCode.NO_PERMISSION, text)
    assert judge(refusal, "topic 't'", "h:1", None).reason == (reason if text != "something else" else "forbidden")


@pytest.mark.parametrize(
    ("text", "reason", "told"),
    [
        ("Check signature failed for accessKey=gw", "unauthorized", "access key"),
        ("No acl config for gw", "unauthorized", "access key"),
        ("No accessKey is configured", "unauthorized", "access key"),
        ("No default permission for group:g", "forbidden", "needs SUB on the consumer group"),
        ("store is closed", "system_error", "store is closed"),
    ],
)
def test_acl_of_rocketmq_4_refuses_as_a_system_error(text: str, reason: str, told: str) -> None:
    refusal = RemotingRefused(
        "send",
        "h:1",
        ResponseCode.SYSTEM_ERROR,
        f"org.apache.acl.AclException: {text}, org.apache.acl.Plain.validate(Plain.java:683)",
    )
    error = judge(refusal, "topic 't'", "h:1", None, right=right_for(RequestCode.PULL_MESSAGE))
    assert error.reason == reason
    assert told in str(error)
    assert "org.apache" not in str(error), "Java's own noise"


def test_a_missing_right_concerns_its_topic_alone() -> None:
    text = "User:gw has no permission to access Topic:t from 127.0.0.1, no matched policies."
    for code, words in ((CODE.UNAUTHORIZED, text), (CODE.FORBIDDEN, "")):
        assert SinkMisconfigured("", reason=judge_code(code, words).reason).of_topic
    assert not SinkMisconfigured("", reason=judge_code(CODE.UNAUTHORIZED, "check signature failed.").reason).of_topic
