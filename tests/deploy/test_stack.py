"""docker-compose.yml and what it mounts: consistent with each other and with the gateway. Nothing here needs docker."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from spanbridge.config import examine
from spanbridge_profiling.settings import read_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
CONFIGURATION = DEPLOY / "compose" / "spanbridge.toml"


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    return [tuple(volume.split(":")[:2]) for volume in service.get("volumes", [])]


def each_service() -> list[Any]:
    return [pytest.param(name, service, id=name) for name, service in SERVICES.items()]


@pytest.mark.parametrize(("name", "service"), each_service())
def test_everything_it_refers_to_exists(name: str, service: dict[str, Any]) -> None:
    for source, _ in mounts(service):
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source
    if build := service.get("build"):
        assert (ROOT / build["context"] / build["dockerfile"]).is_file()
    for needed, condition in dependencies(service):
        assert needed in SERVICES
        if condition == "service_healthy":
            assert "healthcheck" in SERVICES[needed] or "build" in SERVICES[needed], "nothing would tell its health"
        if condition == "service_completed_successfully":
            assert SERVICES[needed]["restart"] == "no"


def dependencies(service: dict[str, Any]) -> list[tuple[str, str]]:
    wanted = service.get("depends_on", [])
    if isinstance(wanted, list):
        return [(name, "service_started") for name in wanted]
    return [(name, how["condition"]) for name, how in wanted.items()]


@pytest.mark.parametrize(("name", "service"), each_service())
def test_ports_are_published_on_loopback_only(name: str, service: dict[str, Any]) -> None:
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


@pytest.mark.parametrize(("name", "service"), each_service())
def test_images_have_a_fixed_version(name: str, service: dict[str, Any]) -> None:
    image, _, tag = service["image"].rpartition(":")
    assert image
    assert tag == "local" or re.fullmatch(r"v?\d+\.\d+\.\d+", tag), service["image"]


def test_the_gateways_configuration_is_valid() -> None:
    report = examine(CONFIGURATION, {})
    assert not report.errors, report.errors
    # Prometheus has to reach it, and docker-compose.yml publishes it on loopback; 3.1.1 devices share one broker.
    assert {problem.path for problem in report.warnings} == {"admin.host"}
    config = report.config
    assert config is not None
    assert config.name, "a container's host name changes, and with it the session's name"
    assert [broker.host for broker in config.mqtt] == ["mosquitto"]
    assert config.rocketmq.endpoints == "rocketmq:8081"


def test_grace_covers_the_drain() -> None:
    config = examine(CONFIGURATION, {}).config
    assert config is not None
    grace = int(SERVICES["spanbridge"]["stop_grace_period"].removesuffix("s"))
    assert grace >= config.downlink.drain_timeout + config.uplink.drain_timeout + 15


def test_topics_and_groups_are_created() -> None:
    config = examine(CONFIGURATION, {}).config
    assert config is not None
    wanted = {section.topic for section in (*config.routes, *config.downlinks)} | {config.uplink.rejected_topic}
    setup = SERVICES["rocketmq-topics"]
    assert wanted == set(setup["command"][2:])
    consumer = SERVICES["consumer"]["command"]
    assert {value for flag, value in itertools.pairwise(consumer) if flag == "--topic"} <= wanted
    groups = {downlink.consumer_group for downlink in config.downlinks}
    for name in ("consumer.py", "ask.py"):
        groups |= set(re.findall(r'"--group", default="(\S+)"', (ROOT / "examples" / name).read_text()))
    _endpoints, group, topic, _positions = SERVICES["slow-consumer"]["command"]
    assert topic in wanted
    assert groups | {group} == set(setup["environment"]["CONSUMER_GROUPS"].split())


def test_who_asks_names_devices_that_are_there() -> None:
    def named(service: str, option: str) -> str:
        words = SERVICES[service]["command"]
        return str(words[words.index(option) + 1])

    assert named("backend", "--device") == named("device-v5", "--name")
    assert named("backend", "--meter") == named("device-v311", "--name")
    assert {name for name, _ in dependencies(SERVICES["backend"])} == {"device-v5", "device-v311"}


def test_addresses_name_services() -> None:
    proxy = json.loads((DEPLOY / "rocketmq" / "rmq-proxy.json").read_text())
    broker = properties((DEPLOY / "rocketmq" / "broker.conf").read_text(), "=")
    assert broker["brokerIP1"] == "rocketmq"
    assert broker["namesrvAddr"] == proxy["namesrvAddr"] == SERVICES["rocketmq"]["environment"]["NAMESRV_ADDR"]
    assert proxy["namesrvAddr"].split(":")[0] in SERVICES
    assert broker["storePathRootDir"] in [target for _, target in mounts(SERVICES["rocketmq"])]
    assert broker["brokerClusterName"] == proxy["rocketMQClusterName"] == "DefaultCluster"
    for address in exported_to():
        assert address in SERVICES


def exported_to() -> list[str]:
    collector = yaml.safe_load((DEPLOY / "otelcol" / "config.yaml").read_text())
    sources = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "spanbridge.yaml").read_text())
    scrapes = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    environments = [service.get("environment", {}) for service in SERVICES.values()]
    return [
        collector["exporters"]["otlp/jaeger"]["endpoint"].split(":")[0],
        *(source["url"].split("//")[1].split(":")[0] for source in sources["datasources"]),
        *(job["static_configs"][0]["targets"][0].split(":")[0] for job in scrapes),
        *(
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"].split("//")[1].split(":")[0]
            for environment in environments
            if "OTEL_EXPORTER_OTLP_ENDPOINT" in environment
        ),
        SERVICES["spanbridge"]["environment"]["OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT"].split("//")[1].split(":")[0],
        SERVICES["slow-consumer"]["environment"]["SPANBRIDGE_PROFILING_PYROSCOPE_URL"].split("//")[1].split(":")[0],
    ]


def test_the_collectors_pipelines_use_what_is_defined() -> None:
    collector = yaml.safe_load((DEPLOY / "otelcol" / "config.yaml").read_text())
    assert set(collector["service"]["extensions"]) == set(collector["extensions"])
    for pipeline in collector["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])


def test_the_mqtt_broker_keeps_what_the_gateway_has_not_acknowledged() -> None:
    settings = properties((DEPLOY / "mosquitto" / "mosquitto.conf").read_text(), " ")
    assert settings["persistence"] == "true"
    assert settings["persistence_location"].rstrip("/") in [target for _, target in mounts(SERVICES["mosquitto"])]
    assert int(settings["autosave_interval"]) <= 60
    assert int(settings["max_queued_messages"]) > 100_000


def properties(text: str, separator: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {key.strip(): value.strip() for key, value in (line.split(separator, 1) for line in lines)}


def test_the_page_names_what_is_used() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    for service in SERVICES.values():
        image, _, tag = service["image"].rpartition(":")
        assert tag == "local" or f"| `{image}` | `{tag}` |" in page
        for port in service.get("ports", []):
            assert port.split(":")[1] in page
    for alert in re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus" / "alerts.yml").read_text()):
        assert f"| `{alert}` |" in page
    for name in re.findall(r"`(deploy/[\w./-]+)`", page):
        assert (ROOT / name).exists(), name


def test_profiles_go_to_pyroscope() -> None:
    config = examine(CONFIGURATION, {}).config
    assert config is not None
    assert config.profiling.push == "otlp"
    consumer = SERVICES["slow-consumer"]
    settings = read_settings(consumer["environment"])
    assert settings is not None
    assert settings.ways == ("pyroscope",)
    assert (ROOT / consumer["entrypoint"][-1].removeprefix("/")).is_file()
    image = (DEPLOY / "Dockerfile").read_text()
    assert "spanbridge[gateway,instrument,zstd] @" in image, "opentelemetry-instrument is in the image"
