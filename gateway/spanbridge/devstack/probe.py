"""Readiness: a message has really gone round. A listening socket is not enough for any of these brokers."""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spanbridge.devstack.errors import DevstackError

_ROUND_SECONDS = 3.0
_PAUSE_SECONDS = 0.1


def until(attempt: Callable[[], None], *, timeout: float, alive: Callable[[], bool]) -> None:
    """Repeat ``attempt`` until it raises no :class:`NotYet`.

    Raises:
        DevstackError: the deadline of ``timeout`` seconds passed, or ``alive`` says that there is no point in waiting.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            attempt()
        except NotYet as reason:
            if not alive():
                raise DevstackError("the process ended by itself") from reason
            if time.monotonic() > deadline:
                raise DevstackError(f"not ready after {timeout:.0f} s: {reason}") from reason
            time.sleep(_PAUSE_SECONDS)
        else:
            return


class NotYet(Exception):  # noqa: N818 - a state, not an error
    """The peer is not ready; the message says in what way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttTarget:
    """Where and how to reach an MQTT broker."""

    host: str
    port: int
    version: str
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None


def mqtt_round(target: MqttTarget) -> None:
    """Publish one message with QoS 1 and receive it.

    Raises:
        NotYet: it did not come back within a few seconds.
    """
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    version = paho.MQTTv5 if target.version == "5" else paho.MQTTv311
    client = paho.Client(CallbackAPIVersion.VERSION2, f"ready-{uuid.uuid4().hex[:12]}", protocol=version)
    _authenticate(client, target)
    seen = _echo(client)
    try:
        client.connect(target.host, target.port)
        deadline = time.monotonic() + _ROUND_SECONDS
        while not seen and time.monotonic() < deadline:
            if client.loop(0.1) != paho.MQTT_ERR_SUCCESS:
                break
    except OSError as error:
        raise NotYet(f"MQTT on {target.host}:{target.port}: {error}") from error
    finally:
        client.disconnect()
    if seen != ["back"]:
        raise NotYet(f"MQTT on {target.host}:{target.port}: {seen[0] if seen else 'a message did not come back'}")


def _authenticate(client: Any, target: MqttTarget) -> None:
    if target.username is not None:
        client.username_pw_set(target.username, target.password)
    if target.tls is not None:
        client.tls_set_context(target.tls)


def _echo(client: Any) -> list[str]:
    """Have the client send itself a message; the list gets what became of it."""
    topic = f"spanbridge/ready/{uuid.uuid4().hex}"
    seen: list[str] = []

    def on_connect(_c: object, _u: object, _f: object, code: Any, _p: object) -> None:
        if code.is_failure:
            seen.append(f"refused: {code}")
        else:
            client.subscribe(topic, 1)

    def on_subscribe(*_: object) -> None:
        client.publish(topic, b"round", 1)

    def on_message(*_: object) -> None:
        seen.append("back")

    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = on_message
    return seen


def mqtt_publish(
    target: MqttTarget, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, user: Sequence[str] = ()
) -> None:
    """Publish one message and wait until the broker has taken it.

    Args:
        target: where to.
        topic: no wildcards.
        payload: the message.
        qos: 0, 1 or 2.
        retain: whether the broker is to keep it for later subscribers.
        user: user properties, each ``NAME=VALUE`` (MQTT v5).

    Raises:
        DevstackError: it cannot be sent like this, or was not taken within a few seconds.
    """
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = None
    if user:
        if target.version != "5" or not all("=" in pair for pair in user):
            raise DevstackError("user properties are NAME=VALUE, and need MQTT v5")
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = [tuple(pair.split("=", 1)) for pair in user]
    version = paho.MQTTv5 if target.version == "5" else paho.MQTTv311
    client = paho.Client(CallbackAPIVersion.VERSION2, f"devstack-{uuid.uuid4().hex[:12]}", protocol=version)
    _authenticate(client, target)
    try:
        client.connect(target.host, target.port)
        client.loop_start()
        client.publish(topic, payload, qos, retain, properties).wait_for_publish(_ROUND_SECONDS)
        client.disconnect()
    except (OSError, ValueError, RuntimeError) as error:
        raise DevstackError(f"MQTT on {target.host}:{target.port}: {error}") from error
    finally:
        client.loop_stop()
