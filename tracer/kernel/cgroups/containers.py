"""The container, pod or systemd unit of a cgroup, and their names.

The path of the cgroup has the runtime and the id, because each runtime names its cgroups by a fixed pattern.
Names that users gave are not in the path. They are read from the state files of Docker, containerd and
containers/storage (podman, CRI-O) and from the names of the kubelet's log files, or requested from Docker.
None means unknown.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

_DOCKER_SOCKET = Path("/var/run/docker.sock")
_DOCKER_DATA_ROOT = Path("/var/lib/docker")
_DOCKER_CONFIG = Path("/etc/docker/daemon.json")
_CONTAINERD_TASKS = tuple(
    Path(f"/run/{where}/io.containerd.runtime.v2.task") for where in ("containerd", "k3s/containerd")
)
_CONTAINERS_STORAGE = tuple(
    Path(f"/var/lib/containers/storage/{driver}-containers/containers.json") for driver in ("overlay", "vfs")
)
_KUBELET_CONTAINER_LOGS = Path("/var/log/containers")
_KUBELET_POD_LOGS = Path("/var/log/pods")
_DOCKER_TIMEOUT_S = 0.5
_MAX_ANSWER_BYTES = 4 << 20


@dataclass(frozen=True)
class ContainerRef:
    """The facts in a cgroup's path.

    `container_id` is None for a pod's own cgroup and for a plain systemd unit. `runtime` is None if several
    runtimes use this pattern. `namespace` is containerd's.
    """

    runtime: str | None = None
    container_id: str | None = None
    pod_uid: str | None = None
    namespace: str | None = None
    unit: str | None = None


@dataclass(frozen=True)
class ContainerNames:
    """The names that users gave; `namespace` is the pod's namespace in Kubernetes. `image` is the image as
    the container was started with it, such as `docker.io/library/redis:7`."""

    container: str | None = None
    pod: str | None = None
    namespace: str | None = None
    image: str | None = None


_ID: Final = r"(?P<id>[0-9a-f]{64})"
_ECS_ID: Final = r"(?P<id>[0-9a-f]{32}-[0-9]{1,20})"
_UID: Final = r"(?P<uid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"

# Components of a path that name a container: systemd scopes, and their counterparts of the cgroupfs driver.
_SCOPES: Final = tuple(
    (runtime, re.compile(pattern))
    for runtime, pattern in (
        ("docker", rf"docker-{_ID}\.scope"),
        ("containerd", rf"cri-containerd-{_ID}\.scope"),
        ("containerd", rf"nerdctl-{_ID}\.scope"),
        ("containerd", rf"[^/]*:cri-containerd:{_ID}"),
        ("cri-o", rf"crio-{_ID}(?:\.scope)?"),
        ("podman", rf"libpod-(?:payload-)?{_ID}(?:\.scope)?"),
        ("lxc", r"lxc\.payload\.(?P<id>[^/]+)"),
        ("systemd-nspawn", r"systemd-nspawn@(?P<id>[^/]+)\.service"),
    )
)
# The runtime of a component that is a bare id, by the component before it.
_PARENTS: Final = {
    "docker": "docker",
    "k8s.io": "containerd",
    "moby": "containerd",
    "default": "containerd",
    "lxc": "lxc",
    "lxc.payload": "lxc",
}
_CONTAINERD_NAMESPACES: Final = frozenset({"k8s.io", "moby", "default"})
# The monitors that podman and CRI-O put beside a container, in a cgroup that has its id.
_MONITOR: Final = re.compile(rf"(?:crio|libpod)-conmon-{_ID}(?:\.scope)?")
_POD: Final = re.compile(rf"(?:kubepods(?:-besteffort|-burstable)?-)?pod{_UID}(?:\.slice)?(?::.*)?")
_POD_IN_TRIPLE: Final = re.compile(rf"kubepods(?:-besteffort|-burstable)?-pod{_UID}\.slice:")
_BARE_ID: Final = re.compile(rf"{_ID}|(?P<ecs>{_ECS_ID.replace('?P<id>', '?:')})")
_UNIT: Final = re.compile(r".+\.(?:service|scope|socket|mount|swap)")
_UNIT_ESCAPE: Final = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")
# k8s_<container>_<pod>_<namespace>_<pod uid>_<attempt>: names in Kubernetes cannot contain "_". Log files are
# called <pod>_<namespace>_<container>-<container id>.log, and folders <namespace>_<pod>_<pod uid>.
_KUBELET_LOG: Final = re.compile(rf"([^_]+)_([^_]+)_([^_]+)-{_ID}\.log")
_KUBELET_POD: Final = re.compile(rf"([^_]+)_([^_]+)_{_UID}")
_KUBELET_NAME: Final = re.compile(r"k8s_([^_]+)_([^_]+)_([^_]+)_[^_]+_[0-9]+")


def identify(path: str) -> ContainerRef | None:
    """Return the container, pod or unit of a cgroup path (relative to the mount); None if there is none.

    Of nested containers, the innermost is returned. A cgroup that a container made below its own belongs to
    that container.
    """
    ref = ContainerRef()
    parent = ""
    for component in path.split("/"):
        ref = _descend(ref, parent, component)
        parent = component
    return None if ref == ContainerRef() else ref


def lookup_name(ref: ContainerRef) -> ContainerNames:
    """Return the names of a container or pod that runs, or that its runtime still lists; unknown names are
    None.

    Never raises, and takes at most about a second, whatever the state of the runtime. Files are read before
    the socket, because a daemon that hangs must not delay a recording.
    """
    found = _from_files(ref)
    if found is None and ref.container_id is not None and _BARE_ID.fullmatch(ref.container_id):
        found = _named_by_docker(_docker_containers(ref.container_id), ref.container_id)
    return found or ContainerNames()


class NamesHere:
    """The names that the runtimes of this machine know for cgroup paths, also of removed cgroups.

    Each path is looked up once, and Docker is queried once, for all its containers.
    """

    def __init__(self) -> None:
        self._known: dict[str, ContainerNames] = {}

    def names_at(self, path: str) -> ContainerNames:
        """Return the names at a path; unknown names are None, as for a log of another machine. Never
        raises."""
        if path not in self._known:
            self._known[path] = self._find(identify(path))
        return self._known[path]

    def _find(self, ref: ContainerRef | None) -> ContainerNames:
        if ref is None:
            return ContainerNames()
        found = _from_files(ref)
        if found is None and ref.container_id is not None:
            found = _named_by_docker(self._docker, ref.container_id)
        return found or ContainerNames()

    @cached_property
    def _docker(self) -> Sequence[object]:
        return _docker_containers(None)


def _from_files(ref: ContainerRef) -> ContainerNames | None:
    identity = ref.container_id
    if identity is None:
        return None if ref.pod_uid is None else _pod_from_kubelet_logs(ref.pod_uid)
    if ref.runtime in ("lxc", "systemd-nspawn"):
        return ContainerNames(container=identity)
    if not _BARE_ID.fullmatch(identity):  # it becomes a file name and a URL below
        return None
    for names in (
        *(_from_docker_files, _from_containerd_files, _from_containers_storage),
        _from_kubelet_logs,
    ):
        found = names(identity)
        if found is not None:
            return found
    return None


def _descend(ref: ContainerRef, parent: str, component: str) -> ContainerRef:
    """Return the facts of a path with one more component."""
    pod = _POD.fullmatch(component) or _POD_IN_TRIPLE.match(component)
    uid = _dashed(pod["uid"]) if pod is not None else ref.pod_uid
    unit = _unescape_unit(component) if _UNIT.fullmatch(component) else ref.unit
    if _MONITOR.fullmatch(component):
        return ContainerRef(unit=unit, pod_uid=uid)
    for runtime, pattern in _SCOPES:
        scope = pattern.fullmatch(component)
        if scope is not None:
            return ContainerRef(runtime, scope["id"], uid, None, unit)
    bare = _BARE_ID.fullmatch(component)
    if bare is not None or (component and _PARENTS.get(parent) == "lxc"):
        namespace = parent if parent in _CONTAINERD_NAMESPACES else None
        return ContainerRef(_PARENTS.get(parent), component, uid, namespace, unit)
    return ContainerRef(ref.runtime, ref.container_id, uid, ref.namespace, unit)


def _dashed(uid: str) -> str:
    """Return a uid with "-": systemd's slices use "-" for nesting, so the kubelet writes "_" in them."""
    return uid.replace("_", "-")


