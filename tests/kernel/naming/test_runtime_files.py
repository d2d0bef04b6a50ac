"""Names in the files of Docker, containerd and CRI-O, in the form in which these write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.naming.host_files import HostFiles
from tracer.kernel.naming.runtime_files import (
    from_container_logs,
    from_containerd,
    from_crio,
    from_docker,
    from_pod_logs,
    from_storage,
    from_storage_of,
)

ID = "4f2c9d1be0a73586" * 4
UID = "1c2f3e4d-5b6a-7980-9abc-def012345678"
CONFIG = f"/var/lib/docker/containers/{ID}/config.v2.json"
TASKS = "/run/containerd/io.containerd.runtime.v2.task"
KUBELET = {
    "io.kubernetes.container.name": "app",
    "io.kubernetes.pod.name": "web-7d9f",
    "io.kubernetes.pod.namespace": "prod",
}


def test_docker_container_has_name_and_image(files: HostFiles, put: Any) -> None:
    put(CONFIG, {"ID": ID, "Name": "/web", "Image": "sha256:0f1e", "Config": {"Image": "redis:7"}})
    assert from_docker(files, ID) == ContainerNames("web", None, None, "redis:7")


def test_docker_files_of_another_data_root_are_found(files: HostFiles, put: Any) -> None:
    put("/etc/docker/daemon.json", {"data-root": "/elsewhere"})
    put(f"/elsewhere/containers/{ID}/config.v2.json", {"Name": "/web"})
    assert from_docker(files, ID) == ContainerNames("web")


def test_docker_container_of_the_kubelet_has_the_names_of_its_labels(files: HostFiles, put: Any) -> None:
    put(CONFIG, {"Name": f"/k8s_app_web_prod_{UID}_0", "Config": {"Labels": KUBELET, "Image": "sha256:0f"}})
    assert from_docker(files, ID) == ContainerNames("app", "web-7d9f", "prod", "sha256:0f")


def test_docker_container_of_an_old_kubelet_has_a_name_to_split(files: HostFiles, put: Any) -> None:
    put(CONFIG, {"Name": f"/k8s_app_web-7d9f_prod_{UID}_0"})
    assert from_docker(files, ID) == ContainerNames("app", "web-7d9f", "prod")


@pytest.mark.parametrize("state", ["/run/containerd", "/run/k3s/containerd", "/run/k0s/containerd"])
def test_containerd_container_of_kubernetes_has_its_annotations(
    files: HostFiles, put: Any, state: str
) -> None:
    annotations = {
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": "docker.io/library/redis:7",
        "io.kubernetes.cri.sandbox-id": "0" * 64,
        "io.kubernetes.cri.sandbox-name": "web-7d9f",
        "io.kubernetes.cri.sandbox-namespace": "prod",
        "io.kubernetes.cri.sandbox-uid": UID,
    }
    put(
        f"{state}/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json",
        {"ociVersion": "1.2.0", "annotations": annotations},
    )
    assert from_containerd(files, ID) == ContainerNames(
        "app", "web-7d9f", "prod", "docker.io/library/redis:7"
    )


def test_containerd_sandbox_has_the_pod_alone(files: HostFiles, put: Any) -> None:
    annotations = {
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.podsandbox.image-name": "registry.k8s.io/pause:3.10",
        "io.kubernetes.cri.sandbox-name": "web-7d9f",
        "io.kubernetes.cri.sandbox-namespace": "prod",
    }
    put(f"{TASKS}/k8s.io/{ID}/config.json", {"annotations": annotations})
    assert from_containerd(files, ID) == ContainerNames(None, "web-7d9f", "prod")


def test_nerdctl_container_of_any_namespace_has_its_name(files: HostFiles, put: Any) -> None:
    put(f"{TASKS}/k8s.io/{'0' * 64}/config.json", {})
    put(f"{TASKS}/buildkit-3/{ID}/config.json", {"annotations": {"nerdctl/name": "web"}})
    assert from_containerd(files, ID) == ContainerNames("web")


def crio(kind: str, **more: str) -> dict[str, Any]:
    return {"annotations": {"io.kubernetes.cri-o.ContainerType": kind, **KUBELET, **more}}


@pytest.mark.parametrize("root", ["/run", "/var/lib"])
def test_crio_container_has_its_annotations(files: HostFiles, put: Any, root: str) -> None:
    images = {
        "io.kubernetes.cri-o.Image": "0f1e" * 16,
        "io.kubernetes.cri-o.ImageName": "quay.io/org/app:1",
    }
    put(
        f"{root}/containers/storage/overlay-containers/{ID}/userdata/config.json", crio("container", **images)
    )
    assert from_crio(files, ID) == ContainerNames("app", "web-7d9f", "prod", "quay.io/org/app:1")


def test_crio_image_without_a_name_is_what_was_asked_for(files: HostFiles, put: Any) -> None:
    images = {"io.kubernetes.cri-o.Image": "0f1e" * 16, "io.kubernetes.cri-o.ImageName": ""}
    put(f"/run/containers/storage/vfs-containers/{ID}/userdata/config.json", crio("container", **images))
    assert from_crio(files, ID) == ContainerNames("app", "web-7d9f", "prod", "0f1e" * 16)


def test_crio_labels_are_found_in_their_own_annotation(files: HostFiles, put: Any) -> None:
    notes = {"io.kubernetes.cri-o.Labels": json.dumps(KUBELET)}
    put(f"/run/containers/storage/overlay-containers/{ID}/userdata/config.json", {"annotations": notes})
    assert from_crio(files, ID) == ContainerNames("app", "web-7d9f", "prod")


def test_crio_sandbox_has_the_pod_alone(files: HostFiles, put: Any) -> None:
    """Its label has the name POD."""
    document = crio("sandbox", **{"io.kubernetes.container.name": "POD"})
    put(f"/run/containers/storage/overlay-containers/{ID}/userdata/config.json", document)
    assert from_crio(files, ID) == ContainerNames(None, "web-7d9f", "prod")


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[1]", b'{"Name": 3, "annotations": 3}', b'{"annotations": {"nerdctl/name": ["x"]}}'],
)
def test_names_of_damaged_files_are_none(files: HostFiles, put: Any, content: bytes) -> None:
    for path in (CONFIG, "/etc/docker/daemon.json", f"{TASKS}/k8s.io/{ID}/config.json"):
        put(path, content)
    put(f"/run/containers/storage/overlay-containers/{ID}/userdata/config.json", content)
    assert [find(files, ID) for find in (from_docker, from_containerd, from_crio)] == [None] * 3


LISTED_NAMES_ID, ID2, ID3 = "4f2c9d1be0a73586" * 4, "0123456789abcdef" * 4, "f" * 64
STATIC_UID = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
STORAGE = "/var/lib/containers/storage/overlay-containers"


def listed(identity: str, *names: str, **metadata: str) -> dict[str, Any]:
    return {"id": identity, "names": [*names], "image": "0f1e", "metadata": json.dumps(metadata)}


def test_podman_containers_have_name_and_image(files: HostFiles, put: Any) -> None:
    """One that is removed at its end (--rm) is in a list of its own."""
    image = "docker.io/library/postgres:16"
    put(
        f"{STORAGE}/containers.json",
        [listed(ID2, "other"), listed(LISTED_NAMES_ID, "db", **{"image-name": image, "name": "db"}), 7],
    )
    put(f"{STORAGE}/volatile-containers.json", [listed(ID3, "job")])
    assert from_storage(files, {LISTED_NAMES_ID, ID3, "a" * 64}) == {
        LISTED_NAMES_ID: ContainerNames("db", None, None, image),
        ID3: ContainerNames("job"),
    }


def test_crio_name_is_split(files: HostFiles, put: Any) -> None:
    put(
        f"{STORAGE}/containers.json",
        [listed(LISTED_NAMES_ID, f"k8s_app_web-7d9f_prod_{UID}_0", **{"image-name": "a:1"})],
    )
    assert from_storage(files, [LISTED_NAMES_ID]) == {
        LISTED_NAMES_ID: ContainerNames("app", "web-7d9f", "prod", "a:1")
    }


PASSWD = b"root:x:0:0::/root:/bin/sh\nbroken:x\nmaria:x:1000:1000:M,,,:/home/maria:/bin/sh\nx:x:7:7::none:/\n"
OF_MARIA = "/home/maria/.local/share/containers/storage/overlay-containers"


def test_podman_of_a_user_has_its_lists_at_home(files: HostFiles, put: Any) -> None:
    """A name made to look like that of a pod's container gives no pod."""
    put("/etc/passwd", PASSWD)
    put(f"{OF_MARIA}/containers.json", [listed(LISTED_NAMES_ID, "db", **{"image-name": "postgres:16"})])
    put(f"{OF_MARIA}/volatile-containers.json", [listed(ID2, f"k8s_app_web_prod_{UID}_0")])
    assert from_storage_of(files, 1000, {LISTED_NAMES_ID, ID2, ID3}) == {
        LISTED_NAMES_ID: ContainerNames("db", image="postgres:16"),
        ID2: ContainerNames("app"),
    }
    assert [from_storage_of(files, user, {LISTED_NAMES_ID}) for user in (0, 7, 8)] == [{}] * 3


