#!/usr/bin/env python3
"""`kubectl oom`: explain the OOM kill of a pod from a workstation.

kubectl runs any program in the PATH that is called `kubectl-oom`. This file needs Python's standard library
and kubectl, so it can be copied alone. It asks the recorder on the pod's node (the DaemonSet of docs/deploy)
for the newest kill. If no recorder runs there, it reads the node's kernel log by `kubectl debug`.

kubectl gets all arguments without a shell, and everything printed from the cluster is escaped.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

NAME: Final = "memcg-tracer"
LABEL: Final = f"app.kubernetes.io/name={NAME}"
CONTAINER: Final = "recorder"
TRACES: Final = "/var/lib/memcg-tracer"

_OBJECT_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
"""A DNS subdomain (RFC 1123), as names of pods and nodes are. It cannot be an option of kubectl."""
_CREATED: Final = re.compile(r"^Creating debugging pod (\S+) with container", re.MULTILINE)
_ERROR: Final = re.compile("error: |Error from server|Unable to connect to the server|The connection to ")
"""The begin of an error of kubectl (k8s.io/kubectl, pkg/cmd/util/helpers.go)."""
_MOST_SAID: Final = 500
_NO_SUCH_PROFILE: Final = ("unknown flag: --profile", "unknown profile")
"""`--profile` came with kubectl 1.25, and the profile sysadmin with 1.27."""
_READ_LOG: Final = (
    'journal="chroot /host journalctl -k -q --no-pager"; '
    "if $journal -n 1 2>/dev/null | grep -q .; then exec $journal -o short-iso-precise; else exec dmesg; fi"
)
"""The journal of the node has times of the day. A node may have neither a journal nor a shell: `dmesg` is the
image's."""
_ABOUT: Final = """\
Explain the newest OOM kill of a pod: by the memcg-tracer on its node, or else
from the node's kernel log, which a debug pod reads and memcg-tracer explains if
it is installed here. Without POD: the pod with the newest status OOMKilled."""
_EXAMPLES: Final = """\
examples:
  kubectl oom web-5d9c-x2x4z -n shop    the newest kill of this pod
  kubectl oom -n shop                   the newest kill in this namespace
  kubectl oom -A                        the kills on all nodes
"""
_ENDED: Final = ("Succeeded", "Failed")
_STUCK: Final = ("Err", "ImagePull", "Invalid", "CreateContainer")
"""How the reasons begin for which a container waits in vain."""
_GET_S: Final = 60
_EXEC_S: Final = 600
_POD_WAIT_S: Final = 120
_POLL_S: Final = 0.5
_AT_ONCE: Final = 8
_KILLED: Final = 128 + 9


class OomError(Exception):
    """A line for the user. `status` is the exit status."""

    def __init__(self, line: str, status: int = 1) -> None:
        super().__init__(line)
        self.status = status


class KubectlError(OomError):
    """kubectl failed. `code` is its exit status, `said` its error."""

    def __init__(self, line: str, code: int, said: str) -> None:
        super().__init__(line)
        self.code, self.said = code, said

    @property
    def is_forbidden(self) -> bool:
        """Return whether the user lacks a right (k8s.io/apiserver, handlers/responsewriters/errors.go)."""
        return "is forbidden: User " in self.said

    @property
    def is_refused_by_admission(self) -> bool:
        """Return whether a policy refused the object, such as Pod Security or a webhook."""
        refused = "(Forbidden)" in self.said and not self.is_forbidden
        return refused or "admission webhook" in self.said

    @property
    def is_not_found(self) -> bool:
        return "(NotFound)" in self.said


