"""The manifests of docs/deploy/kubernetes: the API server takes them, and they fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from tracer.cli.verbs import watch
from tracer.version import VERSION

FOLDER = Path(__file__).parents[2] / "docs/deploy/kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
RESOURCES: list[str] = KUSTOMIZATION["resources"]
VERSIONS = ("1.30", "1.32", kubernetes_validate.latest_version())
"""From the first that has `appArmorProfile`."""


def resource(kind: str) -> Any:
    """Return the only resource of a kind."""
    [found] = [one for name in RESOURCES if (one := load(name))["kind"] == kind]
    return found


def load(name: str) -> Any:
    """Return the document of a file."""
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RESOURCES)
def test_resource_fits_the_schema_of_the_api(name: str, version: str) -> None:
    kubernetes_validate.validate(load(name), version, strict=True)


def test_schema_refuses_a_field_that_the_api_does_not_have() -> None:
    daemonset = resource("DaemonSet")
    daemonset["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(daemonset, VERSIONS[-1], strict=True)


def test_kustomization_lists_every_file() -> None:
    assert sorted([*RESOURCES, "kustomization.yaml"]) == sorted(path.name for path in FOLDER.iterdir())
    assert (KUSTOMIZATION["apiVersion"], KUSTOMIZATION["kind"]) == (
        "kustomize.config.k8s.io/v1beta1",
        "Kustomization",
    )


def test_names_match() -> None:
    pod = resource("DaemonSet")["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert KUSTOMIZATION["namespace"] == resource("Namespace")["metadata"]["name"]
    assert pod["spec"]["serviceAccountName"] == resource("ServiceAccount")["metadata"]["name"]
    assert resource("DaemonSet")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert resource("Service")["spec"]["selector"].items() <= labels.items()
    assert resource("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    [container] = pod["spec"]["containers"]
    assert [image["name"] for image in KUSTOMIZATION["images"]] == [container["image"]]
    assert KUSTOMIZATION["images"][0]["newTag"] == VERSION
    mounted = [mount["name"] for mount in container["volumeMounts"]]
    assert sorted(mounted) == sorted(volume["name"] for volume in pod["spec"]["volumes"])


def test_port_is_the_one_that_watch_serves_at() -> None:
    pod = resource("DaemonSet")["spec"]["template"]
    [container] = pod["spec"]["containers"]
    [port] = container["ports"]
    assert f"--serve=0.0.0.0:{port['containerPort']}" in container["args"]
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    assert container["readinessProbe"]["httpGet"]["port"] == port["name"]
    assert [one["targetPort"] for one in resource("Service")["spec"]["ports"]] == [port["name"]]
    [ingress] = resource("NetworkPolicy")["spec"]["ingress"]
    assert [one["port"] for one in ingress["ports"]] == [port["name"]]


def test_arguments_are_those_of_watch() -> None:
    [container] = resource("DaemonSet")["spec"]["template"]["spec"]["containers"]
    verb, *options = container["args"]
    assert verb == "watch"
    refused = CliRunner().invoke(watch.command, [*options, "--keep", "1s"])
    assert "--keep 1s" in refused.output, "nothing but the last option is refused"
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    out = next(word.removeprefix("--out=") for word in options if word.startswith("--out="))
    assert not mounts[out].get("readOnly")


def test_host_is_mounted_read_only_but_for_what_the_recorder_writes() -> None:
    spec = resource("DaemonSet")["spec"]["template"]["spec"]
    hosts = {volume["name"] for volume in spec["volumes"] if "hostPath" in volume}
    written = {
        mount["mountPath"]
        for mount in spec["containers"][0]["volumeMounts"]
        if mount["name"] in hosts and not mount.get("readOnly")
    }
    assert written == {"/var/lib/memcg-tracer", "/var/cache/memcg-tracer"}
