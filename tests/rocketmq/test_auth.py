"""Request metadata, signatures and secrets."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.core.tls import TlsOptions
from spanbridge.rocketmq.grpc.auth import Credentials
from spanbridge.rocketmq.options import RocketmqOptions

SECRET = "s3cr3t-key"
TOKEN = "t0ken-value"


def options(**changes: object) -> RocketmqOptions:
    values: dict[str, object] = {
        "endpoints": "h:1", "namespace": "space", "access_key": "access", "secret_key": SECRET, "security_token": TOKEN,
        "tls": TlsOptions(key_password="pass-phrase"),
    }  # fmt: skip
    return RocketmqOptions(**(values | changes))  # type: ignore[arg-type]


def judge(authorization: str, stamp: str, secret: str) -> bool:
    """What the broker does with the header (DefaultAuthenticationContextBuilder, AclSigner)."""
    scheme, rest = authorization.split(" ", 1)
    fields = dict(part.strip().split("=", 1) for part in rest.split(","))
    signature = base64.b64encode(bytes.fromhex(fields["Signature"]))
    expected = base64.b64encode(hmac.new(secret.encode(), stamp.encode(), hashlib.sha1).digest())
    return scheme == "MQv2-HMAC-SHA1" and fields["Credential"] == "access" and signature == expected


def test_headers() -> None:
    headers = dict(Credentials(options(), "client", lambda: 1_700_000_000.9).metadata())
    assert headers["x-mq-date-time"] == "20231114T221320Z"
    assert headers["x-mq-namespace"] == "space"
    assert headers["x-mq-session-token"] == TOKEN
    assert headers["x-mq-client-id"] == "client"
    assert headers["x-mq-language"] == "PYTHON"
    assert judge(headers["authorization"], headers["x-mq-date-time"], SECRET)


def test_the_signature_follows_the_clock_and_requests_have_ids_of_their_own() -> None:
    clock = [1_700_000_000.0]
    credentials = Credentials(options(), "client", lambda: clock[0])
    first, second = dict(credentials.metadata()), dict(credentials.metadata())
    assert first["authorization"] == second["authorization"]
    assert first["x-mq-request-id"] != second["x-mq-request-id"]
    clock[0] += 1
    assert dict(credentials.metadata())["authorization"] != first["authorization"]


def test_without_keys_nothing_is_signed() -> None:
    headers = dict(Credentials(options(access_key=None, secret_key=None, namespace=""), "client").metadata())
    assert "authorization" not in headers
    assert "x-mq-namespace" not in headers


def test_no_secret_is_shown() -> None:
    shown = repr(options()) + repr(Credentials(options(), "client")) + str(Credentials(options(), "client"))
    for secret in (SECRET, TOKEN, "pass-phrase"):
        assert secret not in shown


def test_an_echoed_secret_is_struck_out_and_text_is_one_short_line() -> None:
    redacted = Credentials(options(), "client").redact(f"bad\n token {TOKEN} and {SECRET} " + "x" * 900)
    assert redacted.startswith("bad token *** and *** xxx")
    assert len(redacted) == 300


@pytest.mark.parametrize(("name", "value"), [("namespace", "ä"), ("access_key", "a,b"), ("security_token", "t0\nken")])
def test_what_no_header_can_carry_is_refused_without_being_shown(name: str, value: str) -> None:
    with pytest.raises(SinkMisconfigured, match=name) as caught:
        Credentials(options(**{name: value}), "client")
    assert value not in str(caught.value)
