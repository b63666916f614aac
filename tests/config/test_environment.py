"""The environment: references in text, overrides by path, secrets from files, and nothing of it shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from spanbridge.config import Config, Report, examine_text
from spanbridge.config.variables import KNOWN

BASE = """\
[mqtt]
url = "mqtt://127.0.0.1:1883"
[rocketmq]
endpoints = "127.0.0.1:8081"
[[routes]]
name = "plant-a"
filter = "devices/{device}/telemetry"
topic = "telemetry"
"""


def read(text: str, environ: Mapping[str, str], base: Path = Path()) -> Report:
    return examine_text(text, environ, base=base)


def good(text: str, environ: Mapping[str, str], base: Path = Path()) -> Config:
    report = read(text, environ, base)
    assert report.config is not None, [problem.text() for problem in report.problems]
    return report.config


def with_mqtt(line: str) -> str:
    return BASE.replace("[rocketmq]", f"{line}\n[rocketmq]")


@pytest.mark.parametrize(
    ("written", "environ", "expected"),
    [
        ("${USER}", {"USER": "ada"}, "ada"),
        ("x-${USER}-y", {"USER": "ada"}, "x-ada-y"),
        ("${USER:-bob}", {}, "bob"),
        ("${USER:-bob}", {"USER": ""}, "bob"),
        ("${USER:-}", {}, ""),
        ("${A}${B}", {"A": "1", "B": "2"}, "12"),
        ("$${USER}", {}, "${USER}"),
        ("$USER", {}, "$USER"),
        ("${USER}", {"USER": "${OTHER}"}, "${OTHER}"),
    ],
)
def test_references(written: str, environ: dict[str, str], expected: str) -> None:
    assert good(with_mqtt(f'username = "{written}"'), environ).mqtt[0].username == expected


@pytest.mark.parametrize(
    ("written", "message"), [("${NOPE}", "NOPE is not set"), ("${no pe}", "does not start a reference")]
)
def test_broken_references_are_one_error_each(written: str, message: str) -> None:
    problems = read(BASE.replace("127.0.0.1:8081", written), {}).problems
    assert [problem.path for problem in problems] == ["rocketmq.endpoints"]
    assert message in problems[0].message


def test_numbers_and_booleans_may_come_from_the_environment() -> None:
    text = with_mqtt('receive_maximum = "${MAX}"\nclean_start = "${CLEAN}"\nkeep_alive = "${ALIVE}"')
    broker = good(text, {"MAX": "7", "CLEAN": "true", "ALIVE": "1m"}).mqtt[0]
    assert (broker.receive_maximum, broker.clean_start, broker.keep_alive) == (7, True, 60)


def test_a_value_from_the_environment_is_shown_as_it_was_written() -> None:
    problem = read(with_mqtt('receive_maximum = "${MAX}"'), {"MAX": "s3cret"}).errors[0]
    assert problem.value == '"${MAX}"'
    assert "s3cret" not in problem.text()


def test_overrides_reach_every_kind_of_place() -> None:
    config = good(
        BASE,
        {
            "SPANBRIDGE__ROCKETMQ__ENDPOINTS": "proxy:8081",
            "SPANBRIDGE__UPLINK__BATCH__MAX_MESSAGES": "64",
            "SPANBRIDGE__MQTT__PASSWORD": "12345",
            "SPANBRIDGE__ROUTES__0__TAG": "{device}",
            "SPANBRIDGE__ROUTES__PLANT_A__KEYS": '["{device}", "{topic}"]',
            "SPANBRIDGE__ROUTES__1__FILTER": "other/+",
            "SPANBRIDGE__ROUTES__1__TOPIC": "other",
            "SPANBRIDGE__TELEMETRY__RESOURCE__SITE": "42",
            "SPANBRIDGE__ROCKETMQ__TLS": "true",
            "UNRELATED": "x",
        },
    )
    assert config.rocketmq.endpoints == "proxy:8081"
    assert config.rocketmq.tls is not None
    assert config.uplink.batch.max_messages == 64
    password = config.mqtt[0].password
    assert password is not None
    assert password.get_secret_value() == "12345"
    assert (config.routes[0].tag, config.routes[0].keys) == ("{device}", ["{device}", "{topic}"])
    assert config.routes[1].topic == "other"
    assert config.telemetry.resource == {"site": "42"}


def test_a_configuration_may_come_from_the_environment_alone() -> None:
    environ = {
        "SPANBRIDGE__MQTT__URL": "mqtt://h",
        "SPANBRIDGE__ROCKETMQ__ENDPOINTS": "h:8081",
        "SPANBRIDGE__ROUTES": '[{ filter = "a/{b}", topic = "t" }]',
    }
    assert good("", environ).routes[0].topic == "t"


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("SPANBRIDGE__ROUTES__7__TOPIC", "there is no item 7"),
        ("SPANBRIDGE__ROUTES__NOBODY__TOPIC", "no item of the list is named `nobody`"),
        ("SPANBRIDGE__MQTT__URL__X", "is not a table"),
        ("SPANBRIDGE__MQTT____URL", "empty part"),
    ],
)
def test_overrides_that_lead_nowhere(variable: str, message: str) -> None:
    problem = read(BASE, {variable: "x"}).errors[0]
    assert problem.source == variable
    assert message in problem.message


def test_an_override_is_blamed_by_its_name() -> None:
    problem = read(BASE, {"SPANBRIDGE__ADMIN__PRT": "1"}).errors[0]
    assert (problem.path, problem.source, problem.line) == ("admin.prt", "SPANBRIDGE__ADMIN__PRT", None)
    assert problem.hint == "did you mean `port`?"


def test_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    config = good(with_mqtt('password = "file:secret"'), {}, tmp_path)
    password = config.mqtt[0].password
    assert password is not None
    assert password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(config)
    assert "hunter2" not in config.model_dump_json()


def test_secret_files_that_are_missing_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    missing = read(with_mqtt('password = "file:none"'), {}, tmp_path).errors[0]
    assert "no such file" in missing.message
    assert "is empty" in read(with_mqtt('password = "file:empty"'), {}, tmp_path).errors[0].message


@pytest.mark.parametrize(
    "line", ['pasword = "hunter2"', 'password = ["hunter2"]', "password = 4242", 'will = "hunter2"']
)
def test_no_secret_is_shown(line: str) -> None:
    text = " ".join(problem.text() for problem in read(with_mqtt(line), {}).errors)
    assert text
    assert "hunter2" not in text
    assert "4242" not in text


def test_certificate_files_have_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    text = BASE.replace("mqtt://", "mqtts://")
    config = good(text + '[mqtt.tls]\nca_file = "ca.pem"\n', {}, tmp_path)
    assert config.mqtt[0].tls is not None
    assert config.mqtt[0].tls.ca_file == tmp_path / "ca.pem"
    problem = read(text + '[mqtt.tls]\nca_file = "none.pem"\n', {}, tmp_path).errors[0]
    assert problem.path == "mqtt.tls.ca_file"
    pair = read(text + '[mqtt.tls]\ncert_file = "ca.pem"\n', {}, tmp_path).errors[0]
    assert "both `cert_file` and `key_file`" in pair.message


LIST = BASE.replace("[mqtt]", '[[mqtt]]\nname = "only"')


@pytest.mark.parametrize("text", [BASE, LIST, BASE.replace('[mqtt]\nurl = "mqtt://127.0.0.1:1883"\n', "")])
@pytest.mark.parametrize("variable", ["SPANBRIDGE__MQTT__0__URL", "SPANBRIDGE__MQTT__URL"])
def test_the_first_broker_is_reached_however_it_is_written(text: str, variable: str) -> None:
    assert good(text, {variable: "mqtt://other"}).mqtt[0].url == "mqtt://other"


def test_a_single_broker_is_reached_by_its_name() -> None:
    text = with_mqtt('name = "plant-a"')
    assert good(text, {"SPANBRIDGE__MQTT__PLANT_A__URL": "mqtt://other"}).mqtt[0].url == "mqtt://other"
    assert good(LIST, {"SPANBRIDGE__MQTT__ONLY__URL": "mqtt://other"}).mqtt[0].url == "mqtt://other"


def test_of_several_brokers_one_is_named() -> None:
    text = LIST + '[[mqtt]]\nname = "b"\nurl = "mqtt://b"\n'
    assert good(text, {"SPANBRIDGE__MQTT__1__URL": "mqtt://c"}).mqtt[1].url == "mqtt://c"
    problem = read(text, {"SPANBRIDGE__MQTT__URL": "mqtt://c"}).errors[0]
    assert "SPANBRIDGE__MQTT__0__" in problem.message
    problem = read(BASE, {"SPANBRIDGE__MQTT__1__URL": "mqtt://c"}).errors[0]
    assert "`[mqtt]` is a single table" in problem.message


def test_routes_may_come_from_the_environment_item_by_item() -> None:
    text = BASE.partition("[[routes]]")[0]
    environ = {"SPANBRIDGE__ROUTES__0__FILTER": "a/{b}", "SPANBRIDGE__ROUTES__0__TOPIC": "t"}
    assert good(text, environ).routes[0].filter == "a/{b}"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("SPANBRIDGE_ROCKETMQ_ENDPOINTS", "SPANBRIDGE__ROCKETMQ__ENDPOINTS"),
        ("SPANBRIDGE_MQTT_URL", "SPANBRIDGE__MQTT__URL"),
        ("SPANBRIDGE_ADMIN_PORT", "SPANBRIDGE__ADMIN__PORT"),
        ("SPANBRIDGE_UPLINK__BATCH_MAX_BYTES", "SPANBRIDGE__UPLINK__BATCH__MAX_BYTES"),
        ("SPANBRIDGE_CONFG", "SPANBRIDGE_CONFIG"),
    ],
)
def test_a_variable_that_nothing_reads_is_told(variable: str, meant: str) -> None:
    report = read(BASE, {variable: "5"})
    assert report.config is not None
    assert [(problem.source, problem.severity) for problem in report.problems] == [(variable, "warning")]
    assert report.problems[0].hint == f"did you mean `{meant}`?"
    assert "5" not in report.problems[0].text()


def test_variables_of_other_parts_and_of_kubernetes_are_known() -> None:
    environ = {
        "SPANBRIDGE_CONFIG": "x",
        "SPANBRIDGE_CACHE": "/cache",
        "SPANBRIDGE_MQTT_CONTEXT_FORMAT": "w3c",
        "SPANBRIDGE_SERVICE_HOST": "10.0.0.1",
        "SPANBRIDGE_SERVICE_PORT_ADMIN": "9464",
        "SPANBRIDGE_PORT": "tcp://10.0.0.1:9464",
        "SPANBRIDGE_PORT_9464_TCP_ADDR": "10.0.0.1",
    }
    assert read(BASE, environ).problems == []
    assert (
        read(BASE, {"SPANBRIDGE_WHATEVER": "1"}).problems[0].hint == "settings are written SPANBRIDGE__SECTION__SETTING"
    )


def test_every_variable_that_our_programs_read_is_known() -> None:
    root = Path(__file__).parents[2]
    sources = [path.read_text() for folder in ("gateway", "context") for path in (root / folder).rglob("*.py")]
    read_by_us = re.compile(
        r"(?:environ(?:\.get)?[(\[]|envvar=|^ENV_\w+: Final = )\"(SPANBRIDGE_[A-Z0-9_]+)\"", re.MULTILINE
    )
    names = {name for source in sources for name in read_by_us.findall(source)}
    assert "SPANBRIDGE_CONFIG" in names
    assert "SPANBRIDGE_MQTT_ACK_TIMEOUT" in names
    assert names <= KNOWN


@pytest.mark.parametrize("value", ["[" * 500, "1" * 5000])
def test_an_override_that_cannot_be_parsed_is_text(value: str) -> None:
    problem = read(BASE, {"SPANBRIDGE__UPLINK__MAX_IN_FLIGHT": value}).errors[0]
    assert (problem.path, problem.message) == ("uplink.max_in_flight", "must be a whole number")


def test_what_is_unset_is_not_held_against_other_settings() -> None:
    problems = read(BASE + 'source = "${NOPE}"\n', {}).problems
    assert [problem.message for problem in problems] == ["environment variable NOPE is not set"]
