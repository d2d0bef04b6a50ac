"""`kubectl oom` against a kubectl that answers as the real one: each way to an answer, and each error."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.clusters.fake_kubectl import LAST, Cluster, node, pod, recorder
from support.schemas import require_form
from synthetic.oom_log import Dump

from tracer.cli import kubectl_oom
from tracer.watch.service import STATE_FOLDER

WriteTrace = Callable[..., Path]
PROGRAM: Final = Path(kubectl_oom.__file__)
DEPLOY: Final = Path(__file__).parents[2] / "docs/deploy/kubernetes"
UID: Final = "1c2f3e4d-5b6a-4980-9abc-def012345678"
OTHER_UID: Final = "2c2f3e4d-5b6a-4980-9abc-def012345678"
SLICE: Final = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
NO_KILL: Final = {
    "error": "memcg-tracer: error: there is no trace 'shop/web', nor one with a kill of that name in "
    "/var/lib/memcg-tracer/ and traces/; the kernel log (dmesg) shows no kill either\n",
    "out": "",
    "code": 1,
}


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    made.state["nodes"] = [node("worker-1"), node("worker-2")]
    made.state["pods"] = [
        pod("web", "shop", "worker-2", UID),
        pod("cron", "shop", "worker-1", OTHER_UID),
        recorder("worker-1"),
        recorder("worker-2"),
    ]
    return made


Answer = tuple[int, str, str]
Ask = Callable[..., Answer]


@pytest.fixture
def ask(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Ask:
    """Return a function that runs the command, and returns (status, output, errors)."""
    monkeypatch.setenv("PATH", str(cluster.path))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "kubectl-oom")])

    def run(*arguments: str) -> Answer:
        cluster.install()
        monkeypatch.setattr(sys, "argv", [sys.argv[0], *arguments])
        try:
            kubectl_oom.main()
            status = 0
        except SystemExit as end:
            status = int(str(end.code))
        return status, *capsys.readouterr()

    return run


def install_tracer(cluster: Cluster) -> None:
    (cluster.path / "memcg-tracer").symlink_to(Path(sys.executable).with_name("memcg-tracer"))


def error_of(answer: Answer) -> str:
    """Return the line of a run that failed with status 1 and printed nothing else."""
    status, out, errors = answer
    assert (status, out) == (1, ""), answer
    *_, line = errors.splitlines()
    assert line.startswith("kubectl-oom: error: ")
    return line.removeprefix("kubectl-oom: error: ")


def with_pod_names(trace: Path) -> Path:
    """Give the killed cgroup of a trace the names of a container, pod and namespace."""
    file = trace / "cgroups.parquet"
    table = pq.read_table(file)
    for column, name in (("container", "app"), ("pod", "web"), ("namespace", "shop")):
        values = pa.array([name, None], table.schema.field(column).type)
        table = table.set_column(table.schema.get_field_index(column), table.schema.field(column), values)
    pq.write_table(table, file)
    return trace


def test_kill_is_explained_by_the_recorder_on_the_pods_node(
    cluster: Cluster, ask: Ask, tmp_path: Path, write_trace: WriteTrace
) -> None:
    (tmp_path / "traces").mkdir()
    with_pod_names(write_trace("traces/kill"))
    cluster.state["runs"]["worker-2"] = {"folder": str(tmp_path)}
    done = ask("web", "-n", "shop")
    assert done[0] == 0, done[2]
    assert "container app was at its limit of 100 MiB" in " ".join(done[1].split())
    assert "anon_growth" in done[1]
    assert "kubectl-oom: worker-2: the newest kill of 'shop/web': traces/kill\n" in done[2]
    document = json.loads(ask("web", "-n", "shop", "--json")[1])
    assert [kill["limit_owner"]["pod"] for kill in document["kills"]] == ["web"]
    assert document["kills"][0]["limit_owner"]["limit_bytes"] == 100 << 20


def test_pod_is_the_one_with_the_newest_status_without_a_name(cluster: Cluster, ask: Ask) -> None:
    older = LAST | {"finishedAt": "2026-11-30T06:09:59Z"}
    cluster.state["pods"][0] = pod("web", "shop", "worker-2", UID, last=LAST)
    cluster.state["pods"][1] = pod("cron", "shop", "worker-1", OTHER_UID, last=older)
    cluster.state["runs"]["worker-2"] = {"out": "the screen\n"}
    done = ask()
    assert (done[0], done[1]) == (0, "the screen\n")
    assert "the newest OOMKilled is container app of pod shop/web" in done[2]
    command = next(call for call in cluster.calls() if call[0] == "exec")
    assert command[command.index("--") :] == ["--", "memcg-tracer", "explain", "shop/web"]


def test_signs_that_the_locale_lacks_are_escaped(cluster: Cluster) -> None:
    cluster.state["runs"]["worker-2"] = {"out": "anonymous memory ████\n"}
    cluster.install()
    environment = {"PATH": str(cluster.path), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, str(PROGRAM), "web", "-n", "shop"]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="ascii", check=False)
    assert (done.returncode, done.stdout) == (0, r"anonymous memory \u2588\u2588\u2588\u2588" + "\n"), (
        done.stderr
    )


def test_no_status_is_one_line_without_a_name(cluster: Cluster, ask: Ask) -> None:
    assert error_of(ask()).startswith("none of the 2 pods in this namespace has the status OOMKilled; ")
    assert error_of(ask("-n", "empty")).startswith("there is no pod in namespace empty")


def log_of(*dumps: Dump) -> str:
    return "".join(f"[  7.5] {line}\n" for dump in dumps for line in dump.lines())


@pytest.mark.parametrize(("minor", "tries"), [(24, 2), (26, 2), (27, 1), (36, 1)])
def test_kernel_log_of_the_node_is_read_where_no_recorder_runs(
    cluster: Cluster, ask: Ask, minor: int, tries: int
) -> None:
    del cluster.state["pods"][3]
    own = Dump(pid=4242, comm="java", oom_memcg=SLICE, task_memcg=f"{SLICE}/cri-containerd-aa.scope")
    other = Dump(pid=77, comm="other", oom_memcg="/kubepods/podx", task_memcg="/kubepods/podx/bb")
    cluster.state |= {"minor": minor, "log": log_of(own, other)}
    status, out, errors = ask("web", "-n", "shop")
    assert status == 0, errors
    assert "DaemonSet memcg-tracer has no pod on node worker-2; reading the kernel log" in errors
    assert "memcg-tracer is not installed here, so these are the kernel's own lines" in errors
    assert [line.split()[2] for line in out.splitlines()] == [
        f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg={SLICE},"
        f"task_memcg={SLICE}/cri-containerd-aa.scope,task=java,pid=4242,uid=0",
        "Memory",
    ]
    assert "Killed process 4242 (java)" in out
    assert [call[0] for call in cluster.calls()].count("debug") == tries
    assert "node-debugger-worker-2-x7k2p" not in cluster.pods()


def test_kernel_log_is_explained_where_memcg_tracer_is_installed(cluster: Cluster, ask: Ask) -> None:
    cluster.state["pods"] = [pod("web", "shop", "worker-2", UID)]
    other = Dump(pid=77, oom_memcg="/kubepods/podx", task_memcg="/kubepods/podx/bb")
    cluster.state["log"] = log_of(Dump(pid=4242, oom_memcg=SLICE, task_memcg=SLICE), other)
    for option in ("--json", "--list", "-v", "--kill=2"):
        assert f"{option} of a kernel log needs memcg-tracer here" in error_of(ask("web", option))
    install_tracer(cluster)
    document = json.loads(ask("web", "--json")[1])
    assert document["kmsg"] == "-"
    assert [kill["victims"][0]["pid"] for kill in document["kills"]] == [4242]


def in_container(number: int) -> Dump:
    """Return a kill at the limit of the container whose last run ended."""
    scope = f"{SLICE}/cri-containerd-{'ab12' * 16}.scope"
    return Dump(pid=4242 + number, oom_memcg=scope, task_memcg=scope)


def test_container_of_the_kernel_log_is_named_by_its_id(cluster: Cluster, ask: Ask) -> None:
    web = pod("web", "shop", "worker-2", UID, last=LAST | {"containerID": f"containerd://{'ab12' * 16}"})
    web["status"]["containerStatuses"][0]["containerID"] = f"containerd://{'cd34' * 16}"
    web["status"]["containerStatuses"].append({"name": "starting", "state": {}, "containerID": ""})
    cluster.state["pods"] = [web]
    cluster.state["log"] = log_of(in_container(0))
    names = f"pod shop/web is pod {UID} in it, container app is ab12ab12ab12"
    assert f"kubectl-oom: the kernel log has no names: {names}" in ask("web")[2].splitlines()


def test_options_that_the_screen_names_reach_explain(cluster: Cluster, ask: Ask) -> None:
    """The one in the recorder's pod, and for the kernel log the one that is installed here."""
    cluster.state["log"] = log_of(*map(in_container, range(9)))
    cluster.state["runs"]["worker-2"] = {"out": "the screen\n"}
    for options in (["-v", "--kill=2"], ["--json", "--list"]):
        ask("web", *options)
        [asked] = [call for call in cluster.calls() if call[0] == "exec"]
        assert asked[-len(options) - 2 :] == ["explain", "shop/web", *options]
    cluster.state["pods"] = [pod("web", "shop", "worker-2", UID)]
    install_tracer(cluster)
    screen = ask("web")[1]
    assert "container ab12ab12ab12 was" in screen
    assert set(re.findall(r"(?<![\w-])--?[a-z]+", screen)) == {"-v", "--kill", "--list"}
    picked = ask("web", "--kill=2", "-v")[1]
    assert picked.startswith("Kill 2; 8 others: --list\n\nhog (pid 4243)")
    assert "\nEvidence\n" in picked


