"""The container, pod or systemd unit of a cgroup.

The path of the cgroup has the runtime and the id, because each runtime names its cgroups by a fixed pattern.
Names that users gave are not in the path: `tracer.kernel.naming` finds them. None means unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal


@dataclass(frozen=True)
class ContainerRef:
    """The facts in a cgroup's path.

    `container_id` is None for a pod's own cgroup and for a plain systemd unit. `runtime` is None if several
    runtimes use this pattern. `namespace` is containerd's. `user` is the uid of the service manager that the
    cgroup is below: that user may have made the cgroup, under any name.
    """

    runtime: str | None = None
    container_id: str | None = None
    pod_uid: str | None = None
    namespace: str | None = None
    unit: str | None = None
    user: int | None = None


@dataclass(frozen=True)
class ContainerNames:
    """The names that users gave; `namespace` is the pod's namespace in Kubernetes. `image` is the image as
    the container was started with it, such as `docker.io/library/redis:7`."""

    container: str | None = None
    pod: str | None = None
    namespace: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Standing:
    """The place of a cgroup in nested containers.

    `below` is the path from the container's own cgroup, as the container sees it (`/system.slice/a.service`):
    a container that runs a service manager has limits of its own inside. It is empty for the container's own
    cgroup, and without a container. `around` is the id of the container around the innermost container or
    pod, such as a node of kind.
    """

    below: str = ""
    around: str | None = None


QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]
"""The class that Kubernetes gives a pod by its requests and limits."""

Lookup = Callable[[Collection[ContainerRef]], Mapping[ContainerRef, ContainerNames]]
"""A function that returns the names of containers and pods."""

EPHEMERAL_PREFIX: Final = "memcg-tracer-"
"""The begin of the names of the cgroups that we make: our process id and the user's name follow."""

_MADE_FOR: Final = re.compile(rf"(?<=/){re.escape(EPHEMERAL_PREFIX)}[0-9]+-")
_ID: Final = r"(?P<id>[0-9a-f]{64})"
_FULL_ID: Final = re.compile(r"[0-9a-f]{64}")
_LONG_ID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_ID_SHOWN: Final = 12
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
_OF_PODMAN: Final = "libpod_parent"
"""The cgroup in which podman's cgroupfs driver makes its own (podman, `libpod/container.go`). A bare id in it
belongs to a pod."""

_CONTAINERD_NAMESPACES: Final = frozenset({"k8s.io", "moby", "default"})
# The monitors that podman and CRI-O put beside a container, in a cgroup that has its id.
_MONITOR: Final = re.compile(rf"(?:crio|libpod)-conmon-{_ID}(?:\.scope)?")
# A kubelet in a cgroup of its own (--cgroup-root, as in kind) puts the name of its slice before "kubepods".
_SLICE: Final = r"(?:[^/:]{1,128}-)?kubepods(?:-besteffort|-burstable)?-"
_POD: Final = re.compile(rf"(?:{_SLICE})?pod{_UID}(?:\.slice)?(?::.*)?")
_POD_IN_TRIPLE: Final = re.compile(rf"{_SLICE}pod{_UID}\.slice:")
_BARE_ID: Final = re.compile(rf"{_ID}|(?P<ecs>{_ECS_ID.replace('?P<id>', '?:')})")
_OF_RUNTIMES: Final = frozenset({"", "ns", "container", "payload"})
"""The cgroups that runtimes make below a container's own for its processes: LXC
(`lxc.cgroup.dir.container.inner`), crun, systemd-nspawn."""

_MOST_PATHS: Final = 1024
"""The paths whose container is remembered: many kills are for one limit."""

# The kubelet's cgroups by QoS class (pkg/kubelet/cm/pod_container_manager_linux.go): directories, or slices.
_QOS: Final = re.compile(
    r"kubepods/(?:(?P<directory>besteffort|burstable)/)?pod|kubepods(?:-(?P<slice>besteffort|burstable))?-pod"
)
_QOS_NAMES: Final[Mapping[str | None, QosClass]] = {
    "besteffort": "BestEffort",
    "burstable": "Burstable",
    None: "Guaranteed",
}

_UNIT: Final = re.compile(r".+\.(?:service|scope|socket|mount|swap)")
_MANAGER: Final = re.compile(r"user@(?P<user>[0-9]{1,10})\.service")
_UNIT_ESCAPE: Final = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")


@lru_cache(maxsize=_MOST_PATHS)
def identify(path: str) -> ContainerRef | None:
    """Return the container, pod or unit of a cgroup path (relative to the mount); None if there is none.

    The innermost of nested containers is returned, even if it is a pod, as in a node of kind. A cgroup that a
    container made below its own belongs to that container.
    """
    ref = ContainerRef()
    parent = ""
    for component in path.split("/"):
        ref = _descend(ref, parent, component)
        parent = component
    return None if ref == ContainerRef() else ref