def test_links_in_a_users_home_are_refused(files: HostFiles, put: Any) -> None:
    put("/etc/passwd", PASSWD)
    put("/secret/storage/overlay-containers/containers.json", [listed(LISTED_NAMES_ID, "db")])
    folder = files.root / "home/maria/.local/share"
    folder.mkdir(parents=True)
    (folder / "containers").symlink_to("/secret")
    assert from_storage_of(files, 1000, {LISTED_NAMES_ID}) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"[",
        b"{}",
        b"[null]",
        b'[{"id": 3}]',
        b'[{"id": "%s", "names": [], "metadata": 3}]' % LISTED_NAMES_ID.encode(),
    ],
)
def test_damaged_lists_name_nothing(files: HostFiles, put: Any, content: bytes) -> None:
    put(f"{STORAGE}/containers.json", content)
    assert from_storage(files, {LISTED_NAMES_ID}) == {}


def test_links_to_logs_name_the_containers_of_any_runtime(files: HostFiles, put: Any) -> None:
    """A link that leads nowhere is enough: it is not followed."""
    folder = put(f"/var/log/containers/other_prod_app-{ID2}.log", b"").parent
    (folder / f"web-7d9f_prod_app-side-{LISTED_NAMES_ID}.log").symlink_to("/dev/zero")
    (folder / f"no_name{ID3}.log").touch()
    (folder / f"cut_short_by-{ID3[:50]}.log").touch()
    assert from_container_logs(files, {LISTED_NAMES_ID, ID3}) == {
        LISTED_NAMES_ID: ContainerNames("app-side", "web-7d9f", "prod")
    }


def test_folders_of_logs_name_the_pods(files: HostFiles, put: Any) -> None:
    put(f"/var/log/pods/prod_web-7d9f_{UID}/app/0.log", b"")
    put(f"/var/log/pods/kube-system_etcd-a_{STATIC_UID}/etcd/0.log", b"")
    put("/var/log/pods/rubbish/0.log", b"")
    assert from_pod_logs(files, {UID, STATIC_UID, UID.replace("1", "2")}) == {
        UID: ContainerNames(None, "web-7d9f", "prod"),
        STATIC_UID: ContainerNames(None, "etcd-a", "kube-system"),
    }