def visible(text: str) -> str:
    """Return text with every character that a terminal does not print as its escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def note(text: str) -> None:
    """Write a line about the choice to standard error."""
    print(f"kubectl-oom: {visible(text)}", file=sys.stderr)


def show(text: str) -> None:
    """Write lines from the cluster to standard output."""
    print("\n".join(visible(line) for line in text.rstrip("\n").split("\n")))


class Kubectl:
    """Runs kubectl with the user's choice of a cluster."""

    def __init__(self, options: Sequence[str]) -> None:
        self._options = list(options)

    def run(self, *arguments: str, within_s: float = _GET_S) -> subprocess.CompletedProcess[str]:
        """Return a run, whatever its status. Raises OomError without kubectl, or after the time."""
        command = ["kubectl", *self._options, *arguments]
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
                errors="backslashreplace", timeout=within_s, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise OomError("kubectl is not in PATH: install it, or run this where it is") from None
        except subprocess.TimeoutExpired:
            raise OomError(f"kubectl {arguments[0]} gave no answer within {within_s:g} s") from None

    def output(self, *arguments: str, within_s: float = _GET_S) -> str:
        """Return what a run printed. Raises KubectlError if it failed."""
        done = self.run(*arguments, within_s=within_s)
        if done.returncode:
            raise failed(arguments[0], done)
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object or a list of the API. Raises KubectlError."""
        text = self.output("get", *arguments, "-o", "json")
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise OomError(f"kubectl get {arguments[0]} printed no JSON object")
        return found


def failed(verb: str, done: subprocess.CompletedProcess[str]) -> KubectlError:
    """Return the error of a run, with what kubectl said: warnings may come before its error, which may have
    several lines (a policy, or the page of a proxy)."""
    lines = [" ".join(line.split()) for line in done.stderr.splitlines() if line.strip()]
    begins = [number for number, line in enumerate(lines) if _ERROR.match(line)]
    said = " ".join(lines[begins[0] if begins else -1 :])[:_MOST_SAID] or f"exit status {done.returncode}"
    return KubectlError(f"kubectl {verb}: {said}", done.returncode, said)


@contextmanager
def needing(rights: str) -> Iterator[None]:
    """Name all rights of a step in the error for one that the user lacks."""
    try:
        yield
    except KubectlError as error:
        if error.is_forbidden:
            raise KubectlError(f"{error}; this needs {rights}", error.code, error.said) from None
        raise


@dataclass(frozen=True)
class Pod:
    """A pod as the API describes it."""

    namespace: str
    name: str
    node: str
    uid: str
    ends: tuple[tuple[str, dict[str, Any]], ...]
    """(container, its `terminated` state) of the present and the last run of each container."""
    ids: dict[str, str]
    """The container of each id of these runs."""

    @classmethod
    def of(cls, found: dict[str, Any]) -> Pod:
        """Return the pod in an answer of the API."""
        meta, status = found.get("metadata") or {}, found.get("status") or {}
        # The cgroup of a static pod has the hash of its manifest, which the mirror pod has as an annotation.
        uid = (meta.get("annotations") or {}).get("kubernetes.io/config.hash") or meta.get("uid")
        statuses = [
            (str(one.get("name")), one)
            for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
            for one in status.get(kind) or []
        ]
        ends = tuple(
            (name, state["terminated"])
            for name, one in statuses
            for state in (one.get("state") or {}, one.get("lastState") or {})
            if state.get("terminated")
        )
        urls = {str(one.get("containerID") or ""): name for name, one in (*statuses, *ends)}
        ids = {url.rpartition("/")[2]: name for url, name in urls.items()}  # containerd://4f3a...
        node = str((found.get("spec") or {}).get("nodeName") or "")
        return cls(str(meta.get("namespace")), str(meta.get("name")), node, str(uid or ""), ends, ids)

    @property
    def killed(self) -> list[tuple[str, str]]:
        """Return (end, container) of the runs that the kubelet calls OOMKilled, the newest last."""
        return sorted(
            (str(end.get("finishedAt")), name) for name, end in self.ends if end.get("reason") == "OOMKilled"
        )

    @property
    def history(self) -> str:
        """Return what the API says about kills of this pod."""
        if self.killed:
            when, container = self.killed[-1]
            return f"the API says OOMKilled for container {container}, which ended at {when}"
        for name, end in self.ends:
            if end.get("exitCode") == _KILLED:
                return (
                    f"the API has exit code 137 for container {name}, but not OOMKilled: SIGKILL, "
                    "an OOM kill of a child, or a status that its program chose"
                )
        return "nor does the API say OOMKilled"


def pod_of(kubectl: Kubectl, namespace: str | None, name: str | None) -> Pod:
    """Return the pod that the user named, or the one of the namespace with the newest OOMKilled status."""
    where = [] if namespace is None else ["-n", namespace]
    place = "this namespace" if namespace is None else f"namespace {namespace}"
    rights, lists = f"get and list on pods in {place}", "kubectl oom -A lists what the nodes recorded"
    if name is not None:
        try:
            with needing(rights):
                return Pod.of(kubectl.get("pod", name, *where))
        except KubectlError as error:
            if not error.is_not_found:
                raise
            raise OomError(f"there is no pod {name} in {place}; it may have been replaced: {lists}") from None
    with needing(rights):
        pods = [Pod.of(one) for one in kubectl.get("pods", *where).get("items") or []]
    killed = [(pod.killed[-1], pod) for pod in pods if pod.killed]
    if not killed:
        why = f"there is no pod in {place}"
        if pods:
            why = f"none of the {len(pods)} pods in {place} has the status OOMKilled"
        raise OomError(f"{why}; {lists}")
    (_, container), newest = max(killed, key=lambda one: one[0])
    note(f"the newest OOMKilled is container {container} of pod {newest.namespace}/{newest.name}")
    return newest


def checked(name: str, what: str) -> str:
    """Return a name that can only be a name. Raises OomError."""
    if not _OBJECT_NAME.fullmatch(name):
        raise OomError(f"{name!r} is no name of a {what}", 2)
    return name


def require_node(kubectl: Kubectl, pod: Pod) -> None:
    """Raise OomError if the pod's node is gone or not ready. Who may not read nodes is not stopped."""
    if not pod.node:
        raise OomError(f"pod {pod.namespace}/{pod.name} was never scheduled: it has no node, and no kill")
    try:
        node = kubectl.get("node", checked(pod.node, "node"))
    except KubectlError as error:
        if error.is_not_found:
            raise OomError(f"node {pod.node} is gone, and its traces with it (copies: docs/deploy)") from None
        if error.is_forbidden:
            return
        raise
    if not is_ready(node):
        raise OomError(f"node {pod.node} is NotReady: its kubelet runs nothing; try again when it is back")


