"""`kubectl oom` and the resize of `whatif` by kubectl itself, against a server that checks each right."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
from support.clusters.fake_kubectl import Cluster, node, pod, recorder
from support.clusters.pods_server import PodsServer
from synthetic.oom_log import Dump

from tracer.analysis.results.outcome import PodLimit
from tracer.analysis.whatif.outcomes import command
from tracer.cli import kubectl_oom

KUBECTL: Final = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl")
UID: Final = "1c2f3e4d-5b6a-4980-9abc-def012345678"
OWN: Final = [("get", "pods", "shop"), ("get", "nodes", None), ("list", "pods", "memcg-tracer")]
"""The rights that both ways begin with. Without the one on nodes, kubectl oom goes on."""


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    made.state["nodes"] = [node("worker-1")]
    made.state["pods"] = [pod("web", "shop", "worker-1", UID), recorder("worker-1")]
    return made


def ask(cluster: Cluster, *arguments: str) -> tuple[subprocess.CompletedProcess[str], PodsServer]:
    """Run kubectl oom with the real kubectl. Returns the run, and the server with its requests."""
    with PodsServer(cluster.state) as server:
        cluster.install_real(Path(KUBECTL or ""), server.url)
        program = [sys.executable, "-IS", kubectl_oom.__file__]
        done = subprocess.run(
            [*program, *arguments],
            env={"PATH": str(cluster.path)},
            capture_output=True,
            text=True,
            check=False,
        )
    return done, server


def test_recorder_is_asked_with_the_rights_that_the_error_names(cluster: Cluster) -> None:
    cluster.state["runs"]["worker-1"] = {"out": "the screen\n", "error": "memcg-tracer: a note\n"}
    done, server = ask(cluster, "web")
    assert (done.returncode, done.stdout) == (0, "the screen\n"), done.stderr
    assert "kubectl-oom: worker-1: a note" in done.stderr
    assert {(verb, what) for verb, what, place in server.requests if place == "memcg-tracer"} == {
        ("get", "pods"),
        ("list", "pods"),
        ("create", "pods/exec"),
    }
    assert kubectl_oom.exec_rights("x") == "get and list on pods and create on pods/exec in namespace x"


def test_status_of_the_recorder_reaches_the_user(cluster: Cluster) -> None:
    cluster.state["runs"]["worker-1"] = {"error": "memcg-tracer: error: no memory for that\n", "code": 3}
    done, _ = ask(cluster, "web")
    assert done.stderr == "kubectl-oom: error: memcg-tracer on node worker-1: no memory for that\n"
    cluster.state["forbidden"] = ["pods/exec in memcg-tracer"]
    done, _ = ask(cluster, "web")
    assert 'cannot create resource "pods/exec"' in done.stderr
    assert done.stderr.endswith(f"; this needs {kubectl_oom.exec_rights('memcg-tracer')}\n")


def test_kernel_log_is_read_with_the_rights_that_the_error_names(cluster: Cluster) -> None:
    del cluster.state["pods"][1]
    dump = Dump(pid=4242, oom_memcg=f"/kubepods/burstable/pod{UID}")
    cluster.state["log"] = "".join(f"[  7.5] {line}\n" for line in dump.lines())
    done, server = ask(cluster, "web")
    assert "Killed process 4242" in done.stdout, done.stderr
    assert [one["metadata"]["name"] for one in cluster.state["pods"]] == ["web"]
    assert server.requests[: len(OWN)] == OWN
    asked = {(verb, what) for verb, what, place in server.requests if place in ("default", None)}
    cluster.state["forbidden"] = ["create pods in default"]
    done, _ = ask(cluster, "web")
    named = done.stderr.partition("; this needs ")[2]
    groups = re.findall(
        r"((?:[a-z]+(?:, | and )?)+) on (nodes|pods/log|pods)", named.replace("and get on", "get on")
    )
    assert {
        (verb, what) for verbs, what in groups for verb in re.findall("create|get|delete", verbs)
    } == asked


@pytest.mark.parametrize(
    "limit",
    [PodLimit("shop", "web", "app", "Burstable"), PodLimit("shop", "web", None, "Guaranteed")],
    ids=lambda limit: limit.qos_class,
)
def test_resize_of_whatif_is_a_patch_that_the_api_knows(cluster: Cluster, limit: PodLimit) -> None:
    words = command(limit, 300 << 20)
    assert words is not None
    with PodsServer(cluster.state) as server:
        cluster.install_real(Path(KUBECTL or ""), server.url)
        environment = os.environ | {"PATH": str(cluster.path)}
        subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert server.requests == [("get", "pods/resize", "shop"), ("patch", "pods/resize", "shop")]
    [(kind, patch)] = server.patches
    assert kind == "application/strategic-merge-patch+json"
    kubernetes_validate.validate(patched(pod("web", "shop", "worker-1", UID), patch), "1.37", strict=True)


def patched(found: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return a pod with a strategic merge patch of its resources, which merges containers by name."""
    spec = found["spec"] | {name: value for name, value in patch["spec"].items() if name != "containers"}
    changes = {one["name"]: one for one in patch["spec"].get("containers", [])}
    spec["containers"] = [one | changes.pop(one["name"], {}) for one in spec["containers"]]
    assert not changes, "a patch that makes a container"
    return found | {"spec": spec}