def _unescape_unit(name: str) -> str:
    r"""Return a unit's name without escapes such as `\x2d` (systemd-escape(1)); adjacent ones are UTF-8."""

    def decode(match: re.Match[str]) -> str:
        return bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8", "replace")

    return _UNIT_ESCAPE.sub(decode, name)


def _from_docker_files(identity: str) -> ContainerNames | None:
    config = _read_json(_docker_data_root() / "containers" / identity / "config.v2.json")
    return _docker_names(config, _get(config, "Config", "Labels"))


def _docker_containers(identity: str | None) -> Sequence[object]:
    """Return GET /containers/json of the Docker Engine API: all containers or one, also those that exited.

    The list is requested, not the one container: Docker answers about one container only after its start, and
    a recording may begin before that.
    """
    from tracer.kernel.cgroups import unix_http  # noqa: PLC0415  (http.client is slow to import)

    url = "/containers/json?all=1"
    if identity is not None:
        url += f"&filters={urllib.parse.quote(json.dumps({'id': [identity]}))}"
    body = unix_http.get(_docker_socket(), url, timeout_s=_DOCKER_TIMEOUT_S, max_bytes=_MAX_ANSWER_BYTES)
    try:
        containers = json.loads(body or b"")
    except (ValueError, RecursionError):
        return ()
    return containers if isinstance(containers, list) else ()


