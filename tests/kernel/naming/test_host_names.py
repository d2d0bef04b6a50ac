"""The order of the sources, and what each of them is asked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef, identify
from tracer.kernel.naming import docker_socket, host_names
from tracer.kernel.naming.host_files import HostFiles
from tracer.kernel.naming.host_names import HostNames, NamesHere, is_lacking

ID, ID2, ID3 = "4f2c9d1be0a73586" * 4, "0123456789abcdef" * 4, "f" * 64
UID = "1c2f3e4d-5b6a-7980-9abc-def012345678"
POD = ContainerNames(None, "web-7d9f", "prod")
APP = ContainerNames("app", "web-7d9f", "prod", "redis:7")
BUNDLE = f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"
NOTES = {
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.sandbox-name": "web-7d9f",
    "io.kubernetes.cri.sandbox-namespace": "prod",
    "io.kubernetes.cri.image-name": "redis:7",
}

Names = dict[str, ContainerNames]


class Sockets:
    """Sockets that give `docker`, and `cri` for containers and pods, and note what they are asked."""

    def __init__(self) -> None:
        self.docker: Names = {}
        self.cri: tuple[Names, Names] = ({}, {})
        self.asked: list[tuple[str, Any]] = []

    def from_docker(self, _files: HostFiles, identities: Collection[str] | None) -> Names:
        self.asked.append(("docker", identities))
        return self.docker

    def from_cri(self, _files: HostFiles, identities: Any, uids: Any) -> tuple[Names, Names]:
        self.asked.append(("cri", (identities, uids)))
        return self.cri


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Sockets:
    made = Sockets()
    monkeypatch.setattr(docker_socket, "from_docker_socket", made.from_docker)
    monkeypatch.setattr(host_names, "from_cri", made.from_cri)
    return made


def test_names_without_a_runtime_are_none(files: HostFiles) -> None:
    refs = [ContainerRef("docker", ID), ContainerRef(unit="nginx.service"), ContainerRef(pod_uid=UID)]
    assert HostNames(files).find(refs) == dict.fromkeys(refs, ContainerNames())


def test_id_with_a_slash_opens_no_file(files: HostFiles, put: Any, sockets: Sockets) -> None:
    put("/var/lib/docker/config.v2.json", {"Name": "/stolen"})
    ref = ContainerRef("docker", "..")
    assert HostNames(files).find([ref]) == {ref: ContainerNames()}
    assert sockets.asked == []


@pytest.mark.parametrize("runtime", ["lxc", "systemd-nspawn"])
def test_id_of_other_runtimes_is_the_name(files: HostFiles, runtime: str) -> None:
    assert HostNames(files).at_once(ContainerRef(runtime, "web")) == ContainerNames("web")


def test_names_in_files_of_the_container_are_enough(files: HostFiles, put: Any, sockets: Sockets) -> None:
    put(BUNDLE, {"annotations": NOTES})
    ref = ContainerRef("containerd", ID, UID)
    host = HostNames(files)
    assert host.at_once(ref) == APP
    assert host.find([ref]) == {ref: APP}
    assert sockets.asked == []


def test_pod_has_the_names_that_its_container_had(files: HostFiles, put: Any) -> None:
    """Also once the container and its files are gone."""
    host, pod = HostNames(files), ContainerRef(pod_uid=UID)
    assert host.at_once(pod) is None
    file = put(BUNDLE, {"annotations": NOTES})
    host.at_once(ContainerRef("containerd", ID, UID))
    file.unlink()
    assert host.at_once(pod) == POD
    assert host.at_once(ContainerRef(pod_uid=UID.replace("1", "2"))) is None


def test_known_pods_are_bounded(files: HostFiles, put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_names, "_MOST_PODS", 3)
    put(BUNDLE, {"annotations": NOTES})
    host = HostNames(files)
    for number in range(9):
        host.at_once(ContainerRef("containerd", ID, f"uid-{number}"))
    known = [host.at_once(ContainerRef(pod_uid=f"uid-{number}")) is not None for number in range(9)]
    assert known == [False] * 6 + [True] * 3


def test_lists_are_read_for_what_lacks(files: HostFiles, put: Any, sockets: Sockets) -> None:
    put(BUNDLE, {"annotations": NOTES})
    put("/var/lib/containers/storage/overlay-containers/containers.json", [{"id": ID2, "names": ["db"]}])
    put(f"/var/log/pods/prod_web-7d9f_{UID}/x", b"")
    refs = [ContainerRef("containerd", ID), ContainerRef("podman", ID2), ContainerRef(pod_uid=UID)]
    assert HostNames(files).find(refs) == dict(zip(refs, (APP, ContainerNames("db"), POD), strict=True))
    assert sockets.asked == []


def test_cgroup_of_a_user_has_no_names_of_the_system(files: HostFiles, put: Any, sockets: Sockets) -> None:
    """The user may have named the cgroup after another's container."""
    put(BUNDLE, {"annotations": NOTES})
    put(f"/var/log/containers/web_prod_app-{ID}.log", b"")
    put("/etc/passwd", b"maria:x:1000:1000::/home/maria:/bin/sh\n")
    own = "/home/maria/.local/share/containers/storage/overlay-containers/containers.json"
    put(own, [{"id": ID2, "names": ["db"]}])
    path = "/user.slice/user-1000.slice/user@1000.service"
    feigned, true = identify(f"{path}/cri-containerd-{ID}.scope"), identify(f"{path}/libpod-{ID2}.scope")
    pod = identify(f"{path}/kubepods-pod{UID.replace('-', '_')}.slice")
    assert feigned and true and pod
    host = HostNames(files)
    host.at_once(ContainerRef("containerd", ID, UID))
    found = host.find([feigned, true, pod])
    assert found == {feigned: ContainerNames(), true: ContainerNames("db"), pod: ContainerNames()}
    assert NamesHere(files).names_at(f"{path}/cri-containerd-{ID}.scope") == ContainerNames()
    assert sockets.asked == []