def test_static_pod_is_found_by_the_hash_of_its_manifest(cluster: Cluster, ask: Ask) -> None:
    hash_ = "0123456789abcdef0123456789abcdef"
    mirror = pod("etcd", "kube-system", "worker-2", UID, annotations={"kubernetes.io/config.hash": hash_})
    cluster.state["pods"] = [mirror]
    path = f"/kubepods/burstable/pod{hash_}"
    cluster.state["log"] = log_of(Dump(pid=4242, oom_memcg=path))
    done = ask("etcd", "-n", "kube-system")
    assert "Killed process 4242" in done[1]


def test_kill_that_the_recorder_missed_is_looked_for_in_the_kernel_log(cluster: Cluster, ask: Ask) -> None:
    cluster.state["pods"][0] = pod("web", "shop", "worker-2", UID, last=LAST)
    cluster.state["runs"]["worker-2"] = NO_KILL
    cluster.state["log"] = log_of(Dump(pid=4242, oom_memcg=SLICE))
    done = ask("web")
    assert "Killed process 4242" in done[1]
    assert "knows no OOM kill of pod shop/web, but the API says OOMKilled for container app" in done[2]


def test_pod_that_was_never_killed_gets_no_debug_pod(cluster: Cluster, ask: Ask) -> None:
    cluster.state["runs"]["worker-2"] = NO_KILL
    line = error_of(ask("web"))
    assert line == (
        "the recorder on node worker-2 knows no OOM kill of pod shop/web; nor does the API say OOMKilled"
    )
    cluster.state["pods"][0] = pod("web", "shop", "worker-2", UID, last=LAST | {"reason": "Error"})
    assert "exit code 137 for container app, but not OOMKilled" in error_of(ask("web"))
    assert "debug" not in [call[0] for call in cluster.calls()]


