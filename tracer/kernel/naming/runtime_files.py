"""Names in files that a runtime writes before it makes the container's cgroup. Each file is named after the
container's id.

Each function cites the runtime's source that defines the format. The OCI bundle of a container is removed
with it, so its names are known only if they are read while it runs; Docker, podman and CRI-O keep their own
files until the container is deleted.

Names in lists of all containers; each list is read once for all wanted names.

A list may be long and is read again for each batch of containers, so a thread reads it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from itertools import islice
from typing import Any, Final

from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.naming.host_files import MOST_LIST_BYTES, HostFiles, as_name, get, parse_json, text

_DOCKER_DATA_ROOT: Final = "/var/lib/docker"
_DOCKER_CONFIG: Final = ("/etc/docker", "daemon.json")
_CONTAINERD_STATES: Final = (
    "/run/containerd",
    "/run/k3s/containerd",  # k3s and RKE2
    "/run/k0s/containerd",
    "/var/snap/microk8s/common/run/containerd",
)
STORAGE_FOLDERS: Final = tuple(
    f"{root}/containers/storage/{driver}-containers"
    for root in ("/run", "/var/lib")
    for driver in ("overlay", "vfs", "btrfs", "zfs")
)
"""The folders in which containers/storage (podman and CRI-O, as root) has its lists and a folder for each
container."""

_MOST_NAMESPACES: Final = 32
# k8s_<container>_<pod>_<namespace>_<pod uid>_<attempt>: names in Kubernetes cannot contain "_".
_KUBELET_NAME: Final = re.compile(r"k8s_([^_]+)_([^_]+)_([^_]+)_[^_]+_[0-9]+")


def from_docker(files: HostFiles, identity: str) -> ContainerNames | None:
    """Return the names in Docker's own description of a container (moby, `daemon/container`: Container).

    `Config.Image` is the image as given to `docker run`.
    """
    root = text(files.read_json(*_DOCKER_CONFIG), "data-root") or _DOCKER_DATA_ROOT
    document = files.read_json(f"{root}/containers", identity, "config.v2.json")
    return docker_names(
        text(document, "Name"), get(document, "Config", "Labels"), text(document, "Config", "Image")
    )


def docker_names(name: str | None, labels: object, image: str | None) -> ContainerNames | None:
    """Return the names of a Docker container; its own name begins with "/".

    The kubelet labels a container with its names (kubernetes, `pkg/kubelet/types/labels.go`).
    """
    if name is None:
        return None
    own = split_name(name.lstrip("/"))
    return ContainerNames(
        text(labels, "io.kubernetes.container.name") or own.container,
        text(labels, "io.kubernetes.pod.name") or own.pod,
        text(labels, "io.kubernetes.pod.namespace") or own.namespace,
        image,
    )


def split_name(name: str) -> ContainerNames:
    """Return the names from which the kubelet, or CRI-O for it, built this name."""
    kubelet = _KUBELET_NAME.fullmatch(name)
    return ContainerNames(*kubelet.groups()) if kubelet is not None else ContainerNames(name)


def from_containerd(files: HostFiles, identity: str) -> ContainerNames | None:
    """Return the names in the annotations of an OCI bundle of containerd.

    The annotations of Kubernetes come from containerd's CRI plugin (`internal/cri/annotations`), which writes
    no container and image for the sandbox of a pod. The annotations of nerdctl (`pkg/labels`) have no image.
    """
    for tasks in (f"{state}/io.containerd.runtime.v2.task" for state in _CONTAINERD_STATES):
        for namespace in islice(files.names(tasks), _MOST_NAMESPACES):
            notes = get(files.read_json(tasks, namespace, identity, "config.json"), "annotations")
            container = text(notes, "io.kubernetes.cri.container-name") or text(notes, "nerdctl/name")
            pod = text(notes, "io.kubernetes.cri.sandbox-name")
            if container is not None or pod is not None:
                pod_namespace = text(notes, "io.kubernetes.cri.sandbox-namespace")
                return ContainerNames(
                    container, pod, pod_namespace, text(notes, "io.kubernetes.cri.image-name")
                )
    return None


def from_crio(files: HostFiles, identity: str) -> ContainerNames | None:
    """Return the names in the annotations of an OCI bundle of CRI-O (cri-o, `pkg/annotations`).

    The labels of the kubelet are annotations as well. CRI-O gives the image by one of its names, or as the
    kubelet requested it, which may be by id.
    """
    for folder in STORAGE_FOLDERS:
        notes = get(files.read_json(folder, identity, "userdata", "config.json"), "annotations")
        labels = parse_json(get(notes, "io.kubernetes.cri-o.Labels"))
        pod = text(notes, "io.kubernetes.pod.name") or text(labels, "io.kubernetes.pod.name")
        if pod is not None:
            is_sandbox = text(notes, "io.kubernetes.cri-o.ContainerType") == "sandbox"
            return ContainerNames(
                None if is_sandbox else _label(notes, labels, "io.kubernetes.container.name"),
                pod,
                _label(notes, labels, "io.kubernetes.pod.namespace"),
                None
                if is_sandbox
                else text(notes, "io.kubernetes.cri-o.ImageName") or text(notes, "io.kubernetes.cri-o.Image"),
            )
    return None


def _label(notes: Any, labels: Any, key: str) -> str | None:
    return text(notes, key) or text(labels, key)


# volatile-containers.json has the containers of `podman run --rm`.
_LISTS: Final = ("containers.json", "volatile-containers.json")
_CONTAINER_LOGS: Final = "/var/log/containers"
_POD_LOGS: Final = "/var/log/pods"
_LOG: Final = re.compile(r"([^_]+)_([^_]+)_([^_]+)-[0-9a-f]{64}\.log")
_LOG_ID: Final = slice(-68, -4)  # <64 digits>.log
_POD: Final = re.compile(r"([^_]+)_([^_]+)_([0-9a-f-]{32,36})")


def from_storage(files: HostFiles, identities: Collection[str]) -> dict[str, ContainerNames]:
    """Return container id -> names, from the lists of containers/storage (`containers.go`: Container).

    podman and CRI-O keep the image's name in `metadata`, which is JSON in a text (podman,
    `libpod/storage.go`; cri-o, `internal/storage/runtime.go`: RuntimeContainerMetadata).
    """
    found: dict[str, ContainerNames] = {}
    for folder in STORAGE_FOLDERS:
        for name in _LISTS:
            found |= _in_list(files.read_json(folder, name, most_bytes=MOST_LIST_BYTES), identities)
    return found


def from_storage_of(files: HostFiles, user: int, identities: Collection[str]) -> dict[str, ContainerNames]:
    """Return container id -> names, from the same lists of a user's podman, without pods and namespaces.

    The user may write anything there, so the lists have the bound of a file about one container, and links in
    the home directory are refused.
    """
    home = _home_of(files, user)
    found: dict[str, ContainerNames] = {}
    for driver in ("overlay", "vfs", "btrfs") if home is not None else ():
        below = (".local", "share", "containers", "storage", f"{driver}-containers")
        for name in _LISTS:
            found |= _in_list(files.read_json(str(home), *below, name), identities)
    return {key: ContainerNames(names.container, image=names.image) for key, names in found.items()}


def _in_list(listed: object, identities: Collection[str]) -> dict[str, ContainerNames]:
    found = {}
    for container in listed if isinstance(listed, list) else ():
        identity, names = text(container, "id"), get(container, "names")
        first = as_name(names[0]) if isinstance(names, list) and names else None
        if identity is not None and identity in identities and first is not None:
            own = split_name(first)
            image = text(parse_json(get(container, "metadata")), "image-name")
            found[identity] = ContainerNames(own.container, own.pod, own.namespace, image)
    return found


def _home_of(files: HostFiles, user: int) -> str | None:
    """Return a user's home directory on the host, by passwd(5)."""
    for line in (files.read("/etc", "passwd") or b"").splitlines():
        fields = line.split(b":")
        if len(fields) > 5 and fields[2] == str(user).encode() and fields[5].startswith(b"/"):
            return os.fsdecode(fields[5])
    return None


