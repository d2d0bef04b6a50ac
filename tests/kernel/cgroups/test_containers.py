from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.cgroups import containers
from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef, NamesHere, identify, lookup_name

ID = "4f2c9d1be0a73586" * 4
ID2 = "0123456789abcdef" * 4
UID = "1c2f3e4d-5b6a-7980-9abc-def012345678"
UID_ = UID.replace("-", "_")
STATIC_UID = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", None),
        ("/", None),
        ("/system.slice", None),
        ("/process_api/2e5a47c025cbe94e900cd0fdcca2e73c", None),  # 32 digits are no container id
        (f"/docker/{ID[:63]}", None),
        # Docker
        (f"/docker/{ID}", ContainerRef("docker", ID)),
        (f"/docker/{ID}/system.slice/x", ContainerRef("docker", ID)),
        (f"/system.slice/docker-{ID}.scope", ContainerRef("docker", ID, unit=f"docker-{ID}.scope")),
        (f"/docker/{ID}/docker/{ID2}", ContainerRef("docker", ID2)),  # Docker in Docker
        (
            f"/system.slice/docker-{ID}.scope/docker/{ID2}/init",
            ContainerRef("docker", ID2, unit=f"docker-{ID}.scope"),
        ),
        (f"/custom_parent/{ID}", ContainerRef(None, ID)),  # --cgroup-parent says nothing of the runtime
        # containerd
        (f"/k8s.io/{ID}", ContainerRef("containerd", ID, namespace="k8s.io")),
        (f"/default/{ID}", ContainerRef("containerd", ID, namespace="default")),
        (f"/system.slice/nerdctl-{ID}.scope", ContainerRef("containerd", ID, unit=f"nerdctl-{ID}.scope")),
        (f"/system.slice:cri-containerd:{ID}", ContainerRef("containerd", ID)),
        (
            f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}",
            ContainerRef("containerd", ID, UID, unit="containerd.service"),
        ),
        # Kubernetes
        (f"/kubepods/burstable/pod{UID}/{ID}", ContainerRef(None, ID, UID)),
        (f"/kubepods/pod{UID}/{ID}", ContainerRef(None, ID, UID)),
        (f"/kubepods/besteffort/pod{STATIC_UID}/{ID}", ContainerRef(None, ID, STATIC_UID)),
        (f"/kubepods/burstable/pod{UID}", ContainerRef(pod_uid=UID)),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope",
            ContainerRef("containerd", ID, UID, unit=f"cri-containerd-{ID}.scope"),
        ),
        (
            f"/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope",
            ContainerRef("docker", ID, UID, unit=f"docker-{ID}.scope"),
        ),
        (
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice",
            ContainerRef(pod_uid=UID),
        ),
        # CRI-O
        (
            f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope/container",
            ContainerRef("cri-o", ID, UID, unit=f"crio-{ID}.scope"),
        ),
        (f"/kubepods/burstable/pod{UID}/crio-{ID}", ContainerRef("cri-o", ID, UID)),
        (
            f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope",
            ContainerRef(pod_uid=UID, unit=f"crio-conmon-{ID}.scope"),
        ),
        # podman
        (
            f"/machine.slice/libpod-{ID}.scope/container",
            ContainerRef("podman", ID, unit=f"libpod-{ID}.scope"),
        ),
        (f"/libpod_parent/libpod-{ID}", ContainerRef("podman", ID)),
        (f"/machine.slice/libpod-conmon-{ID}.scope", ContainerRef(unit=f"libpod-conmon-{ID}.scope")),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
            ContainerRef("podman", ID, unit=f"libpod-{ID}.scope"),
        ),
        # other runtimes
        ("/lxc/web", ContainerRef("lxc", "web")),
        ("/lxc.payload.web/init.scope", ContainerRef("lxc", "web", unit="init.scope")),
        (
            f"/ecs/0f1e2d3c4b5a69788796a5b4c3d2e1f0/{STATIC_UID}-1234567890",
            ContainerRef(None, f"{STATIC_UID}-1234567890"),
        ),
        # systemd
        ("/system.slice/nginx.service", ContainerRef(unit="nginx.service")),
        ("/user.slice/user-0.slice/session-3.scope", ContainerRef(unit="session-3.scope")),
        (r"/system.slice/system-a\x2db.slice/a\x2db@1.service", ContainerRef(unit="a-b@1.service")),
        (r"/system.slice/gr\xc3\xbcn.service", ContainerRef(unit="grün.service")),
    ],
)
def test_identify_known_path_returns_container(path: str, expected: ContainerRef | None) -> None:
    assert identify(path) == expected