def test_log_without_a_kill_of_the_pod_is_one_line(cluster: Cluster, ask: Ask) -> None:
    cluster.state["pods"] = [pod("web", "shop", "worker-2", UID)]
    cluster.state["log"] = log_of(Dump(pid=4, oom_memcg="/other"))
    line = error_of(ask("web"))
    assert "the kernel log of node worker-2 has no OOM kill of pod shop/web since its boot" in line


def test_missing_daemonset_is_named(cluster: Cluster, ask: Ask) -> None:
    cluster.state |= {"pods": [pod("web", "shop", "worker-2", UID)], "has_daemonset": False}
    done = ask("web")
    assert "there is no DaemonSet memcg-tracer in namespace memcg-tracer (docs/deploy has it)" in done[2]
    assert "no DaemonSet memcg-tracer" in error_of(ask("-A"))


def test_daemonset_is_not_claimed_without_the_right_to_see_it(cluster: Cluster, ask: Ask) -> None:
    cluster.state["pods"] = [pod("web", "shop", "worker-2", UID)]
    assert error_of(ask("-A")).startswith("DaemonSet memcg-tracer has no pod on any node: ")
    cluster.state["forbidden"] = ["daemonsets in memcg-tracer"]
    assert error_of(ask("-A")).startswith("namespace memcg-tracer has no pod of memcg-tracer on any node: ")
    assert "namespace memcg-tracer has no pod of memcg-tracer on node worker-2; reading" in ask("web")[2]