def _named_by_docker(listed: Sequence[object], identity: str) -> ContainerNames | None:
    for container in listed:
        names = _get(container, "Names")
        # A link is listed as a second name, "/other/alias".
        own = [name for name in names if str(name).count("/") == 1] if isinstance(names, list) else []
        if _text(container, "Id") == identity and own:
            return _docker_names({"Name": own[0]}, _get(container, "Labels"))
    return None


def _from_containerd_files(identity: str) -> ContainerNames | None:
    """Return the names in the annotations of containerd's OCI bundle, as its CRI plugin and nerdctl write
    them."""
    for tasks in _CONTAINERD_TASKS:
        for namespace in sorted(_CONTAINERD_NAMESPACES):
            notes = _get(_read_json(tasks / namespace / identity / "config.json"), "annotations")
            container = _text(notes, "io.kubernetes.cri.container-name") or _text(notes, "nerdctl/name")
            pod = _text(notes, "io.kubernetes.cri.sandbox-name")
            if container is not None or pod is not None:
                return ContainerNames(container, pod, _text(notes, "io.kubernetes.cri.sandbox-namespace"))
    return None


def _from_containers_storage(identity: str) -> ContainerNames | None:
    """Return the names in the list of containers that podman and CRI-O keep (as root) in
    containers/storage."""
    for file in _CONTAINERS_STORAGE:
        containers = _read_json(file)
        for container in containers if isinstance(containers, list) else ():
            names = _get(container, "names")
            if _text(container, "id") == identity and isinstance(names, list) and names:
                return _split_name(str(names[0]))
    return None


def _from_kubelet_logs(identity: str) -> ContainerNames | None:
    """Return the names in the name of the kubelet's log file, which exists for any runtime."""
    for name in _listed(_KUBELET_CONTAINER_LOGS):
        log = _KUBELET_LOG.fullmatch(name)
        if log is not None and log["id"] == identity:
            pod, namespace, container = log.groups()[:3]
            return ContainerNames(container, pod, namespace)
    return None


def _pod_from_kubelet_logs(uid: str) -> ContainerNames | None:
    """Return the names of a pod from the name of its folder of logs."""
    for name in _listed(_KUBELET_POD_LOGS):
        pod = _KUBELET_POD.fullmatch(name)
        if pod is not None and _dashed(pod["uid"]) == uid:
            return ContainerNames(None, pod[2], pod[1])
    return None


def _listed(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir()]
    except OSError:
        return []


def _docker_names(document: object, labels: object) -> ContainerNames | None:
    name = _text(document, "Name")
    if name is None:
        return None
    names = _split_name(name.lstrip("/"))
    return ContainerNames(
        _text(labels, "io.kubernetes.container.name") or names.container,
        _text(labels, "io.kubernetes.pod.name") or names.pod,
        _text(labels, "io.kubernetes.pod.namespace") or names.namespace,
    )


def _split_name(name: str) -> ContainerNames:
    kubelet = _KUBELET_NAME.fullmatch(name)
    return ContainerNames(*kubelet.groups()) if kubelet is not None else ContainerNames(name)


def _docker_socket() -> Path:
    host = os.environ.get("DOCKER_HOST", "")
    return Path(host.removeprefix("unix://")) if host.startswith("unix://") else _DOCKER_SOCKET


def _docker_data_root() -> Path:
    return Path(_text(_read_json(_DOCKER_CONFIG), "data-root") or _DOCKER_DATA_ROOT)


def _read_json(file: Path) -> Any:
    try:
        with file.open("rb") as stream:
            return json.loads(stream.read(_MAX_ANSWER_BYTES))
    except (OSError, ValueError, RecursionError):
        return None


def _get(document: object, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _text(document: object, key: str) -> str | None:
    value = _get(document, key)
    return value if isinstance(value, str) and value else None
