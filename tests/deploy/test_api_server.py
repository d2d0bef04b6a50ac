"""What users of a cluster do, against a real kube-apiserver: tests/support/clusters/api_server.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from support.clusters import api_server
from support.clusters.api_server import ApiServer, Kubelet
from support.clusters.fake_kubectl import LAST, node, pod, recorder
from support.slowdown import SLOWDOWN
from synthetic.oom_log import Dump

from tracer.cli import kubectl_oom
from tracer.watch.finishing import Finished
from tracer.watch.pod_account import PodAccount
from tracer.watch.pod_events import AT_ONCE, KEPT, PodEvents

MISSING: Final = api_server.missing()
pytestmark = [pytest.mark.skipif(MISSING is not None, reason=str(MISSING)), pytest.mark.timeout(300)]
DEPLOY: Final = Path(__file__).parents[2] / "docs/deploy"
ACCOUNT: Final = "system:serviceaccount:memcg-tracer:memcg-tracer"
NOON_NS: Final = 1_795_694_400_000_000_000  # 2026-11-26T12:00:00Z
RIGHTS: Final = {
    "shop": [(["get", "list"], "pods")],
    "memcg-tracer": [(["get", "list"], "pods"), (["create"], "pods/exec")],
    "default": [(["create", "get", "delete"], "pods"), (["get"], "pods/log")],
}
"""The rights in docs/deploy/README.md, with get on nodes, which the user `ops` has."""


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    """Return what the kubelet answers from."""
    return {"pods": [recorder("worker-1")], "runs": {}, "log": ""}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> Iterator[ApiServer]:
    """Run a server with the DaemonSet and its account, a node of two that is ready, and pods of `shop`."""
    with ApiServer(tmp_path_factory.mktemp("server"), ("jane", "ops")) as made:
        made.kubectl("apply", "--validate=true", "-f", "-", stdin=manifests(made))
        made.make_account("default", "default")
        made.make_account("default", "memcg-tracer")
        made.make_namespace("shop")
        with Kubelet(made.certificates, state) as kubelet:
            made.make(kubelet.on(node("worker-1")))
            made.make(node("worker-2", ready=False))
            made.make(recorder("worker-1"))
            made.make(pod("web", "shop", "worker-1", "", last=LAST))
            made.make(pod("far", "shop", "worker-2", ""))
            made.make(pod("lost", "shop", "worker-9", ""))
            for place, rules in RIGHTS.items():
                bind(made, "Role", place, rules)
            bind(made, "ClusterRole", None, [(["get"], "nodes")])
            yield made


def manifests(server: ApiServer) -> str:
    """Return the DaemonSet with events, without the field that no server before 1.30 knows."""
    documents = list(yaml.safe_load_all(server.kubectl("kustomize", str(DEPLOY / "kubernetes-events"))))
    [daemonset] = [one for one in documents if one["kind"] == "DaemonSet"]
    del daemonset["spec"]["template"]["spec"]["securityContext"]["appArmorProfile"]
    text: str = yaml.safe_dump_all(documents)
    return text


def bind(server: ApiServer, kind: str, place: str | None, rules: list[tuple[list[str], str]]) -> None:
    """Give the user `ops` a role."""
    group = "rbac.authorization.k8s.io"
    meta = {"name": "kubectl-oom"} | ({} if place is None else {"namespace": place})
    one: dict[str, Any] = {"apiVersion": f"{group}/v1", "metadata": meta}
    server.make(
        one | {"kind": kind, "rules": [{"apiGroups": [""], "resources": [of], "verbs": v} for v, of in rules]}
    )
    reference = {"apiGroup": group, "kind": kind, "name": "kubectl-oom"}
    subjects = [{"apiGroup": group, "kind": "User", "name": "ops"}]
    server.make(one | {"kind": f"{kind}Binding", "roleRef": reference, "subjects": subjects})


def ask(server: ApiServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl oom."""
    command = [sys.executable, "-IS", kubectl_oom.__file__, *arguments]
    return subprocess.run(command, env=server.environment, capture_output=True, text=True, check=False)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the error of a run that printed nothing else."""
    assert (done.returncode, done.stdout) == (1, ""), done
    return done.stderr.splitlines()[-1].removeprefix("kubectl-oom: error: ")


def test_account_of_the_recorder_may_create_and_patch_events_and_nothing_else(server: ApiServer) -> None:
    """The rules for any account that is logged in are those of an account without a role."""
    rules = [rules_of(server, name) for name in (ACCOUNT, ACCOUNT.removesuffix("memcg-tracer") + "default")]
    more = [one for one in rules[0] if one not in rules[1]]
    assert more == [{"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}]


def rules_of(server: ApiServer, account: str) -> list[dict[str, Any]]:
    """Return what an account may do in the namespace `shop`."""
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
    review = json.dumps(kind | {"spec": {"namespace": "shop"}})
    groups = [f"--as-group=system:{one}" for one in ("authenticated", "serviceaccounts")]
    options = ("-f", "-", "-o", "json", f"--as={account}", *groups)
    rules: list[dict[str, Any]] = json.loads(server.kubectl("create", *options, stdin=review))["status"][
        "resourceRules"
    ]
    return rules


@pytest.fixture
def work(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PodEvents]:
    """Yield the events of a recorder with a token of its account."""
    monkeypatch.setenv("MEMCG_TRACER_HOST", "worker-1")
    token = server.kubectl("create", "token", "memcg-tracer", "-n", "memcg-tracer")
    (tmp_path / "token").write_text(token)
    (tmp_path / "ca.crt").write_bytes((server.certificates.folder / "ca.crt").read_bytes())
    account = PodAccount("127.0.0.1", server.port, tmp_path)
    lines: list[str] = []
    yield PodEvents(tmp_path, account, lines.append, lines.append, again_after_s=(0.2,), every_s=0.2)
    server.start_again()


def killed(of: dict[str, Any], *seconds: float, container: str = "app") -> Finished:
    """Return an explained trace with kills of a container of a pod, at seconds after noon."""
    meta, times_ns = of["metadata"], [NOON_NS + int(one * 1e9) for one in seconds]
    names = {"pod": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"], "container": container}
    told = names | {"kills": len(seconds), "times_ns": times_ns, "sentence": f"It grew, {len(seconds)}."}
    return Finished(Path("/traces/a"), "kill", NOON_NS, None, 1, pods=(told,))


def deadline_s() -> float:
    return time.monotonic() + 60 * SLOWDOWN


def test_event_is_described_with_its_pod_and_counts_kills_of_an_outage(
    server: ApiServer, work: PodEvents, tmp_path: Path
) -> None:
    web = server.get("pod", "web")
    work.add(killed(web, 0.0))
    work.finish(deadline_s())
    described = server.kubectl("describe", "pod", "web").partition("\nEvents:")[2]
    assert "Warning  OOMKill" in described
    assert "It grew, 1. Trace on worker-1: /traces/a" in described
    assert "spec.containers{app}" in server.kubectl("get", "events", "-o", "wide")
    server.stop()
    work.add(killed(web, 5.0, 6.0))
    work.finish(deadline_s())
    assert (tmp_path / KEPT).exists()
    server.start()
    work.finish(deadline_s())  # a server that has just begun may not know the role yet
    while (tmp_path / KEPT).exists():
        work.finish(deadline_s())
    events = server.get("events", "--field-selector=reason=OOMKill,involvedObject.name=web")["items"]
    assert [(one["count"], one["firstTimestamp"], one["lastTimestamp"]) for one in events] == [
        (3, "2026-11-26T12:00:00Z", "2026-11-26T12:00:06Z")
    ]
    assert {name for name, value in events[0].items() if value is not None} - {"metadata"} <= {
        *("apiVersion", "kind", "count", "firstTimestamp", "lastTimestamp", "involvedObject", "message"),
        *("reason", "reportingComponent", "reportingInstance", "source", "type"),
    }


def test_events_of_many_containers_are_sent_a_few_at_a_time(server: ApiServer, work: PodEvents) -> None:
    far = server.get("pod", "far")
    for number in range(AT_ONCE + 3):
        work.add(killed(far, number, container=f"c{number}"))
    counts = []
    while work.due_s < float("inf"):
        work.step(time.monotonic())
        if work._child is None:
            selector = "--field-selector=involvedObject.name=far"
            counts.append(len(server.get("events", selector)["items"]))
    assert {AT_ONCE, AT_ONCE + 3} <= set(counts) <= {0, AT_ONCE, AT_ONCE + 3}


def test_recorder_answers_and_a_user_needs_the_right_to_create_exec(
    server: ApiServer, state: dict[str, Any]
) -> None:
    """RBAC takes a websocket as `get`; `create` is enough, since kubectl then asks by POST.

    The kubelet of the test knows websockets only, so that request ends there.
    """
    state["runs"]["worker-1"] = {"out": "the screen\n", "error": "memcg-tracer: a note\n"}
    done = ask(server, "web", "--context=admin")
    assert (done.returncode, done.stdout) == (0, "the screen\n"), done.stderr
    assert done.stderr == "kubectl-oom: worker-1: a note\n"
    state["runs"]["worker-1"] = {"error": "memcg-tracer: error: no memory for that\n", "code": 3}
    assert (
        error_of(ask(server, "web", "--context=admin")) == "memcg-tracer on node worker-1: no memory for that"
    )
    right = ("auth", "can-i", "create", "pods", "--subresource=exec", "-n", "memcg-tracer")
    assert server.kubectl(*right, "--as=ops") == "yes\n"
    assert "forbidden" not in error_of(ask(server, "web", "--context=ops"))


def test_kills_of_all_nodes_name_the_node_without_a_recorder(
    server: ApiServer, state: dict[str, Any]
) -> None:
    kill = {
        "cause": "anon_growth",
        "workload": "shop/web",
        "host": "worker-1",
        "count": 2,
        "last": "2026-11-30T06",
    }
    state["runs"]["worker-1"] = {"out": json.dumps({"kills": [kill]})}
    done = ask(server, "-A", "--context=admin")
    assert done.stdout.splitlines()[1].split() == [
        "2026-11-30T06",
        "2",
        "worker-1",
        "shop/web",
        "anon_growth",
    ]
    assert done.stderr == "kubectl-oom: node worker-2 gave no answer: no pod of the DaemonSet\n"


def test_node_that_is_gone_or_not_ready_or_breaks_off_is_an_error(
    server: ApiServer, state: dict[str, Any]
) -> None:
    assert error_of(ask(server, "far")) == (
        "node worker-2 is NotReady: its kubelet runs nothing; try again when it is back"
    )
    assert error_of(ask(server, "lost")).startswith("node worker-9 is gone, and its traces with it")
    state["runs"].clear()
    assert re.fullmatch("kubectl exec: .*: unexpected EOF", error_of(ask(server, "web")))


def test_user_without_rights_reads_which_are_needed(server: ApiServer) -> None:
    line = error_of(ask(server, "web", "--context=jane"))
    assert 'User "jane" cannot get resource "pods" in API group "" in the namespace "shop"' in line
    assert line.endswith("; this needs get and list on pods in this namespace")
    assert error_of(ask(server, "-A", "--context=jane")).endswith(
        f"; this needs {kubectl_oom.exec_rights('memcg-tracer')}"
    )


def test_kernel_log_is_read_with_the_rights_of_the_document(server: ApiServer, state: dict[str, Any]) -> None:
    """A thread is the kubelet for the debug pod: it ends at once."""
    uid = server.get("pod", "web")["metadata"]["uid"]
    lines = Dump(pid=4242, oom_memcg=f"/kubepods/burstable/pod{uid}").lines()
    state["log"] = "".join(f"[  7.5] {line}\n" for line in lines)
    ready = ("patch", "pod", "memcg-tracer-worker-1", "-n", "memcg-tracer", "--subresource=status", "-p")
    server.kubectl(*ready, '{"status": {"conditions": [{"type": "Ready", "status": "False"}]}}')
    ended = threading.Event()
    thread = threading.Thread(target=end_debug_pods, args=(server, ended))
    thread.start()
    try:
        done = ask(server, "web", "--context=ops")
    finally:
        ended.set()
        thread.join()
        server.kubectl(*ready, '{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}')
    assert "Killed process 4242" in done.stdout, done.stderr
    assert server.get("pods", "-n", "default")["items"] == []


def end_debug_pods(server: ApiServer, ended: threading.Event) -> None:
    """Give each pod of the namespace `default` the phase Succeeded."""
    while not ended.wait(0.1):
        for one in server.get("pods", "-n", "default")["items"]:
            phase = '{"status": {"phase": "Succeeded"}}'
            name = one["metadata"]["name"]
            server.run("patch", "pod", name, "-n", "default", "--subresource=status", "-p", phase)


def test_cluster_without_recorders_is_told_from_one_without_the_right_to_see_it(server: ApiServer) -> None:
    server.kubectl("label", "pod", "memcg-tracer-worker-1", "-n", "memcg-tracer", "app.kubernetes.io/name-")
    try:
        rest = "kubectl oom POD reads a node's log"
        assert error_of(ask(server, "-A")) == f"DaemonSet memcg-tracer has no pod on any node: {rest}"
        assert error_of(ask(server, "-A", "--context=ops")) == (
            f"namespace memcg-tracer has no pod of memcg-tracer on any node: {rest}"
        )
    finally:
        label = "app.kubernetes.io/name=memcg-tracer"
        server.kubectl("label", "pod", "memcg-tracer-worker-1", "-n", "memcg-tracer", label)