def test_no_answer_at_all_is_no_count_of_kills(cluster: Cluster, ask: Ask) -> None:
    cluster.state["forbidden"] = ["pods/exec in memcg-tracer"]
    assert error_of(ask("-A")) == "no node gave an answer"


def test_recorder_that_is_not_ready_is_not_asked(cluster: Cluster, ask: Ask) -> None:
    cluster.state["pods"][3] = recorder("worker-2", ready=False)
    assert "the pod of DaemonSet memcg-tracer on node worker-2 is not ready" in ask("web")[2]


def test_missing_pod_is_one_line(cluster: Cluster, ask: Ask) -> None:
    line = error_of(ask("gone", "-n", "shop"))
    assert line.startswith(
        "there is no pod gone in namespace shop; it may have been replaced: kubectl oom -A"
    )


def test_pod_without_a_node_was_never_killed(cluster: Cluster, ask: Ask) -> None:
    cluster.state["pods"][0] = pod("web", "shop", None, UID)
    assert "pod shop/web was never scheduled" in error_of(ask("web"))


def test_node_that_is_gone_or_not_ready_is_not_asked(cluster: Cluster, ask: Ask) -> None:
    cluster.state["nodes"] = [node("worker-2", ready=False)]
    assert "node worker-2 is NotReady" in error_of(ask("web"))
    cluster.state["nodes"] = []
    assert "node worker-2 is gone, and its traces with it" in error_of(ask("web"))
    assert {call[0] for call in cluster.calls()} == {"get"}


def test_node_that_the_api_cannot_reach_is_one_line(cluster: Cluster, ask: Ask) -> None:
    assert "kubectl exec: Error from server: error dialing backend" in error_of(ask("web"))


LOG_RIGHTS: Final = (
    "get on nodes, and create, get and delete on pods and get on pods/log in namespace default "
    "(--debug-namespace)"
)


@pytest.mark.parametrize(
    ("what", "rights"),
    [
        ("pods in shop", "get and list on pods in namespace shop"),
        (
            "pods/exec in memcg-tracer",
            "get and list on pods and create on pods/exec in namespace memcg-tracer",
        ),
        ("nodes", LOG_RIGHTS),
        ("create pods in default", LOG_RIGHTS),
        ("get pods in default", LOG_RIGHTS),
        ("pods/log in default", LOG_RIGHTS),
    ],
)
def test_error_for_a_missing_right_names_all_rights_of_the_step(
    cluster: Cluster, ask: Ask, what: str, rights: str
) -> None:
    cluster.state["forbidden"] = [what]
    cluster.state["runs"]["worker-2"] = {"out": "the screen\n"}
    if rights == LOG_RIGHTS:
        del cluster.state["pods"][3]
    line = error_of(ask("web", "-n", "shop"))
    assert 'is forbidden: User "jane" cannot' in line
    assert line.endswith(f"; this needs {rights}")


def test_debug_pod_that_a_policy_refuses_is_no_missing_right(cluster: Cluster, ask: Ask) -> None:
    del cluster.state["pods"][3]
    cluster.state["admission"] = 'violates PodSecurity "baseline:latest": hostPath volumes'
    line = error_of(ask("web"))
    assert "this needs" not in line
    assert line.endswith("hostPath volumes; --debug-namespace names a namespace that admits privileged pods")


