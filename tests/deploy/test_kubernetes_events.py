"""The manifests of docs/deploy/kubernetes-events: the least rights and ways for events, on each base."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from support.clusters.fake_api_server import VERBS

from tracer.cli.verbs import watch
from tracer.watch.pod_account import ACCOUNT

FOLDER = Path(__file__).parents[2] / "docs/deploy/kubernetes-events"
BASES = ("kubernetes", "kubernetes-upload", "kubernetes-dataset")
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
FILES = [name for name in KUSTOMIZATION["resources"] if not name.startswith("..")]
VERSIONS = ("1.30", kubernetes_validate.latest_version())


def load(name: str, folder: Path = FOLDER) -> Any:
    """Return the document of a file."""
    return yaml.safe_load((folder / name).read_text())


def patches(kind: str) -> list[dict[str, Any]]:
    """Return the operations on a resource of the base."""
    [found] = [one["patch"] for one in KUSTOMIZATION["patches"] if one["target"]["kind"] == kind]
    operations: list[dict[str, Any]] = yaml.safe_load(found)
    return operations


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_resource_fits_the_schema_of_the_api(name: str, version: str) -> None:
    kubernetes_validate.validate(load(name), version, strict=True)


def test_kustomization_lists_every_file() -> None:
    assert KUSTOMIZATION["resources"][0] == "../kubernetes"
    assert sorted([*FILES, "kustomization.yaml"]) == sorted(path.name for path in FOLDER.iterdir())


def test_role_has_the_verbs_of_the_requests_and_no_more() -> None:
    """The tests of the child send each of them: tests/watch/test_pod_events_child.py."""
    [rule] = load("role.yaml")["rules"]
    assert rule == {"apiGroups": [""], "resources": ["events"], "verbs": list(VERBS.values())}


def test_role_is_given_to_the_account_of_the_recorder_alone() -> None:
    binding, base = load("rolebinding.yaml"), FOLDER.with_name("kubernetes")
    account, namespace = load("serviceaccount.yaml", base), load("namespace.yaml", base)
    assert binding["roleRef"]["name"] == load("role.yaml")["metadata"]["name"]
    names = account["metadata"]["name"], namespace["metadata"]["name"]
    assert [(one["kind"], one["name"], one["namespace"]) for one in binding["subjects"]] == [
        ("ServiceAccount", *names)
    ]


def test_patches_add_the_option_the_token_and_the_way_out() -> None:
    argument, token = patches("DaemonSet")
    assert argument == {
        "op": "add",
        "path": "/spec/template/spec/containers/0/args/-",
        "value": "--events",
    }
    assert token["path"] == "/spec/template/spec/automountServiceAccountToken"
    assert token["value"] is True
    [way] = patches("NetworkPolicy")
    assert way["path"] == "/spec/egress/-"
    assert {port["port"] for port in way["value"]["ports"]} == {443, 6443}


def test_option_is_one_of_watch_that_wants_the_token_of_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    if ACCOUNT.exists():
        pytest.skip("this runs in a pod")
    refused = CliRunner().invoke(watch.command, [patches("DaemonSet")[0]["value"]])
    assert "deploy docs/deploy/kubernetes-events" in str(refused.exception)


@pytest.mark.skipif(shutil.which("kustomize") is None, reason="needs kustomize")
@pytest.mark.parametrize("base", BASES)
def test_kustomize_adds_events_to_each_base(tmp_path: Path, base: str) -> None:
    for name in (*BASES, FOLDER.name):
        shutil.copytree(FOLDER.with_name(name), tmp_path / name)
    file = tmp_path / FOLDER.name / "kustomization.yaml"
    file.write_text(file.read_text().replace("  - ../kubernetes\n", f"  - ../{base}\n"))

    def built(folder: str) -> dict[tuple[str, str], Any]:
        done = subprocess.run(
            ["kustomize", "build", tmp_path / folder], stdout=subprocess.PIPE, text=True, check=True
        )
        return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}

    before, after = built(base), built(FOLDER.name)
    for one in after.values():
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    assert {kind for kind, _ in after.keys() - before.keys()} == {"ClusterRole", "ClusterRoleBinding"}
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {("DaemonSet", "memcg-tracer"), ("NetworkPolicy", "memcg-tracer")}
    old, new = (one["DaemonSet", "memcg-tracer"]["spec"]["template"]["spec"] for one in (before, after))
    assert new["containers"][0].pop("args") == [*old["containers"][0].pop("args"), "--events"]
    assert (old.pop("automountServiceAccountToken"), new.pop("automountServiceAccountToken")) == (False, True)
    assert old == new
    old_ways, new_ways = (one["NetworkPolicy", "memcg-tracer"]["spec"] for one in (before, after))
    assert new_ways.pop("egress")[:-1] == old_ways.pop("egress")
    assert old_ways == new_ways
