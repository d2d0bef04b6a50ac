"""Names in the lists of containers/storage, and in the names of the kubelet's log files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.naming.host_files import HostFiles
from tracer.kernel.naming.listed_names import (
    from_container_logs,
    from_pod_logs,
    from_storage,
    from_storage_of,
)

ID, ID2, ID3 = "4f2c9d1be0a73586" * 4, "0123456789abcdef" * 4, "f" * 64
UID = "1c2f3e4d-5b6a-7980-9abc-def012345678"
STATIC_UID = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
STORAGE = "/var/lib/containers/storage/overlay-containers"


def listed(identity: str, *names: str, **metadata: str) -> dict[str, Any]:
    return {"id": identity, "names": [*names], "image": "0f1e", "metadata": json.dumps(metadata)}


def test_podman_containers_have_name_and_image(files: HostFiles, put: Any) -> None:
    """One that is removed at its end (--rm) is in a list of its own."""
    image = "docker.io/library/postgres:16"
    put(
        f"{STORAGE}/containers.json",
        [listed(ID2, "other"), listed(ID, "db", **{"image-name": image, "name": "db"}), 7],
    )
    put(f"{STORAGE}/volatile-containers.json", [listed(ID3, "job")])
    assert from_storage(files, {ID, ID3, "a" * 64}) == {
        ID: ContainerNames("db", None, None, image),
        ID3: ContainerNames("job"),
    }


def test_crio_name_is_split(files: HostFiles, put: Any) -> None:
    put(f"{STORAGE}/containers.json", [listed(ID, f"k8s_app_web-7d9f_prod_{UID}_0", **{"image-name": "a:1"})])
    assert from_storage(files, [ID]) == {ID: ContainerNames("app", "web-7d9f", "prod", "a:1")}


PASSWD = b"root:x:0:0::/root:/bin/sh\nbroken:x\nmaria:x:1000:1000:M,,,:/home/maria:/bin/sh\nx:x:7:7::none:/\n"
OF_MARIA = "/home/maria/.local/share/containers/storage/overlay-containers"


def test_podman_of_a_user_has_its_lists_at_home(files: HostFiles, put: Any) -> None:
    """A name made to look like that of a pod's container gives no pod."""
    put("/etc/passwd", PASSWD)
    put(f"{OF_MARIA}/containers.json", [listed(ID, "db", **{"image-name": "postgres:16"})])
    put(f"{OF_MARIA}/volatile-containers.json", [listed(ID2, f"k8s_app_web_prod_{UID}_0")])
    assert from_storage_of(files, 1000, {ID, ID2, ID3}) == {
        ID: ContainerNames("db", image="postgres:16"),
        ID2: ContainerNames("app"),
    }
    assert [from_storage_of(files, user, {ID}) for user in (0, 7, 8)] == [{}] * 3


def test_links_in_a_users_home_are_refused(files: HostFiles, put: Any) -> None:
    put("/etc/passwd", PASSWD)
    put("/secret/storage/overlay-containers/containers.json", [listed(ID, "db")])
    folder = files.root / "home/maria/.local/share"
    folder.mkdir(parents=True)
    (folder / "containers").symlink_to("/secret")
    assert from_storage_of(files, 1000, {ID}) == {}


@pytest.mark.parametrize(
    "content",
    [b"[", b"{}", b"[null]", b'[{"id": 3}]', b'[{"id": "%s", "names": [], "metadata": 3}]' % ID.encode()],
)
def test_damaged_lists_name_nothing(files: HostFiles, put: Any, content: bytes) -> None:
    put(f"{STORAGE}/containers.json", content)
    assert from_storage(files, {ID}) == {}


def test_links_to_logs_name_the_containers_of_any_runtime(files: HostFiles, put: Any) -> None:
    """A link that leads nowhere is enough: it is not followed."""
    folder = put(f"/var/log/containers/other_prod_app-{ID2}.log", b"").parent
    (folder / f"web-7d9f_prod_app-side-{ID}.log").symlink_to("/dev/zero")
    (folder / f"no_name{ID3}.log").touch()
    (folder / f"cut_short_by-{ID3[:50]}.log").touch()
    assert from_container_logs(files, {ID, ID3}) == {ID: ContainerNames("app-side", "web-7d9f", "prod")}


def test_folders_of_logs_name_the_pods(files: HostFiles, put: Any) -> None:
    put(f"/var/log/pods/prod_web-7d9f_{UID}/app/0.log", b"")
    put(f"/var/log/pods/kube-system_etcd-a_{STATIC_UID}/etcd/0.log", b"")
    put("/var/log/pods/rubbish/0.log", b"")
    assert from_pod_logs(files, {UID, STATIC_UID, UID.replace("1", "2")}) == {
        UID: ContainerNames(None, "web-7d9f", "prod"),
        STATIC_UID: ContainerNames(None, "etcd-a", "kube-system"),
    }
