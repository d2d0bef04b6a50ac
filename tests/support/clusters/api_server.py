"""A real kube-apiserver with its etcd, both at 127.0.0.1, and kubectl for each of its users.

No controller and no scheduler runs, so a test makes the pods of a DaemonSet by hand. `Kubelet` is a fake one.
`make api-server` builds kube-apiserver.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

from support.clusters import fake_kubectl
from support.clusters.exec_stream import answer_exec
from support.waiting import wait_for

BUILT: Final = Path(__file__).parents[3] / "build/api-server/kube-apiserver"
"""Where `make api-server` puts it. One on the PATH goes first."""
PROGRAMS: Final = ("kube-apiserver", "etcd", "kubectl", "openssl")
_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:{BUILT.parent}"
ADMIN: Final = "admin"
"""The user with all rights. Any other name is a user without rights until a role is bound to it."""


def missing() -> str | None:
    """Return which program is missing for `ApiServer`, or None."""
    found = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    return f"needs {' and '.join(found)}: make api-server" if found else None


def free_port() -> int:
    """Return a port at 127.0.0.1 that nobody listened at just now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


class Certificates:
    """An authority, and the certificates that it signed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self._new = ["req", *curve, "-days", "2"]
        self._openssl(*self._new, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def make(self, name: str, subject: str) -> None:
        """Make NAME.crt and NAME.key for a client, and for a server at 127.0.0.1."""
        request = (*self._new, "-subj", subject, "-addext", "subjectAltName=IP:127.0.0.1")
        signed = ("-x509", "-CA", "ca.crt", "-CAkey", "ca.key")
        self._openssl(*request, *signed, "-keyout", f"{name}.key", "-out", f"{name}.crt")

    def make_signing_key(self) -> None:
        """Make sa.key and sa.pub for the tokens of service accounts."""
        self._openssl("genrsa", "-out", "sa.key", "2048")
        self._openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")


class ApiServer:
    """Runs etcd and kube-apiserver while it is entered. Raises AssertionError if one does not start."""

    def __init__(self, folder: Path, users: tuple[str, ...]) -> None:
        self._folder = folder
        self._users = users
        self._ending = ExitStack()
        self._server: subprocess.Popen[bytes] | None = None
        self.kubeconfig = folder / "kubeconfig"
        self.port = free_port()

    def __enter__(self) -> Self:
        self.certificates = Certificates(self._folder / "certificates")
        self.certificates.make("server", "/CN=server")
        self.certificates.make(ADMIN, f"/O=system:masters/CN={ADMIN}")
        self.certificates.make_signing_key()
        tokens = "".join(f"token-of-{name},{name},{name}\n" for name in self._users)
        (self.certificates.folder / "tokens.csv").write_text(tokens)
        self.kubeconfig.write_text(json.dumps(self._kubeconfig()))
        with ExitStack() as stack:
            stack.callback(self.stop)
            self._etcd = f"http://127.0.0.1:{free_port()}"
            peers = f"http://127.0.0.1:{free_port()}"
            store = self._run(
                "etcd", "--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync",
                f"--listen-client-urls={self._etcd}", f"--advertise-client-urls={self._etcd}",
                f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
                f"--initial-cluster=default={peers}",
            )  # fmt: skip
            stack.callback(_end, store)
            wait_for(lambda: _answers(f"{self._etcd}/health"), goes_on=lambda: store.poll() is None)
            self.start()
            self._ending = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{command[0]}.log").open("ab") as log:
            program = shutil.which(command[0], path=_PATH) or command[0]
            words = [program, *command[1:]]
            return subprocess.Popen(words, cwd=self.certificates.folder, stdout=log, stderr=log)

    def start(self) -> None:
        """Start kube-apiserver at the same port as before."""
        self._server = server = self._run(
            "kube-apiserver", f"--etcd-servers={self._etcd}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", f"--secure-port={self.port}", "--endpoint-reconciler-type=none",
            "--tls-cert-file=server.crt", "--tls-private-key-file=server.key", "--client-ca-file=ca.crt",
            "--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=sa.pub",
            "--service-account-signing-key-file=sa.key", "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true",
            "--kubelet-client-certificate=admin.crt", "--kubelet-client-key=admin.key",
            "--kubelet-certificate-authority=ca.crt", f"--cert-dir={self._folder}",
        )  # fmt: skip
        log = self._folder / "kube-apiserver.log"
        wait_for(
            lambda: self.run("get", "--raw=/readyz").stdout == "ok",
            goes_on=lambda: server.poll() is None,
            told=lambda: log.read_text()[-2000:],
        )

    def stop(self) -> None:
        """End kube-apiserver, as if it were away; its objects stay in etcd."""
        if self._server is not None:
            _end(self._server)
            self._server = None

    def start_again(self) -> None:
        """Start kube-apiserver if it is not running."""
        if self._server is None:
            self.start()

    def _kubeconfig(self) -> dict[str, Any]:
        ca, folder = str(self.certificates.folder / "ca.crt"), self.certificates.folder
        users: list[dict[str, Any]] = [
            {"name": name, "user": {"token": f"token-of-{name}"}} for name in self._users
        ]
        of_admin = {f"client-{kind}": str(folder / f"{ADMIN}.{end}")
                    for kind, end in (("certificate", "crt"), ("key", "key"))}  # fmt: skip
        users.append({"name": ADMIN, "user": of_admin})
        address = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": ca}
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": ADMIN, "users": users,
            "clusters": [{"name": "test", "cluster": address}],
            "contexts": [
                {"name": name, "context": {"cluster": "test", "user": name, "namespace": "shop"}}
                for name in (ADMIN, *self._users)
            ],
        }  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment in which kubectl finds the server, and keeps its cache here."""
        return {"PATH": _PATH, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self._folder)}

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Return a run of kubectl, whatever its status."""
        command = ["kubectl", *arguments]
        return subprocess.run(
            command, input=stdin, env=self.environment, capture_output=True, text=True, check=False
        )

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Return what kubectl printed. Raises AssertionError if it failed."""
        done = self.run(*arguments, stdin=stdin)
        assert not done.returncode, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object or a list of the API."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def make(self, document: dict[str, Any]) -> dict[str, Any]:
        """Make an object with its status. Returns it as the server has it, with its own uid."""
        self.kubectl("create", "-f", "-", stdin=json.dumps(document))
        meta = document["metadata"]
        where = (f"--namespace={meta['namespace']}",) if "namespace" in meta else ()
        one = (document["kind"].lower(), meta["name"], *where)
        if "status" in document:
            patch = json.dumps({"status": document["status"]})
            self.kubectl("patch", *one, "--subresource=status", "--type=merge", f"--patch={patch}")
        return self.get(*one)

    def make_namespace(self, name: str) -> None:
        """Make a namespace with the account that a controller would make in it."""
        self.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.make_account("default", name)

    def make_account(self, name: str, namespace: str) -> None:
        """Make a service account whose pods get no token."""
        meta = {"name": name, "namespace": namespace}
        document = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
        self.make(document | {"automountServiceAccountToken": False})


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Kubelet:
    """A kubelet that answers `exec` and `logs` from a description of a cluster, as `fake_kubectl` does.

    It trusts only clients whose certificate the authority signed.
    """

    def __init__(self, certificates: Certificates, state: dict[str, Any]) -> None:
        certificates.make("kubelet", "/CN=kubelet")
        folder = certificates.folder
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(folder / "kubelet.crt", folder / "kubelet.key")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, state))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on(self, node: dict[str, Any]) -> dict[str, Any]:
        """Return a node with the address of this kubelet."""
        port = self._server.server_address[1]
        at = {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
        return node | {"status": node["status"] | at | {"addresses": addresses}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, state: dict[str, Any], *connection: Any) -> None:
        self._state = state
        super().__init__(*connection)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _do(self) -> None:
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case ["containerLogs", *_]:
                text = str(self._state["log"]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            case ["exec", _, pod, _]:
                (found,) = [one for one in self._state["pods"] if one["metadata"]["name"] == pod]
                command = parse_qs(url.query)["command"]
                run = fake_kubectl.ran(self._state, found["spec"]["nodeName"], command)
                if run is None:
                    self.close_connection = True
                elif "Sec-WebSocket-Key" not in self.headers:
                    self.send_error(400, "only websockets here")
                else:
                    answer_exec(self, run)
            case _:
                self.send_error(404)

    do_GET = do_POST = _do  # noqa: N815  names of http.server
