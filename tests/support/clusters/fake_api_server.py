"""An API server of Kubernetes that has events alone, over TLS, and fails as the real one does when asked to.

Statuses and messages are those of kube-apiserver 1.31: `pkg/registry/core/event`, `pkg/apis/core/validation`
(events.go), and the filters of `k8s.io/apiserver`.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

_COLLECTION: Final = re.compile(r"/api/v1/namespaces/([a-z0-9-]+)/events(?:/([a-z0-9.-]+))?")
_ACCOUNT: Final = "system:serviceaccount:memcg-tracer:memcg-tracer"


def make_certificate(folder: Path, name: str, address: str = "127.0.0.1") -> tuple[Path, Path]:
    """Make a certificate for an address that signs itself, as an authority of its own, and its key.

    It has no authority key identifier, as in many clusters. Raises FileNotFoundError without openssl.
    """
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{address}"]
    command += ["-addext", "authorityKeyIdentifier=none", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def status(code: int, reason: str, message: str, **details: Any) -> tuple[int, dict[str, str], bytes]:
    """Return the answer of the API for an error."""
    document: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    document |= {"message": message, "reason": reason, "details": details, "code": code}
    return code, {"Content-Type": "application/json"}, json.dumps(document).encode()


def forbidden(verb: str, namespace: str) -> tuple[int, dict[str, str], bytes]:
    """Return the answer for a role that lacks a verb in a namespace."""
    return status(
        403, "Forbidden",
        f'events is forbidden: User "{_ACCOUNT}" cannot {verb} resource "events" in API group "" in the '
        f'namespace "{namespace}"',
        kind="events",
    )  # fmt: skip


def ending(namespace: str) -> tuple[int, dict[str, str], bytes]:
    """Return the answer for a namespace that is being deleted."""
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    cause = {"reason": "NamespaceTerminating", "field": "metadata.namespace"}
    return status(403, "Forbidden", f'events "x" is forbidden: {why}', kind="events", causes=[cause])


VERBS: Final = {"POST": "create", "PATCH": "patch"}
"""The verb of RBAC for each method that the server answers."""

TOO_MANY: Final = (429, {"Retry-After": "7", "Content-Type": "text/plain"}, b"Too many requests, please try")
"""The answer of the filter for the requests in flight, which is no JSON."""
FAILED: Final = status(
    500, "InternalError", 'Internal error occurred: failed calling webhook "events.example.com": no endpoints'
)


@dataclass
class FakeApiServer:
    """Serves `events`, (namespace, name) -> object, to whoever has the token in `account`.

    `faults` are taken one for each request: an answer, or `"hang"` (until the server is closed), `"close"`
    (without an answer), `"forget"` (done, then closed without an answer), None (no fault). `denied` are
    namespaces in which the account has no rights, `missing` namespaces that do not exist.
    """

    folder: Path
    token: str = "token-1"
    denied: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    faults: list[Any] = field(default_factory=list)
    events: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    _closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.certificate, key = make_certificate(self.folder, "server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self))
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.account = self.folder / "account"
        self.account.mkdir()
        (self.account / "token").write_text(self.token + "\n")
        (self.account / "ca.crt").write_bytes(self.certificate.read_bytes())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server; calling it again does nothing."""
        if not self._closing.is_set():
            self._closing.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @property
    def port(self) -> int:
        """Return the port at 127.0.0.1."""
        return int(self._server.server_address[1])

    def rotate(self, token: str) -> None:
        """Replace the token, as the kubelet does before the old one expires."""
        self.token = token
        (self.account / "token").write_text(token)

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        """Return (status, headers, body) for a request, or a word of `faults`."""
        self.requests.append((method, path))
        fault = self.faults.pop(0) if self.faults else None
        if fault is None:
            return self._done(method, path, headers, body)
        if fault == "forget":
            self._done(method, path, headers, body)
            return "close"
        if fault == "hang":
            self._closing.wait()
            return "close"
        return fault

    def _done(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if headers.get("Authorization") != f"Bearer {self.token}":
            return status(401, "Unauthorized", "Unauthorized")
        found = _COLLECTION.fullmatch(path)
        if found is None:
            return 404, {"Content-Type": "text/plain"}, b"404 page not found"
        namespace, name = found[1], found[2]
        verb = VERBS[method]
        if namespace in self.denied:
            return forbidden(verb, namespace)
        change = json.loads(body)
        act: Callable[..., tuple[int, dict[str, str], bytes]] = {
            "POST": self._create,
            "PATCH": self._patch,
        }[method]
        return act(namespace, name, change, headers.get("Content-Type"))

    def _create(
        self, namespace: str, name: str | None, event: dict[str, Any], kind: str
    ) -> tuple[int, dict[str, str], bytes]:
        assert (name, kind) == (None, "application/json")
        own = event["metadata"]["name"]
        if namespace in self.missing:
            return status(404, "NotFound", f'namespaces "{namespace}" not found', name=namespace)
        if (namespace, own) in self.events:
            return status(409, "AlreadyExists", f'events "{own}" already exists', name=own, kind="events")
        if event["involvedObject"]["namespace"] != namespace:
            return status(
                422, "Invalid", f'Event "{own}" is invalid: involvedObject.namespace: Invalid value'
            )
        self.events[namespace, own] = event
        return 201, {"Content-Type": "application/json"}, json.dumps(event).encode()

    def _patch(
        self, namespace: str, name: str | None, change: dict[str, Any], kind: str
    ) -> tuple[int, dict[str, str], bytes]:
        assert (kind, "metadata" in change) == ("application/merge-patch+json", False)
        event = self.events.get((namespace, name or ""))
        if event is None:
            return status(404, "NotFound", f'events "{name}" not found', name=name, kind="events")
        event |= change
        return 200, {"Content-Type": "application/json"}, json.dumps(event).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Print nothing of clients that break off, as they do for a wrong certificate."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, state: FakeApiServer, *connection: Any) -> None:
        self._state = state
        super().__init__(*connection)

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self._state.answer(self.command, self.path, self.headers, body)
        if answer == "close":
            self.close_connection = True
            return
        code, headers, text = answer
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PATCH = _do  # noqa: N815  names of http.server

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""
