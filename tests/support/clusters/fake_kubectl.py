"""A kubectl that answers as the real one does, from a description of a cluster instead of an API server.

`Cluster.install` puts a program called `kubectl` into a folder. Its answers have the shape of the API and the
words of kubectl's own errors. A command that `exec` runs in a pod of the recorder is run on this machine, or
has the output that the test gives.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

TRACER_NAMESPACE: Final = "memcg-tracer"
REFUSED: Final = "error dialing backend: dial tcp 10.0.0.7:10250: connect: no route to host"
"""What the API server says about a node that it cannot reach."""

LAST: Final = {
    "exitCode": 137,
    "reason": "OOMKilled",
    "startedAt": "2026-11-30T06:00:00Z",
    "finishedAt": "2026-11-30T06:10:07Z",
    "containerID": "containerd://0",
}
"""The last state of a container that the OOM killer ended."""


def pod(name: str, namespace: str, node: str | None, uid: str, **options: Any) -> dict[str, Any]:
    """Return a pod with one container that runs; `last` is the `terminated` state of its run before."""
    last = options.get("last")
    status: dict[str, Any] = {
        "name": options.get("container", "app"),
        "ready": options.get("ready", True),
        "restartCount": int(last is not None),
        "image": "registry.example/app:1",
        "imageID": "sha256:0",
        "state": {"running": {"startedAt": "2026-11-30T06:00:00Z"}},
        "lastState": {} if last is None else {"terminated": last},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "labels": options.get("labels", {}),
            "annotations": options.get("annotations", {}),
        },
        "spec": {
            "containers": [{"name": status["name"], "image": status["image"]}],
            **({} if node is None else {"nodeName": node}),
        },
        "status": {
            "phase": "Running" if node else "Pending",
            "conditions": [{"type": "Ready", "status": str(options.get("ready", True))}],
            **({"containerStatuses": [status]} if node else {}),
        },
    }


def recorder(node: str, *, ready: bool = True) -> dict[str, Any]:
    """Return the DaemonSet's pod on a node."""
    labels = {"app.kubernetes.io/name": "memcg-tracer"}
    uid = "00000000-0000-4000-8000-000000000000"
    options = {"labels": labels, "ready": ready, "container": "recorder"}
    return pod(f"memcg-tracer-{node}", TRACER_NAMESPACE, node, uid, **options)


def node(name: str, *, ready: bool = True) -> dict[str, Any]:
    """Return a node."""
    status = "True" if ready else "Unknown"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": status}]},
    }