def from_container_logs(files: HostFiles, identities: Collection[str]) -> dict[str, ContainerNames]:
    """Return container id -> names, from the names of the kubelet's links to log files, for any runtime.

    A link is called <pod>_<namespace>_<container>-<container id>.log (kubernetes,
    `pkg/kubelet/kuberuntime/legacy.go`), and stays until the dead container is deleted. Only its name is
    used, because pods may be permitted to write to /var/log.
    """
    found = {}
    for name in files.names(_CONTAINER_LOGS):
        if name[_LOG_ID] in identities and (log := _LOG.fullmatch(name)) is not None:
            pod, namespace, container = log.groups()
            found[name[_LOG_ID]] = ContainerNames(container, pod, namespace)
    return found


def from_pod_logs(files: HostFiles, uids: Collection[str]) -> dict[str, ContainerNames]:
    """Return pod uid -> names, from the names of the folders of the kubelet's log files.

    A folder is called <namespace>_<pod>_<pod uid> (kubernetes, `pkg/kubelet/kuberuntime/helpers.go`), and is
    made before the first container of the pod.
    """
    found = {}
    for name in files.names(_POD_LOGS):
        if (pod := _POD.fullmatch(name)) is not None and pod[3] in uids:
            found[pod[3]] = ContainerNames(None, pod[2], pod[1])
    return found
