"""An API server that answers kubectl itself from the description that `fake_kubectl` answers from.

It has the pods, nodes and DaemonSets that `kubectl oom` asks for, over HTTP. Statuses and messages are those
of kube-apiserver. Rights are those of RBAC for each request that kubectl makes, so it finds a right that the
real kubectl needs and the fake one forgets.
"""

from __future__ import annotations

import json
import re
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from support.clusters import fake_kubectl
from support.clusters.exec_stream import answer_exec


def _resources(version: str, *found: tuple[str, str, bool]) -> dict[str, Any]:
    """Return the list of resources, (name, kind, whether in a namespace), of a version of the API."""
    verbs = ["get", "list", "create", "patch", "delete"]
    resources = [
        {"name": name, "singularName": "", "namespaced": is_in_namespace, "kind": kind, "verbs": verbs}
        for name, kind, is_in_namespace in found
    ]
    return {
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources
    }  # fmt: skip


_APPS: Final = {"groupVersion": "apps/v1", "version": "v1"}
_DISCOVERY: Final[dict[str, dict[str, Any]]] = {
    "version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
    "api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
    "apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [_APPS], "preferredVersion": _APPS}],
    },
    "api/v1": _resources("v1", ("pods", "Pod", True), ("nodes", "Node", False)),
    "apis/apps/v1": _resources("apps/v1", ("daemonsets", "DaemonSet", True)),
}
"""What kubectl asks for before the request itself."""
_VERBS: Final = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}


class RefusedError(Exception):
    """An answer of the API that is an error."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.document = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        }  # fmt: skip


class PodsServer:
    """Serves a description of a cluster at 127.0.0.1. `requests` are (verb, resource, namespace)."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.requests: list[tuple[str, str, str | None]] = []
        self.patches: list[tuple[str, Any]] = []

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Return the address for `kubectl --server`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def allow(self, verb: str, resource: str, namespace: str | None, name: str = "") -> None:
        """Raise RefusedError for a right that the user lacks."""
        self.requests.append((verb, resource, namespace))
        if why := fake_kubectl.denial(self.state, verb, resource, namespace, name):
            raise RefusedError(403, "Forbidden", why)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server: PodsServer, *connection: Any) -> None:
        self._cluster = server
        super().__init__(*connection)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _do(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        url = urlsplit(self.path)
        try:
            answer = self._answer(url.path.strip("/").split("/"), parse_qs(url.query), body)
        except RefusedError as error:
            self._send(error.code, error.document)
        else:
            if isinstance(answer, str):
                self._send(200, answer.encode(), "text/plain")
            elif answer is not None:
                self._send(200, answer)

    do_GET = do_POST = do_PATCH = do_DELETE = _do  # noqa: N815  names of http.server

    def _send(self, code: int, answer: Any, kind: str = "application/json") -> None:
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _answer(self, path: list[str], query: dict[str, list[str]], body: bytes) -> Any:
        match path:
            case ["api", "v1", "nodes", *rest]:
                return self._nodes(rest)
            case ["api", "v1", "namespaces", namespace, "pods", *rest]:
                return self._pods(namespace, rest, query, body)
            case ["apis", "apps", "v1", "namespaces", namespace, "daemonsets", name]:
                self._cluster.allow("get", "daemonsets", namespace, name)
                if not self._state["has_daemonset"]:
                    raise RefusedError(404, "NotFound", f'daemonsets.apps "{name}" not found')
                return {"kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": {"name": name}}
        if (found := _DISCOVERY.get("/".join(path))) is None:
            raise RefusedError(404, "NotFound", "the server could not find the requested resource")
        return found

    def _nodes(self, rest: list[str]) -> Any:
        self._cluster.allow("get" if rest else "list", "nodes", None, *rest)
        if rest:
            return self._one("nodes", self._state["nodes"], rest[0])
        return {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": self._state["nodes"]}

    @property
    def _state(self) -> dict[str, Any]:
        return self._cluster.state

    def _one(self, resource: str, found: list[Any], name: str) -> Any:
        for one in found:
            if one["metadata"]["name"] == name:
                return one
        raise RefusedError(404, "NotFound", f'{resource} "{name}" not found')

    def _pods(self, namespace: str, rest: list[str], query: dict[str, list[str]], body: bytes) -> Any:
        own = [one for one in self._state["pods"] if one["metadata"]["namespace"] == namespace]
        name, subresource = (*rest, "", "")[:2]
        resource = f"pods/{subresource}" if subresource else "pods"
        verb = "create" if subresource == "exec" else _VERBS[self.command]
        self._cluster.allow(verb if rest or verb != "get" else "list", resource, namespace, name)
        if not rest:
            return self._create(namespace, body) if verb == "create" else self._listed(own, query)
        found = self._one("pods", own, name)
        match verb, subresource:
            case "get", "log":
                return str(self._state["log"])
            case "create", "exec":
                return self._exec(found, query["command"])
            case "patch", "resize":
                self._cluster.patches.append((self.headers["Content-Type"], json.loads(body)))
            case "delete", "":
                self._state["pods"].remove(found)
        return found

    def _listed(self, own: list[Any], query: dict[str, list[str]]) -> Any:
        label, _, value = query.get("labelSelector", [""])[0].partition("=")
        node = query.get("fieldSelector", [""])[0].partition("=")[2]
        items = [
            one
            for one in own
            if not label or one["metadata"]["labels"].get(label) == value
            if not node or one["spec"].get("nodeName") == node
        ]
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}

    def _create(self, namespace: str, body: bytes) -> Any:
        """Make the debug pod. kubectl sends it as protobuf, in which strings are bytes after their length."""
        found = re.search(rb"node-debugger-([a-z0-9.-]+)-[a-z0-9]{5}(?![a-z0-9])", body)
        assert found is not None, body
        name = found[0].decode()
        if why := self._state.get("admission"):
            raise RefusedError(403, "Forbidden", f'pods "{name}" is forbidden: {why}')
        made = fake_kubectl.debugger(self._state, name, namespace, found[1].decode())
        self._state["pods"].append(made)
        return made

    def _exec(self, pod: dict[str, Any], command: list[str]) -> None:
        run = fake_kubectl.ran(self._state, pod["spec"]["nodeName"], command)
        if run is None:
            raise RefusedError(500, "InternalError", fake_kubectl.REFUSED)
        if self.headers.get("Upgrade", "").lower() != "websocket":
            raise RefusedError(400, "BadRequest", "only websockets here")
        answer_exec(self, run)
