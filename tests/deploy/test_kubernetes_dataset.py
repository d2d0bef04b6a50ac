"""The manifests of docs/deploy/kubernetes-dataset: a job without privileges that makes a dataset."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from support.storing.object_store import object_store

import tracer.fleet
from tracer.cli.verbs import export

FOLDER = Path(__file__).parents[2] / "docs/deploy/kubernetes-dataset"
TRACES = Path(__file__).parents[2] / "traces"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
FILES = [name for name in KUSTOMIZATION["resources"] if not name.startswith("..")]
VERSIONS = ("1.30", kubernetes_validate.latest_version())


def load(name: str, folder: Path = FOLDER) -> Any:
    """Return the document of a file."""
    return yaml.safe_load((folder / name).read_text())


def job() -> Any:
    """Return the spec of the jobs."""
    return load("cronjob.yaml")["spec"]["jobTemplate"]["spec"]


def container() -> Any:
    """Return the only container of the job's pod."""
    [found] = job()["template"]["spec"]["containers"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_resource_fits_the_schema_of_the_api(name: str, version: str) -> None:
    kubernetes_validate.validate(load(name), version, strict=True)


def test_kustomization_lists_every_file() -> None:
    assert KUSTOMIZATION["resources"][0] == "../kubernetes-upload"
    assert sorted([*FILES, "kustomization.yaml"]) == sorted(path.name for path in FOLDER.iterdir())
    base = load("kustomization.yaml", FOLDER.with_name("kubernetes"))
    assert KUSTOMIZATION["namespace"] == base["namespace"]


def test_pod_is_that_of_the_policy_and_none_of_the_recorder() -> None:
    pod = job()["template"]
    labels = pod["metadata"]["labels"]
    assert load("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    assert pod["spec"]["serviceAccountName"] == load("serviceaccount.yaml")["metadata"]["name"]
    recorder = load("daemonset.yaml", FOLDER.with_name("kubernetes"))["spec"]["selector"]["matchLabels"]
    assert not recorder.items() <= labels.items()


def test_policy_opens_the_way_to_the_store_and_none_in() -> None:
    policy = load("networkpolicy.yaml")["spec"]
    assert (policy["policyTypes"], policy["ingress"]) == (["Ingress", "Egress"], [])
    upload = load("networkpolicy.yaml", FOLDER.with_name("kubernetes-upload"))
    assert policy["egress"] == upload["spec"]["egress"]


def test_pod_has_no_privilege() -> None:
    """What Pod Security calls `restricted`, and nothing of the host."""
    spec = job()["template"]["spec"]
    assert not {"hostPID", "hostNetwork", "hostIPC"} & spec.keys()
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [volume.keys() - {"name"} for volume in spec["volumes"]] == [{"emptyDir"}]
    assert [mount["mountPath"] for mount in container()["volumeMounts"]] == ["/tmp"]


def test_runs_do_not_overlap_and_one_that_hangs_ends() -> None:
    spec = load("cronjob.yaml")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert job()["activeDeadlineSeconds"] > 0
    assert job()["template"]["spec"]["restartPolicy"] == "Never"
    assert {"cpu", "memory"} <= container()["resources"]["limits"].keys()


def test_job_adds_what_is_new_below_the_urls_of_all_nodes() -> None:
    run = CliRunner()
    upload = load("daemonset.yaml", FOLDER.with_name("kubernetes-upload"))
    [recorder] = upload["spec"]["template"]["spec"]["containers"]
    [out] = [word.removeprefix("--out=") for word in recorder["args"] if word.startswith("--out=")]
    verb, source, *options = container()["args"]
    assert (verb, source) == ("export", out.rpartition("/")[0])
    argv = [word.replace("s3://BUCKET", "memory://bucket") for word in (source, *options)]
    with object_store() as store:
        for node, trace in (("node-1", "fork"), ("node-2", "shmem")):
            for file in (TRACES / trace).iterdir():
                store().pipe_file(f"/bucket/traces/{node}/{trace}/{file.name}", file.read_bytes())
            added = run.invoke(export.command, argv)
            assert added.exit_code == 0, added.output
            assert "1 trace with 1 kill added" in added.stderr
        again = run.invoke(export.command, argv)
        assert (again.exit_code, again.stdout) == (0, "memory://bucket/dataset\n")
        assert again.stderr == "memcg-tracer: 2 traces there already\n"
        lazy: Any = tracer.fleet.open("memory://bucket/dataset").kills
        assert {*lazy.compute(scheduler="synchronous")["cause"]} == {"anon_growth", "shmem"}


@pytest.mark.skipif(shutil.which("kustomize") is None, reason="needs kustomize")
def test_kustomize_gives_the_job_the_image_of_the_recorder(tmp_path: Path) -> None:
    for name in ("kubernetes", "kubernetes-upload", "kubernetes-dataset"):
        shutil.copytree(FOLDER.with_name(name), tmp_path / name)
    named = tmp_path / "kubernetes/kustomization.yaml"
    image = "    newTag: 7\n    newName: registry.example/oom/memcg-tracer\n"
    named.write_text(f"{named.read_text().partition('    newTag')[0]}{image}".replace("7", '"7"'))
    done = subprocess.run(
        ["kustomize", "build", tmp_path / "kubernetes-dataset"], stdout=subprocess.PIPE, text=True, check=True
    )
    built = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}
    for one in built.values():
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == KUSTOMIZATION["namespace"]
    assert len(built) == 8
    pod = built["CronJob", "memcg-tracer-dataset"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    recorder = built["DaemonSet", "memcg-tracer"]["spec"]["template"]["spec"]["containers"][0]
    assert pod["containers"][0]["image"] == recorder["image"] == "registry.example/oom/memcg-tracer:7"