class Cluster:
    """A cluster as a document, which the program reads and changes."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "cluster.json"
        self.path = folder / "bin"
        self.path.mkdir()
        self.state: dict[str, Any] = {
            "minor": 36,
            "pods": [],
            "nodes": [],
            "has_daemonset": True,
            "forbidden": [],
            "down": None,
            "runs": {},
            "log": "",
            "debug": "Succeeded",
        }

    def install(self) -> None:
        """Write the program and the description, and forget the calls so far."""
        program = self.path / "kubectl"
        top = Path(__file__).parents[2]
        program.write_text(
            f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(top)!r})\n"
            f"from support.clusters.fake_kubectl import main\nmain({str(self._file)!r})\n"
        )
        program.chmod(0o700)
        self._file.write_text(json.dumps(self.state))
        _calls_of(self._file).write_text("")

    def install_real(self, kubectl: Path, url: str) -> None:
        """Write a program that calls the real kubectl with a server, and forget the calls so far."""
        program = self.path / "kubectl"
        command = [str(kubectl), f"--server={url}", "-n", "shop"]
        log = str(_calls_of(self._file))
        # kubectl keeps a cache at home. It asks for websockets by default since 1.31. Until 1.33 it reads
        # from the websocket before it has made its streams, and drops what comes too early
        # (kubernetes/kubernetes#131203). With one thread, it begins to read once they are made.
        environment = {
            "HOME": str(self.path.parent), "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "true", "GOMAXPROCS": "1"
        }  # fmt: skip
        program.write_text(
            f"#!{sys.executable} -IS\nimport json, os, sys\n"
            f"print(json.dumps(sys.argv[1:]), file=open({log!r}, 'a'))\n"
            f"os.execve({command[0]!r}, [*{command!r}, *sys.argv[1:]], {environment!r})\n"
        )
        program.chmod(0o700)
        _calls_of(self._file).write_text("")

    def calls(self) -> list[list[str]]:
        """Return the arguments of each call."""
        return [json.loads(line) for line in _calls_of(self._file).read_text().splitlines()]

    def pods(self) -> list[str]:
        """Return the names of the pods that the program left."""
        return [one["metadata"]["name"] for one in json.loads(self._file.read_text())["pods"]]


def _calls_of(file: Path) -> Path:
    return file.with_suffix(".calls")


def main(file: str) -> NoReturn:
    """Answer the command line of kubectl. Only what changes the cluster writes the description."""
    state = json.loads(Path(file).read_text())
    arguments = sys.argv[1:]
    with _calls_of(Path(file)).open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    while arguments and arguments[0].startswith("--"):
        arguments = arguments[1:]
    answer = _ANSWERS[arguments[0]](state, arguments[1:])
    if arguments[0] in ("debug", "delete"):
        Path(file).write_text(json.dumps(state))
    print(answer, end="")
    sys.exit(0)


def _fail(line: str, code: int = 1) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(code)


def _allow(state: dict[str, Any], verb: str, resource: str, namespace: str | None, name: str = "") -> None:
    """Fail as kubectl does for a user without the right, or without a connection."""
    if state["down"]:
        _fail(state["down"])
    if why := denial(state, verb, resource, namespace, name):
        _fail(f"Error from server (Forbidden): {why}")


def denial(
    state: dict[str, Any], verb: str, resource: str, namespace: str | None, name: str = ""
) -> str | None:
    """Return what RBAC says to a user without the right, or None.

    `forbidden` has resources (`pods in shop`), or these with a verb (`get pods in shop`).
    """
    what = resource if namespace is None else f"{resource} in {namespace}"
    if not {what, f"{verb} {what}"} & set(state["forbidden"]):
        return None
    group = "apps" if resource == "daemonsets" else ""
    where = "at the cluster scope" if namespace is None else f'in the namespace "{namespace}"'
    kind = resource.partition("/")[0] + f".{group}" * bool(group)
    one = f' "{name}"' if name else ""
    why = f'User "jane" cannot {verb} resource "{resource}" in API group "{group}" {where}'
    return f"{kind}{one} is forbidden: {why}"


def _options(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the words and the options of a command line before `--`."""
    words, options = list[str](), dict[str, str]()
    rest = iter(arguments)
    for one in rest:
        if one.startswith("--") and "=" in one:
            name, _, options_value = one.partition("=")
            options[name] = options_value
        elif one.startswith("-"):
            options[one] = next(rest)
        else:
            words.append(one)
    return words, options


def _get(state: dict[str, Any], arguments: list[str]) -> str:
    words, options = _options(arguments)
    assert options["-o"] == "json", arguments
    namespace = options.get("-n", "shop")
    match words:
        case ["pod", name]:
            _allow(state, "get", "pods", namespace, name)
            found = [one for one in _pods(state, namespace) if one["metadata"]["name"] == name]
            return (
                json.dumps(found[0])
                if found
                else _fail(f'Error from server (NotFound): pods "{name}" not found')
            )
        case ["pods"]:
            _allow(state, "list", "pods", namespace)
            label = options.get("-l", "=").partition("=")
            on = options.get("--field-selector", "=").partition("=")[2]
            items = [
                one
                for one in _pods(state, namespace)
                if not label[0] or one["metadata"]["labels"].get(label[0]) == label[2]
                if not on or one["spec"].get("nodeName") == on
            ]
            return json.dumps({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {}})
        case ["node", name]:
            _allow(state, "get", "nodes", None, name)
            nodes = [one for one in state["nodes"] if one["metadata"]["name"] == name]
            return (
                json.dumps(nodes[0])
                if nodes
                else _fail(f'Error from server (NotFound): nodes "{name}" not found')
            )
        case ["nodes"]:
            _allow(state, "list", "nodes", None)
            return json.dumps({"apiVersion": "v1", "kind": "List", "items": state["nodes"], "metadata": {}})
        case ["daemonset", name]:
            _allow(state, "get", "daemonsets", namespace, name)
            missing = f'Error from server (NotFound): daemonsets.apps "{name}" not found'
            return json.dumps({"kind": "DaemonSet"}) if state["has_daemonset"] else _fail(missing)
    raise AssertionError(arguments)