@given(
    st.text(max_size=300) | st.lists(st.sampled_from([*"/-_:.\\x", "docker", ID, UID, ".scope"])).map("".join)
)
def test_identify_any_string_never_raises(path: str) -> None:
    ref = identify(path)
    assert ref is None or ref != ContainerRef()


@pytest.fixture
def no_runtimes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a directory for the files of runtimes, on a machine that has none yet."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(containers, "_DOCKER_SOCKET", tmp_path / "docker.sock")
    monkeypatch.setattr(containers, "_DOCKER_DATA_ROOT", tmp_path / "docker")
    monkeypatch.setattr(containers, "_DOCKER_CONFIG", tmp_path / "daemon.json")
    monkeypatch.setattr(containers, "_CONTAINERD_TASKS", (tmp_path / "tasks",))
    monkeypatch.setattr(containers, "_CONTAINERS_STORAGE", (tmp_path / "containers.json",))
    monkeypatch.setattr(containers, "_KUBELET_CONTAINER_LOGS", tmp_path / "kubelet-containers")
    monkeypatch.setattr(containers, "_KUBELET_POD_LOGS", tmp_path / "kubelet-pods")
    return tmp_path


def put(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_names_without_runtime_are_none(no_runtimes: Path) -> None:
    assert lookup_name(ContainerRef("docker", ID)) == ContainerNames()
    assert lookup_name(ContainerRef(unit="nginx.service")) == ContainerNames()


def test_names_id_with_slash_opens_no_file(no_runtimes: Path) -> None:
    put(no_runtimes / "docker" / "config.v2.json", {"Name": "/stolen"})
    assert lookup_name(ContainerRef("docker", "..")) == ContainerNames()


def test_names_from_docker_files(no_runtimes: Path) -> None:
    put(no_runtimes / "docker" / "containers" / ID / "config.v2.json", {"Name": "/web", "Config": {}})
    assert lookup_name(ContainerRef("docker", ID)) == ContainerNames("web")


def test_names_from_docker_files_in_other_data_root(no_runtimes: Path) -> None:
    put(no_runtimes / "daemon.json", {"data-root": str(no_runtimes / "elsewhere")})
    put(no_runtimes / "elsewhere" / "containers" / ID / "config.v2.json", {"Name": "/web"})
    assert lookup_name(ContainerRef(None, ID)) == ContainerNames("web")


def test_names_from_docker_kubelet_container_are_split(no_runtimes: Path) -> None:
    name = f"/k8s_app_web-7d9f_prod_{UID}_0"
    put(no_runtimes / "docker" / "containers" / ID / "config.v2.json", {"Name": name})
    assert lookup_name(ContainerRef("docker", ID)) == ContainerNames("app", "web-7d9f", "prod")


def test_names_from_containerd_annotations(no_runtimes: Path) -> None:
    annotations = {
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.sandbox-name": "web-7d9f",
        "io.kubernetes.cri.sandbox-namespace": "prod",
    }
    put(no_runtimes / "tasks" / "k8s.io" / ID / "config.json", {"annotations": annotations})
    assert lookup_name(ContainerRef("containerd", ID)) == ContainerNames("app", "web-7d9f", "prod")


def test_names_from_containers_storage(no_runtimes: Path) -> None:
    put(no_runtimes / "containers.json", [{"id": ID2, "names": ["other"]}, {"id": ID, "names": ["db"]}, 7])
    assert lookup_name(ContainerRef("podman", ID)) == ContainerNames("db")


@pytest.mark.parametrize("content", [b"", b"[", b"null", b"[1]", b'{"Name": 3}', b"\xff", b"[" * 100_000])
def test_names_from_damaged_files_are_none(no_runtimes: Path, content: bytes) -> None:
    file = no_runtimes / "docker" / "containers" / ID / "config.v2.json"
    file.parent.mkdir(parents=True)
    for damaged in (file, no_runtimes / "containers.json", no_runtimes / "daemon.json"):
        damaged.write_bytes(content)
    assert lookup_name(ContainerRef("docker", ID)) == ContainerNames()


def serve_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_names_from_docker_socket(no_runtimes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "web"}
    container = {"Id": ID, "Names": ["/other/alias", "/x"], "Labels": labels}
    body = json.dumps([{"Id": ID2, "Names": ["/y"]}, container]).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{no_runtimes}/other.sock")
    with listen(no_runtimes / "other.sock") as listener:
        server = threading.Thread(target=serve_once, args=(listener, answer))
        server.start()
        assert lookup_name(ContainerRef("docker", ID)) == ContainerNames("app", "web", None)
        server.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 404 No\r\n\r\n",
        b"\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n[3, {}]",
    ],
)
def test_names_from_broken_docker_are_none(no_runtimes: Path, answer: bytes) -> None:
    with listen(no_runtimes / "docker.sock") as listener:
        server = threading.Thread(target=serve_once, args=(listener, answer))
        server.start()
        assert lookup_name(ContainerRef("docker", ID)) == ContainerNames()
        server.join()