def outermost_pod(path: str) -> ContainerRef | None:
    """Return the outermost pod of a cgroup path, with the pod's own container; None if there is no pod.

    A container that may make cgroups can give one the name of any pod. Only the outer name is the kubelet's.
    """
    ref, parent = ContainerRef(), ""
    for component in path.split("/"):
        inner = _descend(ref, parent, component)
        is_nested = inner.pod_uid != ref.pod_uid or ref.container_id not in (None, inner.container_id)
        if ref.pod_uid is not None and is_nested:
            break
        ref, parent = inner, component
    return ref if ref.pod_uid is not None else None


@lru_cache(maxsize=_MOST_PATHS)
def standing(path: str) -> Standing:
    """Return the place of a cgroup relative to the innermost container or pod of its path."""
    ref, parent, around = ContainerRef(), "", None
    below: list[str] = []
    for component in path.split("/"):
        inner = _descend(ref, parent, component)
        if (inner.container_id, inner.pod_uid) != (ref.container_id, ref.pod_uid):
            around, below = ref.container_id or around, []
        elif ref.container_id is not None and (below or component not in _OF_RUNTIMES):
            below.append(component)
        ref, parent = inner, component
    return Standing("".join(f"/{component}" for component in below), around)


def qos_class(path: str) -> QosClass | None:
    """Return the QoS class of the innermost pod of a cgroup path; None if no kubelet made the path."""
    *_, found = [None, *_QOS.finditer(path)]
    return None if found is None else _QOS_NAMES[found["directory"] or found["slice"]]


def is_container_id(name: str) -> bool:
    """Return whether a name is the id of a container, which is safe in a file name and in a URL."""
    return _BARE_ID.fullmatch(name) is not None


def short_id(name: str) -> str:
    """Return an id as its runtime's tools show it (docker ps, crictl ps), and any other name unchanged."""
    return name[:_ID_SHOWN] if _FULL_ID.fullmatch(name) else name


def with_short_ids(path: str) -> str:
    """Return a path with the ids of containers shortened as `short_id` does."""
    return _LONG_ID.sub(lambda found: found[0][:_ID_SHOWN], path)


def _descend(ref: ContainerRef, parent: str, component: str) -> ContainerRef:
    """Return the facts of a path with one more component."""
    pod = _POD.fullmatch(component) or _POD_IN_TRIPLE.match(component)
    # Slices of systemd use "-" for nesting, so the kubelet writes "_" in them.
    uid = pod["uid"].replace("_", "-") if pod is not None else ref.pod_uid
    unit = _unescape_unit(component) if _UNIT.fullmatch(component) else ref.unit
    manager = _MANAGER.fullmatch(component)
    user = int(manager["user"]) if manager is not None else ref.user
    if _MONITOR.fullmatch(component):
        return ContainerRef(unit=unit, pod_uid=uid, user=user)
    for runtime, pattern in _SCOPES:
        scope = pattern.fullmatch(component)
        if scope is not None:
            return ContainerRef(runtime, scope["id"], uid, None, unit, user)
    bare = _BARE_ID.fullmatch(component)
    if (bare is not None and parent != _OF_PODMAN) or (component and _PARENTS.get(parent) == "lxc"):
        namespace = parent if parent in _CONTAINERD_NAMESPACES else None
        return ContainerRef(_PARENTS.get(parent), component, uid, namespace, unit, user)
    if pod is not None:
        return ContainerRef(pod_uid=uid, unit=unit, user=user)
    return ContainerRef(ref.runtime, ref.container_id, uid, ref.namespace, unit, user)


def _unescape_unit(name: str) -> str:
    r"""Return a unit's name without escapes such as `\x2d` (systemd-escape(1)); adjacent ones are UTF-8."""

    def decode(match: re.Match[str]) -> str:
        return bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8", "replace")

    return _UNIT_ESCAPE.sub(decode, name)


def shown_name(path: str, container: str | None, pod: str | None = None) -> str:
    """Return the container with its pod, else the last name of the path, with short ids, not escaped."""
    if container is not None:
        return container if pod is None else f"{pod}/{container}"
    return with_short_ids(path.rstrip("/").rpartition("/")[2]) or "/"


def as_named(path: str) -> str:
    """Return the path of a cgroup with the name that its user gave in place of that of an ephemeral cgroup:
    `/web` for `/memcg-tracer-4711-web`. Other paths stay as they are."""
    return _MADE_FOR.sub("", path)
