"""Names in lists of all containers; each list is read once for all wanted names.

A list may be long and is read again for each batch of containers, so a thread reads it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Final

from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.naming.host_files import MOST_LIST_BYTES, HostFiles, as_name, get, parse_json, text
from tracer.kernel.naming.runtime_files import STORAGE_FOLDERS, split_name

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