def test_right_to_read_nodes_is_not_needed(cluster: Cluster, ask: Ask) -> None:
    cluster.state["forbidden"] = ["nodes"]
    cluster.state["runs"] = {"worker-2": {"out": "the screen\n"}, "worker-1": NO_KILL}
    assert ask("web")[1] == "the screen\n"


def test_recorders_that_may_not_be_listed_leave_the_kernel_log(cluster: Cluster, ask: Ask) -> None:
    cluster.state["forbidden"] = ["pods in memcg-tracer"]
    cluster.state["log"] = log_of(Dump(pid=4242, oom_memcg=SLICE))
    done = ask("web")
    assert "Killed process 4242" in done[1]
    assert "the recorders in namespace memcg-tracer cannot be listed" in done[2]


@pytest.mark.parametrize("debug", ["ImagePullBackOff", "Failed"])
def test_debug_pod_that_does_not_run_is_removed(cluster: Cluster, ask: Ask, debug: str) -> None:
    cluster.state |= {"pods": [pod("web", "shop", "worker-2", UID)], "debug": debug, "log": "dmesg: denied\n"}
    line = error_of(ask("web"))
    expected = "cannot be read: dmesg: denied" if debug == "Failed" else "does not run (ImagePullBackOff)"
    assert expected in line
    assert cluster.pods() == ["web"]


def test_missing_kubectl_and_missing_server_are_one_line(cluster: Cluster, ask: Ask) -> None:
    down = "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?"
    cluster.state["down"] = down
    assert error_of(ask("web")) == f"kubectl get: {down}"
    cluster.state["down"] = f"W1201 09:00:00 a warning\n{down}\n"
    assert error_of(ask("web")) == f"kubectl get: {down}"
    shutil.rmtree(cluster.path)
    assert error_of(kubectl_oom_alone("web")) == "kubectl is not in PATH: install it, or run this where it is"


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        (
            'Error from server: admission webhook "p" denied the request: \n\nPod/x was blocked\n  no-root\n',
            'Error from server: admission webhook "p" denied the request: Pod/x was blocked no-root',
        ),
        (
            "Warning: old\nError from server (Forbidden): no\nerror: of a policy",
            "Error from server (Forbidden): no error: of a policy",
        ),
        ("error: unable to upgrade connection: <html>\n<p>502\n</html>", None),
        ("no words\nof kubectl", "of kubectl"),
        ("", "exit status 1"),
        ("error: " + "x" * 9999, "error: " + "x" * 493),
    ],
)
def test_error_of_several_lines_is_one_line(printed: str, told: str | None) -> None:
    done = subprocess.CompletedProcess(["kubectl"], 1, "", printed)
    expected = printed.replace("\n", " ") if told is None else told
    error = kubectl_oom.failed("debug", done)
    assert str(error) == f"kubectl debug: {expected}"
    assert error.is_refused_by_admission == ("webhook" in printed or "(Forbidden)" in printed)


def test_kills_of_all_nodes_are_listed_newest_first(cluster: Cluster, ask: Ask) -> None:
    def kills(count: int, last: str, workload: str) -> dict[str, Any]:
        one = {
            "cause": "shmem",
            "workload": workload,
            "host": "x",
            "count": count,
            "first": last,
            "last": last,
        }
        return {"out": json.dumps({"kills": [one]})}

    cluster.state["nodes"].append(node("worker-3"))
    cluster.state["nodes"].append(node("worker-4", ready=False))
    cluster.state["pods"].append(recorder("worker-4"))
    cluster.state["runs"]["worker-1"] = kills(3, "2026-11-30T05:00:00.25+00:00", "shop/cron/app")
    cluster.state["runs"]["worker-2"] = kills(11, "2026-11-30T06:10:07+00:00", "shop/web/a\x1b[2J")
    done = ask("-A")
    assert done[0] == 0, done[2]
    assert done[1].splitlines() == [
        "LAST (UTC)           KILLS  NODE      WORKLOAD           CAUSE",
        r"2026-11-30T06:10:07  11     worker-2  shop/web/a\x1b[2J  shmem",
        "2026-11-30T05:00:00  3      worker-1  shop/cron/app      shmem",
    ]
    assert done[2].splitlines() == [
        "kubectl-oom: node worker-3 gave no answer: no pod of the DaemonSet",
        "kubectl-oom: node worker-4 gave no answer: NotReady",
    ]
    document = json.loads(ask("-A", "--json")[1])
    require_form("kubectl-oom", document)
    assert [(one["node"], one["kills"] and one["kills"][0]["count"]) for one in document["nodes"]] == [
        ("worker-1", 3),
        ("worker-2", 11),
        ("worker-3", None),
        ("worker-4", None),
    ]


