"""Names in files that a runtime writes before it makes the container's cgroup. Each file is named after the
container's id.

Each function cites the runtime's source that defines the format. The OCI bundle of a container is removed
with it, so its names are known only if they are read while it runs; Docker, podman and CRI-O keep their own
files until the container is deleted.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any, Final

from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.naming.host_files import HostFiles, get, parse_json, text

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
