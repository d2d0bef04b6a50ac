"""A containerd for the tests, asked through the CRI as the kubelet does.

All its files are below one folder, as if that were the root of a host, and it shares nothing with a
containerd that already runs on the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from support.containers.busybox import root_of_busybox
from support.containers.leftovers import mounts_removed
from support.containers.protobuf_wire import field, first_text
from support.slowdown import SLOWDOWN

from tracer.kernel.cgroups.mounts import read_mounts
from tracer.lab.scratch import scratch_directory

NEEDED = ("containerd", "ctr", "runc", "busybox")
IMAGE = "docker.io/library/memcg-tracer-test:1"
WITHIN_S = 30.0 * SLOWDOWN
_POLL_S = 0.05
_ON_NODE, _CONTAINER = 2, 1  # NamespaceMode
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

CONFIG = """
version = 2
root = "{host}/var/lib/containerd"
state = "{host}/run/containerd"
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{host}/cni"
    conf_dir = "{host}/cni.d"
"""


@dataclass(frozen=True)
class Pod:
    """A pod of the runtime; `config` is its PodSandboxConfig."""

    sandbox_id: str
    config: bytes


@dataclass(frozen=True)
class Runtime:
    """A containerd whose host is the folder `host`. Pods are below the cgroup `parent`."""

    host: Path
    socket: Path
    parent: str

    def call(self, method: str, request: bytes) -> bytes:
        """Call a method of the CRI (kubernetes/cri-api, `pkg/apis/runtime/v1/api.proto`)."""
        grpc = pytest.importorskip("grpc", reason="needs the packages of the extra cri")
        options = [("grpc.default_authority", "localhost")]
        with grpc.insecure_channel(f"unix:{self.socket}", options) as channel:
            answer: bytes = channel.unary_unary(f"/runtime.v1.RuntimeService/{method}")(
                request, timeout=WITHIN_S
            )
            return answer

    @contextlib.contextmanager
    def pod(self, name: str, namespace: str, uid: str) -> Iterator[Pod]:
        """Run a pod, with the folder of its logs, as the kubelet does; remove it at the end."""
        logs = self.host / "var" / "log" / "pods" / f"{namespace}_{name}_{uid}"
        logs.mkdir(parents=True)
        metadata = field(1, name) + field(2, uid) + field(3, namespace)
        namespaces = field(1, _ON_NODE) + field(2, _CONTAINER)
        linux = field(1, f"{self.parent}/pod{uid}") + field(2, field(1, namespaces))
        config = field(1, metadata) + field(3, str(logs)) + field(8, linux)
        pod = Pod(first_text(self.call("RunPodSandbox", field(1, config))), config)
        try:
            yield pod
        finally:
            self.call("StopPodSandbox", field(1, pod.sandbox_id))
            self.call("RemovePodSandbox", field(1, pod.sandbox_id))

    def run(self, pod: Pod, name: str, attempt: int, script: str, limit_bytes: int) -> str:
        """Start a container of a pod, for the `attempt`th time, and return its id."""
        command = b"".join(field(3, word) for word in ("/bin/sh", "-c", script))
        linux = field(1, field(4, limit_bytes))
        config = field(1, field(1, name) + field(2, attempt)) + field(2, field(1, IMAGE)) + command
        config += field(11, f"{name}.log") + field(15, linux)
        request = field(1, pod.sandbox_id) + field(2, config) + field(3, pod.config)
        identity = first_text(self.call("CreateContainer", request))
        self.call("StartContainer", field(1, identity))
        return identity

    def stop(self, identity: str, grace_s: int) -> None:
        """Stop a container as the kubelet does for a failed liveness probe: SIGTERM, and SIGKILL later."""
        self.call("StopContainer", field(1, identity) + field(2, grace_s))

    @contextlib.contextmanager
    def without_kubernetes(self, identity: str, name: str) -> Iterator[str]:
        """Run a container with the label and the annotation of nerdctl, and yield its cgroup; remove it at
        the end."""
        cgroup = f"{self.parent}/default/{identity}"
        self.ctr("images", "import", "-", stdin=_archive())
        named = f"nerdctl/name={name}"
        options = ("--detach", "--null-io", "--cgroup", cgroup, "--label", named, "--annotation", named)
        self.ctr("run", *options, IMAGE, identity, "/bin/sleep", "1000")
        try:
            yield cgroup
        finally:
            self.ctr("tasks", "rm", "--force", identity)
            self.ctr("containers", "rm", identity)

    def ctr(self, *arguments: str, stdin: bytes | None = None) -> None:
        """Run `ctr` in the namespace `default`; it must succeed."""
        command = ["ctr", "--address", str(self.socket), "--namespace", "default", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=WITHIN_S)
        assert done.returncode == 0, (arguments, done.stderr.decode())

    def pid_of(self, identity: str) -> int:
        """Return the pid of the first process of a container."""
        return int((self.bundle(identity) / "init.pid").read_text())

    def bundle(self, identity: str) -> Path:
        """Return the folder of a container, which is removed when it has died."""
        return self.host / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / identity


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    missing = [command for command in NEEDED if shutil.which(command) is None]
    if missing:
        reason = f"needs containerd: {', '.join(missing)} not found (apt install containerd busybox-static)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    parent = f"/memcg-tracer-cri-{os.getpid()}"
    with (
        scratch_directory(Path("/var/tmp")) as host,
        _cgroups_removed(parent),
        mounts_removed(host),
        _containerd(host) as socket,
    ):
        yield Runtime(host, socket, parent)


@contextlib.contextmanager
def _containerd(host: Path) -> Iterator[Path]:
    """Run the daemon with one image, and yield its socket once the CRI answers."""
    socket = host / "run" / "containerd" / "containerd.sock"
    socket.parent.mkdir(parents=True)
    config, log = host / "config.toml", host / "log"
    config.write_text(CONFIG.format(host=host, socket=socket, image=IMAGE), encoding="utf-8")
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            ["containerd", "--config", config],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _import_image(daemon, socket, log)
        yield socket
    finally:
        daemon.terminate()
        try:
            daemon.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _import_image(daemon: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    """Import the image as soon as the daemon serves."""
    deadline = time.monotonic() + WITHIN_S
    command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "import", "-"]
    image = _archive()
    while True:
        done = subprocess.run(command, input=image, capture_output=True, check=False, timeout=WITHIN_S)
        if done.returncode == 0:
            return
        if daemon.poll() is not None or time.monotonic() > deadline:
            lines = "\n".join(log.read_text("utf-8", "replace").splitlines()[-8:])
            pytest.fail(f"containerd does not serve: {done.stderr.decode()}\n{lines}", pytrace=False)
        time.sleep(_POLL_S)


def _archive() -> bytes:
    """Return the image as `docker save` would; a pod's sandbox runs its default command."""
    layer = root_of_busybox()
    files: dict[str, Any] = {
        "layer.tar": layer,
        "config.json": {
            "architecture": _ARCHITECTURES.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "config": {"Cmd": ["/bin/sleep", "1000000"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        },
        "manifest.json": [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}],
    }
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
    return archive.getvalue()


@contextlib.contextmanager
def _cgroups_removed(parent: str) -> Iterator[None]:
    """Remove the cgroup of the pods from each hierarchy."""
    yield
    mounts = [Path(mount.mount_point) for mount in read_mounts() if mount.fs_type in ("cgroup", "cgroup2")]
    for top in (mount / parent.lstrip("/") for mount in mounts):
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
