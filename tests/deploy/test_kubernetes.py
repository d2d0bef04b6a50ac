"""The manifests of docs/deploy/kubernetes: the API server takes them, and they fit together."""

from __future__ import annotations

import shutil
import subprocess
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
UPLOAD = FOLDER.with_name("kubernetes-upload")
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


def merged(resource: Any, patch: Any, name: str = "") -> Any:
    """Return a resource with a strategic merge patch: containers are merged by name, other lists replaced."""
    if isinstance(resource, dict) and isinstance(patch, dict):
        return resource | {key: merged(resource.get(key), value, key) for key, value in patch.items()}
    if name == "containers":
        patches = {one["name"]: one for one in patch}
        assert set(patches) <= {one["name"] for one in resource}, "a patch makes no container"
        return [merged(one, patches.get(one["name"], {})) for one in resource]
    return patch


def with_upload(kind: str) -> Any:
    """Return a resource of the base as `kubernetes-upload` changes it."""
    patch = yaml.safe_load((UPLOAD / f"{kind.lower()}.yaml").read_text())
    base = resource(kind)
    assert {name: patch[name] for name in ("apiVersion", "kind")} == {
        name: base[name] for name in ("apiVersion", "kind")
    }
    assert patch["metadata"] == {"name": base["metadata"]["name"]}, "a patch without a namespace fits any"
    return merged(base, patch)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["DaemonSet", "NetworkPolicy"])
def test_patched_resource_fits_the_schema_of_the_api(kind: str, version: str) -> None:
    kubernetes_validate.validate(with_upload(kind), version, strict=True)


def test_upload_patches_the_base_and_lists_every_file() -> None:
    kustomization = yaml.safe_load((UPLOAD / "kustomization.yaml").read_text())
    assert kustomization["resources"] == ["../kubernetes"]
    patches = [patch["path"] for patch in kustomization["patches"]]
    assert sorted([*patches, "kustomization.yaml"]) == sorted(path.name for path in UPLOAD.iterdir())


def test_upload_changes_the_place_of_traces_alone() -> None:
    [before] = resource("DaemonSet")["spec"]["template"]["spec"]["containers"]
    [after] = with_upload("DaemonSet")["spec"]["template"]["spec"]["containers"]
    [url] = set(after["args"]) - set(before["args"])
    assert set(before["args"]) - set(after["args"]) == {"--out=/var/lib/memcg-tracer"}, "the default of a URL"
    folder = url.removeprefix("--out=s3://").rpartition("/")[2]
    assert folder in {f"$({variable['name']})" for variable in after["env"]}, "a folder for each node"
    refused = CliRunner().invoke(watch.command, [*after["args"][1:], "--keep", "1s"])
    assert "--keep 1s" in refused.output, "nothing but the last option is refused"
    assert after["securityContext"] == before["securityContext"]
    assert after["volumeMounts"] == before["volumeMounts"]


def test_upload_opens_the_way_out_and_none_in() -> None:
    before, after = resource("NetworkPolicy")["spec"], with_upload("NetworkPolicy")["spec"]
    assert (before["egress"], after["ingress"]) == ([], before["ingress"])
    assert {port["port"] for rule in after["egress"] for port in rule["ports"]} == {53, 443}


@pytest.mark.skipif(shutil.which("kustomize") is None, reason="needs kustomize")
@pytest.mark.parametrize("folder", [FOLDER, UPLOAD], ids=lambda folder: folder.name)
def test_kustomize_builds_what_fits_the_schema_of_the_api(folder: Path) -> None:
    done = subprocess.run(["kustomize", "build", folder], stdout=subprocess.PIPE, text=True, check=True)
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(RESOURCES)
    for one in built:
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    [daemonset] = [one for one in built if one["kind"] == "DaemonSet"]
    expected = (resource if folder == FOLDER else with_upload)("DaemonSet")
    [container] = daemonset["spec"]["template"]["spec"]["containers"]
    assert container["args"] == expected["spec"]["template"]["spec"]["containers"][0]["args"]
    assert daemonset["metadata"]["namespace"] == KUSTOMIZATION["namespace"]