def test_names_from_hanging_docker_time_out(no_runtimes: Path) -> None:
    with listen(no_runtimes / "docker.sock"):  # accepts connections, and never answers
        begin = time.monotonic()
        assert lookup_name(ContainerRef("docker", ID)) == ContainerNames()
        assert time.monotonic() - begin < 2


def test_names_from_kubelet_logs_for_any_runtime(no_runtimes: Path) -> None:
    """Names are found for a container that is gone, and for a pod's own cgroup."""
    put(no_runtimes / "kubelet-containers" / f"web-7d9f_prod_app-side-{ID}.log", "")
    put(no_runtimes / "kubelet-containers" / f"other_prod_app-{ID2}.log", "")
    (no_runtimes / "kubelet-pods" / f"prod_web-7d9f_{UID}").mkdir(parents=True)
    (no_runtimes / "kubelet-pods" / "rubbish").mkdir()
    assert lookup_name(ContainerRef("containerd", ID)) == ContainerNames("app-side", "web-7d9f", "prod")
    assert lookup_name(ContainerRef(pod_uid=UID)) == ContainerNames(None, "web-7d9f", "prod")
    assert lookup_name(ContainerRef(pod_uid=UID.replace("0", "1"))) == ContainerNames()
    assert lookup_name(ContainerRef("containerd", "f" * 64)) == ContainerNames()


def test_names_at_paths_request_docker_once(no_runtimes: Path) -> None:
    listed = [{"Id": ID, "Names": ["/exited"]}, {"Id": ID2, "Names": ["/web"]}]
    body = json.dumps(listed).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    here = NamesHere()
    with listen(no_runtimes / "docker.sock") as listener:
        server = threading.Thread(target=serve_once, args=(listener, answer))
        server.start()
        assert here.names_at(f"/docker/{ID}") == ContainerNames("exited")
        server.join()
    (no_runtimes / "docker.sock").unlink()
    assert here.names_at(f"/system.slice/docker-{ID2}.scope") == ContainerNames("web")
    assert (
        here.names_at(f"/docker/{'a' * 64}")
        == here.names_at("/user.slice")
        == here.names_at("/docker/..")
        == ContainerNames()
    )


def test_names_at_paths_hanging_docker_is_waited_for_once(no_runtimes: Path) -> None:
    here = NamesHere()
    with listen(no_runtimes / "docker.sock"):
        begin = time.monotonic()
        for number in range(20):
            assert here.names_at(f"/docker/{number:064x}") == ContainerNames()
        assert time.monotonic() - begin < 2
