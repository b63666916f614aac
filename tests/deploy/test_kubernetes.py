"""The Kubernetes manifests: whole, and consistent with each other, with the image and with the gateway."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from spanbridge import __version__
from spanbridge.config import Config, examine_text
from spanbridge.config.models import Admin

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
MANIFESTS = {
    str(path.relative_to(FOLDER)): list(yaml.safe_load_all(path.read_text())) for path in sorted(FOLDER.rglob("*.yaml"))
}
KINDS = {
    "ConfigMap": "v1",
    "Secret": "v1",
    "Service": "v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
}
LABELS = {"app.kubernetes.io/name": "spanbridge"}
WORKLOADS = ["deployment.yaml", "optional/statefulset.yaml"]


def manifest(name: str) -> dict[str, Any]:
    (document,) = MANIFESTS[name]
    return dict(copy.deepcopy(document))


def pod(name: str) -> dict[str, Any]:
    return dict(manifest(name)["spec"]["template"]["spec"])


def container(name: str) -> dict[str, Any]:
    (only,) = pod(name)["containers"]
    return dict(only)


def environment(name: str) -> dict[str, Any]:
    return {variable["name"]: variable.get("value") for variable in container(name)["env"]}


def configuration(tmp_path: Path, environ: dict[str, str] | None = None) -> Config:
    for secret in manifest("secret.yaml")["stringData"]:
        (tmp_path / secret).write_text("secret")
    text = manifest("configmap.yaml")["data"]["spanbridge.toml"]
    report = examine_text(text, {"SECRETS": str(tmp_path), **(environ or {})}, base=tmp_path)
    assert {problem.path for problem in report.problems} == {"admin.host"}, "pods are reached from outside"
    assert report.config is not None
    return report.config


@pytest.mark.parametrize("name", MANIFESTS)
def test_is_one_object_of_a_known_kind_with_the_name_and_label_of_all(name: str) -> None:
    document = manifest(name)
    assert document["apiVersion"] == KINDS[document["kind"]]
    assert name.removeprefix("optional/") == f"{document['kind'].lower()}.yaml"
    assert document["metadata"] == {"name": "spanbridge", "labels": LABELS}, "the namespace is for kubectl to say"


def test_a_first_apply_needs_nothing_that_a_cluster_may_lack() -> None:
    kinds = {manifest(name)["kind"] for name in MANIFESTS if "/" not in name}
    assert kinds == {"ConfigMap", "Secret", "Service", "Deployment", "PodDisruptionBudget"}


def test_selectors_find_the_pods() -> None:
    for name in WORKLOADS:
        assert manifest(name)["spec"]["template"]["metadata"]["labels"] == LABELS
        assert manifest(name)["spec"]["selector"]["matchLabels"] == LABELS
    assert manifest("service.yaml")["spec"]["selector"] == LABELS
    assert manifest("poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"] == LABELS
    assert manifest("optional/networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"] == LABELS
    assert manifest("optional/servicemonitor.yaml")["spec"]["selector"]["matchLabels"] == LABELS
    assert manifest("optional/statefulset.yaml")["spec"]["serviceName"] == manifest("service.yaml")["metadata"]["name"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_ports_and_probes_are_the_admin_servers(name: str, tmp_path: Path) -> None:
    admin = configuration(tmp_path).admin
    assert container(name)["ports"] == [{"name": "admin", "containerPort": admin.port}]
    assert admin.port == Admin().port
    assert (admin.host, admin.allow_remote) == ("0.0.0.0", True)
    for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container(name)[probe]["httpGet"] == {"path": path, "port": "admin"}
    (port,) = manifest("service.yaml")["spec"]["ports"]
    assert port == {"name": "admin", "port": admin.port, "targetPort": "admin"}
    assert manifest("service.yaml")["spec"]["publishNotReadyAddresses"] is True
    (endpoint,) = manifest("optional/servicemonitor.yaml")["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("admin", "/metrics")
    (ingress,) = manifest("optional/networkpolicy.yaml")["spec"]["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": "admin"}]


@pytest.mark.parametrize("name", WORKLOADS)
def test_runs_without_rights_as_the_images_user(name: str) -> None:
    (user,) = re.findall(r"^USER (\d+):\1$", DOCKERFILE, re.MULTILINE)
    security = pod(name)["securityContext"]
    assert (security["runAsNonRoot"], security["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["automountServiceAccountToken"] is False
    assert pod(name)["enableServiceLinks"] is False, "a Service's variables would look like the gateway's settings"
    assert container(name)["image"].endswith(f"/spanbridge:{__version__}")


@pytest.mark.parametrize("name", WORKLOADS)
def test_has_time_and_memory(name: str, tmp_path: Path) -> None:
    config = configuration(tmp_path)
    assert pod(name)["terminationGracePeriodSeconds"] >= config.uplink.drain_timeout + 10
    resources = container(name)["resources"]
    in_hand = (config.uplink.max_in_flight_bytes >> 20) + 16
    assert int(resources["limits"]["memory"].removesuffix("Mi")) > 100 + in_hand
    assert set(resources["requests"]) == {"cpu", "memory"}


@pytest.mark.parametrize("name", WORKLOADS)
def test_mounts_what_the_configuration_and_the_image_ask_for(name: str) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container(name)["volumeMounts"]}
    volumes = {volume.pop("name"): volume for volume in pod(name)["volumes"]}
    assert set(mounts) == set(volumes)
    assert volumes["configuration"]["configMap"]["name"] == manifest("configmap.yaml")["metadata"]["name"]
    assert volumes["secrets"]["secret"] == {
        "secretName": manifest("secret.yaml")["metadata"]["name"],
        "defaultMode": 0o440,
    }
    (file,) = manifest("configmap.yaml")["data"]
    assert f"SPANBRIDGE_CONFIG={mounts['configuration']}/{file}" in DOCKERFILE
    text = manifest("configmap.yaml")["data"][file]
    wanted = re.findall(r"file:\$\{SECRETS:-([\w/]+)\}/([\w-]+)", text)
    assert {folder for folder, _ in wanted} == {mounts["secrets"]}
    assert {secret for _, secret in wanted} == set(manifest("secret.yaml")["stringData"])


def test_one_gateway_never_meets_another_of_its_name(tmp_path: Path) -> None:
    spec = manifest("deployment.yaml")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    config = configuration(tmp_path)
    assert config.name == "spanbridge"
    assert [broker.share for broker in config.mqtt] == [None]


def test_several_gateways_have_names_of_their_own_and_share(tmp_path: Path) -> None:
    several = environment("optional/statefulset.yaml")
    assert manifest("optional/statefulset.yaml")["spec"]["replicas"] > 1
    named = [item for item in container("optional/statefulset.yaml")["env"] if item["name"] == "SPANBRIDGE__NAME"]
    assert named == [{"name": "SPANBRIDGE__NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    ours = {key: value for key, value in several.items() if key.startswith("SPANBRIDGE")} | {
        "SPANBRIDGE__NAME": "spanbridge-0"
    }
    config = configuration(tmp_path, ours)
    assert config.name == "spanbridge-0"
    assert [broker.share for broker in config.mqtt] == ["spanbridge"]


def test_both_run_the_same_but_for_that() -> None:
    one, several = (pod(name) for name in WORKLOADS)
    del several["topologySpreadConstraints"]
    for spec in (one, several):
        for only in spec["containers"]:
            only["env"] = [item for item in only["env"] if not item["name"].startswith("SPANBRIDGE__")]
    assert one == several


def test_the_page_names_every_file() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    for name in MANIFESTS:
        assert f"| `{name}` |" in page