def _pods(state: dict[str, Any], namespace: str) -> list[Any]:
    return [one for one in state["pods"] if one["metadata"]["namespace"] == namespace]


def _exec(state: dict[str, Any], arguments: list[str]) -> str:
    at = arguments.index("--")
    words, options = _options(arguments[:at])
    _allow(state, "create", "pods/exec", options["-n"], words[0])
    (found,) = [one for one in _pods(state, options["-n"]) if one["metadata"]["name"] == words[0]]
    where = found["spec"]["nodeName"]
    run = ran(state, where, arguments[at + 1 :])
    if run is None:
        _fail(f"Error from server: {REFUSED}")
    print(run.get("error", ""), end="", file=sys.stderr)
    if code := run.get("code", 0):
        print(run.get("out", ""), end="")
        _fail(f"command terminated with exit code {code}", code)
    return str(run["out"])


def ran(state: dict[str, Any], where: str, command: list[str]) -> dict[str, Any] | None:
    """Return what a command in the recorder of a node printed; None if the node cannot be reached."""
    run: dict[str, Any] | None = state["runs"].get(where)
    if run is None or "folder" not in run:
        return run
    program = str(Path(sys.executable).with_name("memcg-tracer"))
    assert command[0] == "memcg-tracer"
    done = subprocess.run(
        [program, *command[1:]], cwd=run["folder"], capture_output=True, text=True, check=False
    )
    return {"out": done.stdout, "error": done.stderr, "code": done.returncode}


def debugger(state: dict[str, Any], name: str, namespace: str, on: str) -> dict[str, Any]:
    """Return the pod of `kubectl debug node/...`, in the phase that `debug` names."""
    made = pod(name, namespace, on, "11111111-0000-4000-8000-000000000000", container="debugger")
    if state["debug"] in ("Succeeded", "Failed"):
        made["status"]["phase"] = state["debug"]
    else:
        made["status"]["phase"] = "Pending"
        made["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": state["debug"]}}
    return made


def _debug(state: dict[str, Any], arguments: list[str]) -> str:
    at = arguments.index("--")
    words, options = _options(arguments[:at])
    profile = options.get("--profile")
    # --profile since 1.25, sysadmin since 1.27.
    if profile is not None and state["minor"] < 25:
        _fail("error: unknown flag: --profile\nSee 'kubectl debug --help' for usage.")
    if profile == "sysadmin" and state["minor"] < 27:
        _fail("error: unknown profile: sysadmin")
    on = words[0].removeprefix("node/")
    name = f"node-debugger-{on}-x7k2p"
    _allow(state, "get", "nodes", None, on)
    _allow(state, "create", "pods", options["-n"])
    if why := state.get("admission"):
        _fail(f'Error from server (Forbidden): pods "{name}" is forbidden: {why}')
    made = debugger(state, name, options["-n"], on)
    state["pods"].append(made)
    return f"Creating debugging pod {name} with container debugger on node {on}.\n"


def _logs(state: dict[str, Any], arguments: list[str]) -> str:
    words, options = _options(arguments)
    _allow(state, "get", "pods/log", options["-n"], words[0])
    return str(state["log"])


def _delete(state: dict[str, Any], arguments: list[str]) -> str:
    words, options = _options(arguments)
    _allow(state, "delete", "pods", options["-n"], words[1])
    state["pods"] = [one for one in state["pods"] if one["metadata"]["name"] != words[1]]
    return f'pod "{words[1]}" deleted\n'


_ANSWERS: Final = {"get": _get, "exec": _exec, "debug": _debug, "logs": _logs, "delete": _delete}