def test_nodes_without_a_kill_are_counted(cluster: Cluster, ask: Ask) -> None:
    empty = "memcg-tracer: error: /var/lib/memcg-tracer: there is no trace in it, and no dataset with one\n"
    none = {"out": "", "error": empty, "code": 1}
    cluster.state["runs"] = {"worker-1": none, "worker-2": none}
    assert ask("-A")[1] == "2 nodes hold no OOM kill\n"


def test_everything_from_the_cluster_is_escaped(cluster: Cluster, ask: Ask) -> None:
    cluster.state["runs"]["worker-2"] = {"out": "a\x1b[2Jb\u202ec\nd\n", "error": "memcg-tracer: \x1b[31m\n"}
    done = ask("web")
    assert done[1] == "a\\x1b[2Jb\\u202ec\nd\n"
    assert done[2] == "kubectl-oom: worker-2: \\x1b[31m\n"


@pytest.mark.parametrize("name", ["--kubeconfig=/x", "-it", "a b", "$(id)", "UP", "a/b"])
def test_name_that_is_none_never_reaches_kubectl(cluster: Cluster, ask: Ask, name: str) -> None:
    done = ask("--", name)
    assert done[0] == 2
    assert "is no name of a pod" in done[2]
    assert cluster.calls() == []


def test_wrong_options_are_refused(cluster: Cluster, ask: Ask) -> None:
    for more in (["web"], ["-n", "shop"], ["-v"], ["--list", "--json"], ["--kill", "1"]):
        done = ask("-A", *more)
        assert (done[0], "leave POD, -n, --kill, --list and -v out" in done[2]) == (2, True)


def test_context_and_kubeconfig_reach_every_call(cluster: Cluster, ask: Ask) -> None:
    cluster.state["runs"]["worker-2"] = {"out": "the screen\n"}
    ask("web", "--context", "prod", "--kubeconfig", "/k")
    assert {tuple(call[:2]) for call in cluster.calls()} == {("--context=prod", "--kubeconfig=/k")}


@pytest.mark.parametrize("version", ["1.30", "1.32", kubernetes_validate.latest_version()])
def test_answers_of_the_fake_have_the_shape_of_the_api(version: str) -> None:
    for document in (pod("web", "shop", "worker-2", UID, last=LAST), recorder("worker-1"), node("worker-1")):
        kubernetes_validate.validate(document, version, strict=True)


def test_names_are_those_of_the_manifests() -> None:
    daemonset = yaml.safe_load((DEPLOY / "daemonset.yaml").read_text())
    template = daemonset["spec"]["template"]
    key, _, value = kubectl_oom.LABEL.partition("=")
    assert daemonset["metadata"]["name"] == kubectl_oom.NAME
    assert yaml.safe_load((DEPLOY / "namespace.yaml").read_text())["metadata"]["name"] == kubectl_oom.NAME
    assert template["metadata"]["labels"][key] == value
    assert [one["name"] for one in template["spec"]["containers"]] == [kubectl_oom.CONTAINER]
    assert STATE_FOLDER == kubectl_oom.TRACES


def kubectl_oom_alone(*arguments: str) -> Answer:
    """Run the file without the packages of this interpreter, and return (status, output, errors)."""
    command = [sys.executable, "-I", "-S", str(PROGRAM), *arguments]
    environment = {"PATH": "/nonexistent"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_file_is_a_program_alone_and_of_the_package() -> None:
    status, out, _ = kubectl_oom_alone("-h")
    assert (status, out.startswith("usage: kubectl oom")) == (0, True)
    assert os.access(PROGRAM, os.X_OK)
    project = tomllib.loads((DEPLOY.parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["kubectl-oom"] == "tracer.cli.kubectl_oom:main"