def is_ready(found: dict[str, Any]) -> bool:
    """Return the condition Ready of a node or a pod."""
    conditions = (found.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def recorders(kubectl: Kubectl, place: str, *selector: str) -> list[dict[str, Any]]:
    """Return the pods of the DaemonSet, none if there is no such namespace. Raises KubectlError."""
    return list(kubectl.get("pods", "-n", place, "-l", LABEL, *selector).get("items") or [])


def ask(
    kubectl: Kubectl, place: str, recorder: dict[str, Any], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Return a run of memcg-tracer in a pod of the DaemonSet."""
    name = checked(str(recorder["metadata"]["name"]), "pod")
    return kubectl.run("exec", "-n", place, name, "-c", CONTAINER, "--", NAME, *arguments, within_s=_EXEC_S)


def no_recorder(kubectl: Kubectl, place: str, where: str, found: list[dict[str, Any]]) -> str:
    """Return why no recorder can be asked; `where` is a node or `any node`."""
    if found:
        return f"the pod of DaemonSet {NAME} on {where} is not ready"
    try:
        kubectl.get("daemonset", NAME, "-n", place)
        return f"DaemonSet {NAME} has no pod on {where}"
    except KubectlError as error:
        if error.is_not_found:
            return f"there is no DaemonSet {NAME} in namespace {place} (docs/deploy has it)"
    return f"namespace {place} has no pod of {NAME} on {where}"  # a DaemonSet may be there or not


def exec_rights(place: str) -> str:
    """Return the rights for a question to a recorder."""
    return f"get and list on pods and create on pods/exec in namespace {place}"


def explain(kubectl: Kubectl, pod: Pod, arguments: argparse.Namespace) -> None:
    """Print a kill of a pod, by default the newest, from its node's recorder or the node's kernel log."""
    require_node(kubectl, pod)
    place = arguments.tracer_namespace
    try:
        there = recorders(kubectl, place, "--field-selector", f"spec.nodeName={pod.node}")
    except KubectlError as error:
        if not error.is_forbidden:
            raise
        why: str | None = f"the recorders in namespace {place} cannot be listed: {error.said}"
    else:
        ready = [one for one in there if is_ready(one)]
        if ready:
            why = explain_by_recorder(kubectl, pod, ready[0], arguments)
        else:
            why = no_recorder(kubectl, place, f"node {pod.node}", there)
    if why is not None:
        note(f"{why}; reading the kernel log of node {pod.node} by a debug pod, which is removed afterwards")
        explain_log(node_log(kubectl, pod.node, arguments), pod, arguments)


def options_of_explain(arguments: argparse.Namespace) -> list[str]:
    """Return the options for `memcg-tracer explain`, whose screen names them."""
    options = ["--json"] * arguments.json + ["--list"] * arguments.list + ["-v"] * arguments.verbose
    return options if arguments.kill is None else [*options, f"--kill={arguments.kill}"]


def explain_by_recorder(
    kubectl: Kubectl, pod: Pod, recorder: dict[str, Any], arguments: argparse.Namespace
) -> str | None:
    """Print a kill of a pod that the recorder of its node knows, and return None.

    Returns why not if it knows none, but the API does. Raises OomError if nobody knows a kill.
    """
    command = ["explain", f"{pod.namespace}/{pod.name}", *options_of_explain(arguments)]
    done = ask(kubectl, arguments.tracer_namespace, recorder, *command)
    if not done.returncode:
        for line in done.stderr.splitlines():
            note(f"{pod.node}: {line.removeprefix(f'{NAME}: ')}")
        print_answer(done.stdout, arguments)
        return None
    if f"terminated with exit code {done.returncode}" not in done.stderr:
        with needing(exec_rights(arguments.tracer_namespace)):
            raise failed("exec", done)
    lines = [line for line in done.stderr.splitlines() if "error: " in line]
    said = lines[0].partition("error: ")[2] if lines else f"exit status {done.returncode}"
    if "there is no trace" not in said:
        raise OomError(f"{NAME} on node {pod.node}: {said}")
    why = f"the recorder on node {pod.node} knows no OOM kill of pod {pod.namespace}/{pod.name}"
    if not pod.killed:
        raise OomError(f"{why}; {pod.history}")
    return f"{why}, but {pod.history}"


def print_answer(text: str, arguments: argparse.Namespace) -> None:
    """Print what explain printed. JSON is parsed first, so that nothing else passes."""
    if not arguments.json:
        show(text)
        return
    try:
        print(json.dumps(json.loads(text), indent=2))
    except ValueError:
        raise OomError(f"{NAME} printed no JSON: {text[:80]!r}") from None


@contextmanager
def debug_pod(kubectl: Kubectl, node: str, arguments: argparse.Namespace) -> Iterator[str]:
    """Run the reader of the kernel log in a pod on a node, and remove the pod in the end."""
    where = ("-n", arguments.debug_namespace)
    command = ("--", "sh", "-c", _READ_LOG)
    start = ("debug", f"node/{checked(node, 'node')}", *where, f"--image={arguments.debug_image}")
    done = kubectl.run(*start, "--profile=sysadmin", *command)
    if done.returncode and any(text in done.stderr for text in _NO_SUCH_PROFILE):
        done = kubectl.run(*start, *command)
    created = _CREATED.search(done.stdout)
    if done.returncode or created is None:
        error = failed("debug", done)
        if error.is_refused_by_admission:
            raise OomError(f"{error}; --debug-namespace names a namespace that admits privileged pods")
        raise error
    name = checked(created[1], "pod")
    try:
        yield name
    finally:
        removed = kubectl.run("delete", "pod", name, *where, "--wait=false")
        if removed.returncode:
            why = failed("delete", removed).said
            note(f"the debug pod stays ({why}): kubectl delete pod {name} {' '.join(where)}")


def node_log(kubectl: Kubectl, node: str, arguments: argparse.Namespace) -> str:
    """Return the kernel log of a node since its boot. Raises OomError."""
    where = ("-n", arguments.debug_namespace)
    deadline_s = time.monotonic() + _POD_WAIT_S
    rights = (
        "get on nodes, and create, get and delete on pods and get on pods/log in namespace "
        f"{arguments.debug_namespace} (--debug-namespace)"
    )
    with needing(rights), debug_pod(kubectl, node, arguments) as name:
        while (status := kubectl.get("pod", name, *where).get("status", {})).get("phase") not in _ENDED:
            statuses = status.get("containerStatuses") or []
            waits = [(one.get("state") or {}).get("waiting") or {} for one in statuses]
            reasons = [str(one["reason"]) for one in waits if one.get("reason")]
            stuck = [reason for reason in reasons if reason.startswith(_STUCK)]
            if stuck or time.monotonic() > deadline_s:
                why = ", ".join(stuck or reasons) or str(status.get("phase"))
                raise OomError(f"the debug pod on {node} does not run ({why}); --debug-image names an image")
            time.sleep(_POLL_S)
        log = kubectl.output("logs", name, *where, within_s=_EXEC_S)
        if status["phase"] == "Failed":
            said = log.strip().splitlines()[-1:] or ["no output"]
            raise OomError(f"the kernel log of node {node} cannot be read: {said[0]}")
    return log


def explain_log(log: str, pod: Pod, arguments: argparse.Namespace) -> None:
    """Print a kill of a pod in a kernel log, by memcg-tracer if it is installed here."""
    lines, who = kill_lines(log, pod.uid), f"pod {pod.namespace}/{pod.name}"
    if not lines:
        raise OomError(
            f"the kernel log of node {pod.node} has no OOM kill of {who} since its boot; {pod.history}"
        )
    program = shutil.which(NAME) or shutil.which(NAME, path=str(Path(sys.argv[0]).resolve().parent))
    if program is None and (options := options_of_explain(arguments)):
        raise OomError(f"{options[0]} of a kernel log needs {NAME} here: its wheel, by pipx")
    printed = "\n".join(lines)
    names = [f"{who} is pod {pod.uid} in it"]
    names += [f"container {name} is {one[:12]}" for one, name in pod.ids.items() if one and one in printed]
    note(f"the kernel log has no names: {', '.join(names)}")
    if program is None:
        note(f"{NAME} is not installed here, so these are the kernel's own lines")
        show(printed)
        return
    # systemd's slices have `_` in the uid in place of `-`.
    pattern = f"*pod{re.sub('[^0-9a-f]', '?', pod.uid)}*"
    command = [program, "explain", "--kmsg", "-", "-c", pattern, *options_of_explain(arguments)]
    done = subprocess.run(
        command, input=log, capture_output=True, encoding="utf-8", errors="backslashreplace", check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise OomError(said.removeprefix(f"{NAME}: error: "))
    print_answer(done.stdout, arguments)


def kill_lines(log: str, uid: str) -> list[str]:
    """Return the kernel's summary lines of the kills in a pod's cgroups.

    mm/oom_kill.c: dump_oom_victim prints the cgroups of a kill, and __oom_kill_process its victim after it.
    """
    own, lines = re.compile(re.sub("[^0-9a-f]", "[-_]", uid)), log.splitlines()
    found: list[str] = []
    is_of_pod = False
    for line in lines:
        if "oom-kill:" in line:
            is_of_pod = bool(uid) and own.search(line) is not None
            found += [line] * is_of_pod
        elif "Killed process" in line and is_of_pod:
            found.append(line)
    return found


def list_kills(kubectl: Kubectl, arguments: argparse.Namespace) -> None:
    """Print the kills that the recorders of all nodes hold, and the nodes without an answer."""
    place = arguments.tracer_namespace
    with needing(exec_rights(place)):
        pods = recorders(kubectl, place)
    if not pods:
        raise OomError(f"{no_recorder(kubectl, place, 'any node', [])}: kubectl oom POD reads a node's log")
    try:
        nodes = {str(one["metadata"]["name"]): is_ready(one) for one in kubectl.get("nodes")["items"]}
    except KubectlError as error:
        if not error.is_forbidden:
            raise
        nodes = {}
    by_node = {str(pod["spec"].get("nodeName") or "?"): pod for pod in pods}

    def answer(node: str) -> dict[str, Any]:
        try:
            if node not in by_node:
                raise OomError("no pod of the DaemonSet")
            if not nodes.get(node, True):
                raise OomError("NotReady")
            if not is_ready(by_node[node]):
                raise OomError("its recorder is not ready")
            return {"node": node, "kills": kills_of(kubectl, place, by_node[node]), "why": None}
        except OomError as error:
            return {"node": node, "kills": None, "why": str(error)}

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        answers = list(threads.map(answer, sorted({*nodes, *by_node})))
    if arguments.json:
        print(json.dumps({"schema": 1, "nodes": answers}, indent=2))
    elif any(one["kills"] is not None for one in answers):
        print_kills(answers)
    for one in answers:
        if one["why"] is not None:
            note(f"node {one['node']} gave no answer: {one['why']}")
    if all(one["kills"] is None for one in answers):
        raise OomError("no node gave an answer")


def kills_of(kubectl: Kubectl, place: str, recorder: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the kills that a recorder holds, by cause and workload. Raises OomError."""
    done = ask(kubectl, place, recorder, "fleet", TRACES, "--json")
    try:
        return list(json.loads(done.stdout)["kills"])
    except (ValueError, KeyError, TypeError):
        if "there is no trace in it" in done.stderr:
            return []
        with needing(exec_rights(place)):
            raise failed("exec", done) from None


def print_kills(answers: list[dict[str, Any]]) -> None:
    """Print a table with a row for each node, workload and cause."""
    names = ("last", "count", "node", "workload", "cause")
    kills = [kill | one for one in answers for kill in one["kills"] or []]
    if not kills:
        print(f"{sum(one['kills'] is not None for one in answers)} nodes hold no OOM kill")
        return
    rows = sorted(([visible(str(kill[name] or "")) for name in names] for kill in kills), reverse=True)
    header = ["LAST (UTC)", "KILLS", "NODE", "WORKLOAD", "CAUSE"]
    table = [header, *([last[:19], *rest] for last, *rest in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    shape = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser("kubectl oom", None, _ABOUT, _EXAMPLES, formatter_class=shape)
    add = found.add_argument
    add("pod", nargs="?", metavar="POD", help="name of the pod")
    add("-n", "--namespace", metavar="NS", help="namespace of the pod; default: the context's")
    add("-A", "--all-namespaces", action="store_true", help="list the kills on all nodes")
    add("--kill", metavar="N", type=int, help="explain kill number N of the pod, not the newest")
    add("--list", action="store_true", help="print only a line for each kill of the pod")
    add("-v", "--verbose", action="store_true", help="show everything about the kill")
    add("--json", action="store_true", help=f"print one JSON document; of a pod: as `{NAME} explain --json`")
    add("--context", metavar="NAME", help="context of the kubeconfig")
    add("--kubeconfig", metavar="FILE", help="the kubeconfig")
    shown = "default: %(default)s"
    add("--tracer-namespace", metavar="NS", default=NAME, help=f"namespace of the DaemonSet; {shown}")
    add("--debug-namespace", metavar="NS", default="default", help=f"namespace of a debug pod; {shown}")
    add("--debug-image", metavar="IMAGE", default="busybox", help=f"image of a debug pod; {shown}")
    return found


def run(argv: Sequence[str]) -> None:
    """Run the command. Raises OomError."""
    arguments = parser().parse_args(argv)
    name = None if arguments.pod is None else checked(arguments.pod.removeprefix("pod/"), "pod")
    for namespace in (arguments.namespace, arguments.tracer_namespace, arguments.debug_namespace):
        if namespace is not None:
            checked(namespace, "namespace")
    chosen = {"--context": arguments.context, "--kubeconfig": arguments.kubeconfig}
    kubectl = Kubectl([f"{option}={value}" for option, value in chosen.items() if value is not None])
    if not arguments.all_namespaces:
        explain(kubectl, pod_of(kubectl, arguments.namespace, name), arguments)
    elif arguments.pod or arguments.namespace or set(options_of_explain(arguments)) - {"--json"}:
        raise OomError("-A lists the kills of all nodes: leave POD, -n, --kill, --list and -v out", 2)
    else:
        list_kills(kubectl, arguments)


def main() -> None:
    """Run the command, and end the process with its status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a locale may lack the signs of bars
    try:
        run(sys.argv[1:])
        sys.stdout.flush()
    except OomError as error:
        print(f"kubectl-oom: error: {visible(str(error))}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(128 + 2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