def test_sockets_are_asked_for_what_no_file_has(files: HostFiles, sockets: Sockets) -> None:
    docker, kube = ContainerRef("docker", ID), ContainerRef(None, ID2, UID)
    podman, pod = ContainerRef("podman", ID3), ContainerRef(pod_uid=UID)
    sockets.docker = {ID: ContainerNames("web", image="nginx")}
    sockets.cri = {ID2: APP}, {UID: POD}
    found = HostNames(files).find([docker, kube, podman, pod])
    assert found == {docker: sockets.docker[ID], kube: APP, podman: ContainerNames(), pod: POD}
    assert sockets.asked == [("docker", {ID, ID2}), ("cri", ({ID2}, {UID}))]


def test_image_that_a_log_lacks_is_asked_for(files: HostFiles, put: Any, sockets: Sockets) -> None:
    put(f"/var/log/containers/web-7d9f_prod_app-{ID}.log", b"")
    sockets.cri = {ID: ContainerNames("other", "other", "other", "redis:7")}, {}
    ref = ContainerRef("cri-o", ID, UID)
    assert HostNames(files).find([ref]) == {ref: APP}
    assert sockets.asked == [("cri", ({ID}, set()))]


def test_cri_socket_is_asked_now_and_then(
    files: HostFiles, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many containers of a runtime that it does not know must not cost a process each."""
    host, ref = HostNames(files), ContainerRef("containerd", ID)
    for now_s, asked in ((100.0, 1), (100.1, 1), (105.0, 1), (110.1, 2)):
        monkeypatch.setattr("time.monotonic", lambda now_s=now_s: now_s)
        host.find([ref])
        assert [source for source, _ in sockets.asked].count("cri") == asked


@pytest.mark.parametrize(
    ("ref", "names", "expected"),
    [
        (ContainerRef("docker", ID), None, True),
        (ContainerRef("docker", ID), ContainerNames(), True),
        (ContainerRef("docker", ID), ContainerNames("web"), False),
        (ContainerRef("containerd", ID), ContainerNames("web"), True),  # of nerdctl
        (ContainerRef("containerd", ID, UID), APP, False),
        (ContainerRef("containerd", ID, UID), ContainerNames("app", "web"), True),
        (ContainerRef("containerd", ID, UID), POD, False),  # a sandbox
        (ContainerRef(pod_uid=UID), None, True),
        (ContainerRef(pod_uid=UID), POD, False),
        (ContainerRef("docker", ".."), None, False),
        (ContainerRef(unit="nginx.service"), None, False),
    ],
)
def test_lacking_names_are_those_that_may_be_found(
    ref: ContainerRef, names: ContainerNames | None, expected: bool
) -> None:
    assert is_lacking(ref, names) is expected


def test_names_at_paths_ask_each_socket_once(files: HostFiles, put: Any, sockets: Sockets) -> None:
    sockets.docker = {ID2: ContainerNames("exited"), ID3: ContainerNames("web")}
    sockets.cri = {ID: APP}, {UID: POD}
    here = NamesHere(files)
    assert here.names_at(f"/docker/{ID2}") == ContainerNames("exited")
    assert here.names_at(f"/system.slice/docker-{ID3}.scope") == ContainerNames("web")
    assert here.names_at(f"/kubepods/burstable/pod{UID}/{ID}") == APP
    assert here.names_at(f"/kubepods/burstable/pod{UID}") == POD
    nothing = (f"/docker/{'a' * 64}", "/user.slice", "/docker/..")
    assert [here.names_at(path) for path in nothing] == [ContainerNames()] * 3
    assert sockets.asked == [("cri", (None, None)), ("docker", None)]


def test_names_at_paths_are_first_those_of_files(files: HostFiles, put: Any, sockets: Sockets) -> None:
    put(BUNDLE, {"annotations": NOTES})
    assert NamesHere(files).names_at(f"/k8s.io/{ID}") == APP
    assert sockets.asked == []
