"""The features of this kernel that the tracer builds on, and the cost of their absence.

Each check reads what the kernel shows about itself. No decision depends on a version number. A feature that
cannot be checked from here is `unknown`, not `missing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from tracer.errors import TracerError
from tracer.kernel.btf import VMLINUX, Btf
from tracer.kernel.capabilities import Credentials
from tracer.kernel.cgroups.cgroupfs import (
    ROOT_ID,
    Hierarchy,
    cgroup_id,
    descendants,
    memory_hierarchy,
    own_path,
)
from tracer.kernel.cgroups.containers import ContainerRef, identify
from tracer.kernel.cgroups.mounts import Mount, read_mounts
from tracer.kernel.naming.host_files import HOST_ROOT_VARIABLE
from tracer.kernel.naming.host_names import HostNames
from tracer.kernel.probes import UNREAD
from tracer.kernel.struct_header import why_unfit
from tracer.units import size

T = TypeVar("T")


class State(StrEnum):
    """The state of a feature: `degraded` is present in part, `unknown` cannot be checked from here."""

    OK = "ok"
    DEGRADED = "degraded"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Check:
    """One feature: its state, the cost of its absence, and the remedy; both are "" if the feature is ok.

    `area` is `machine`, or `tracer` for what the tracer adds to the machine.
    """

    name: str
    state: State
    detail: str
    cost: str = ""
    remedy: str = ""
    prevents_recording: bool = False
    area: str = "machine"


# The inode numbers of the initial namespaces (PROC_USER_INIT_INO etc., include/linux/proc_ns.h).
_INITIAL_NAMESPACES: Final = {"user": 0xEFFFFFFD, "pid": 0xEFFFFFFC, "cgroup": 0xEFFFFFFB}


def examine() -> list[Check]:
    """Return all checks of the running kernel, in reading order.

    Raises TracerError if there is no Linux kernel to check.
    """
    try:
        credentials = Credentials.own()
    except OSError:
        raise TracerError("no /proc here: tracing needs Linux; traces can be read anywhere") from None
    mounts = read_mounts()
    hierarchy = _found(memory_hierarchy)
    shows_root = isinstance(hierarchy, Hierarchy) and cgroup_id(hierarchy.mount) == ROOT_ID
    types = _found(Btf.load)
    return [
        kernel(),
        permissions(credentials),
        *capabilities(credentials),
        namespaces(_own_namespaces(Path("/proc/self/ns")), shows_root=shows_root),
        btf(types),
        lockdown(Path("/sys/kernel/security/lockdown"), mounts),
        memory_controller(hierarchy, can_be_made=_can_be_made(hierarchy)),
        pressure(Path("/proc/pressure/memory"), hierarchy),
        tracefs(mounts),
        *unread(types),
        swap(Path("/proc/swaps")),
        huge_pages(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        container_names(_containers(hierarchy), HostNames()),
    ]


def kernel() -> Check:
    """Report the release and architecture; no decision depends on them."""
    host = os.uname()
    return Check("kernel", State.OK, f"{host.sysname} {host.release}, {host.machine}")


def permissions(credentials: Credentials) -> Check:
    """Check the effective user, and the capabilities without which nothing can be recorded."""
    missing, user = credentials.missing_to_load(), credentials.user
    if missing:
        return Check(
            "permissions",
            State.MISSING,
            f"{f'user {user}' if user else 'root'} lacks {' and '.join(missing)}",
            "no BPF program can be loaded",
            "run it as root (sudo)" if user else _grant(missing),
            prevents_recording=True,
        )
    if user != 0:
        return Check(
            "permissions",
            State.MISSING,
            f"may load BPF programs, but as user {user}",
            "cgroups, and facts about processes of other users, are accessible to root only",
            "run it as root (sudo)",
            prevents_recording=True,
        )
    return Check("permissions", State.OK, "may load BPF programs")


def capabilities(credentials: Credentials) -> list[Check]:
    """Return a check, with the cost, for each missing capability that loading the programs does not need."""
    if permissions(credentials).prevents_recording:
        return []
    return [
        Check(name, State.DEGRADED, "not held", cost, _grant([name]))
        for capability, cost in credentials.losses()
        for name in [f"CAP_{capability.name}"]
    ]


def _grant(names: Sequence[str]) -> str:
    options = " ".join(f"--cap-add {name.removeprefix('CAP_')}" for name in names)
    return (
        f"start the container with {options}, or add {' '.join(names)} to CapabilityBoundingSet= of the unit"
    )


def namespaces(inodes: dict[str, int], *, shows_root: bool) -> Check:
    """Check that we are in the host's namespaces, by the inode numbers of /proc/self/ns/{user,pid,cgroup}.

    `shows_root`: the host's whole hierarchy is mounted, so that a cgroup namespace hides nothing.
    """
    own = [kind for kind, inode in inodes.items() if inode != _INITIAL_NAMESPACES[kind]]
    if own == ["cgroup"] and shows_root:
        return Check("namespaces", State.OK, "the host's, but for cgroups, and the host's are mounted")
    if "user" in own:
        return Check(
            "namespaces",
            State.MISSING,
            "in a user namespace of its own",
            "capabilities held in it do not count for BPF",
            "run it on the host, or in a container without a user namespace",
            prevents_recording=True,
        )
    if own:
        return Check(
            "namespaces",
            State.DEGRADED,
            f"in a {' and a '.join(own)} namespace of its own",
            "pids and cgroup paths in the trace are those of the host, not those seen in this namespace",
            "run it on the host, or start the container with --pid=host --cgroupns=host",
        )
    return Check("namespaces", State.OK, "the host's")


def btf(types: Btf | TracerError) -> Check:
    """Check for BTF, without which no program can read the kernel's structures."""
    if isinstance(types, TracerError):
        return Check(
            "BTF",
            State.MISSING,
            str(types),
            "no structure of the kernel can be read",
            "boot a kernel of the distribution: all current ones have BTF",
            prevents_recording=True,
        )
    if (unfit := why_unfit(types)) is not None:
        return Check(
            "BTF",
            State.MISSING,
            unfit,
            "the programs read structures that this kernel does not have",
            prevents_recording=True,
        )
    return Check("BTF", State.OK, f"{VMLINUX}, {size(VMLINUX.stat().st_size)}")


def lockdown(path: Path, mounts: list[Mount]) -> Check:
    """Check the lockdown mode (kernel_lockdown(7)): in `confidentiality`, BPF may not read kernel memory."""
    try:
        text = path.read_text("ascii")
    except OSError:
        if any(mount.fs_type == "securityfs" for mount in mounts):
            return Check("lockdown", State.OK, "this kernel has none")
        return Check(
            "lockdown",
            State.UNKNOWN,
            "securityfs is not mounted",
            "in the mode confidentiality no program can be loaded",
            f"mount -t securityfs securityfs {path.parent}",
        )
    mode = text.partition("[")[2].partition("]")[0]
    if mode == "confidentiality":
        return Check(
            "lockdown",
            State.MISSING,
            mode,
            "BPF programs may not read kernel memory",
            "boot with lockdown=integrity, or without Secure Boot",
            prevents_recording=True,
        )
    return Check("lockdown", State.OK, mode)


def memory_controller(hierarchy: Hierarchy | TracerError, *, can_be_made: bool) -> Check:
    """Check for the memory controller's hierarchy. `can_be_made`: we may make cgroups in it."""
    if isinstance(hierarchy, TracerError):
        return Check(
            "memory cgroups",
            State.MISSING,
            str(hierarchy),
            "there is no cgroup whose memory can be traced",
            prevents_recording=True,
        )
    found = f"v{hierarchy.version} at {hierarchy.mount}"
    if not can_be_made:
        return Check(
            "memory cgroups",
            State.DEGRADED,
            f"{found}; none can be made",
            "`record -- CMD`, `fit` and `lab` cannot run a command in a cgroup of its own",
            "run it on the host as root",
        )
    return Check("memory cgroups", State.OK, found)


def pressure(path: Path, hierarchy: Hierarchy | TracerError) -> Check:
    """Check for pressure stall information (Documentation/accounting/psi.rst); if it is off, a read fails."""
    try:
        path.read_text("ascii")
    except OSError as error:
        return Check(
            "PSI",
            State.MISSING,
            f"{path}: {error.strerror}",
            "samples have no time stalled for memory (the duration of reclaim is recorded all the same)",
            "boot with psi=1",
        )
    if isinstance(hierarchy, Hierarchy) and hierarchy.version == 1:
        return Check(
            "PSI",
            State.DEGRADED,
            "of the whole machine only",
            "samples have no time stalled for memory: cgroup v1 has no pressure of a cgroup",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
    return Check("PSI", State.OK, "of each cgroup")


def container_names(containers: Collection[ContainerRef], host: HostNames) -> Check:
    """Check that the names of the containers that run here are in files of the host."""
    name, root = "container names", host.files.root
    if not containers:
        return Check(name, State.OK, f"no container runs here; names are read from files below {root}")
    known = len(host.in_files(containers))
    detail = f"{known} of {len(containers)} containers have names in files below {root}"
    if known == len(containers):
        return Check(name, State.OK, detail)
    return Check(
        name,
        State.DEGRADED,
        detail,
        "the others have the names that a runtime's socket gives, or are shown by their ids",
        "run as root; in a pod, with hostPID, CAP_SYS_PTRACE and no AppArmor profile, or with the host's / "
        f"mounted at a place that {HOST_ROOT_VARIABLE} names",
    )


def _containers(hierarchy: Hierarchy | TracerError) -> list[ContainerRef]:
    """Return the containers that have a cgroup, each once."""
    if isinstance(hierarchy, TracerError):
        return []
    refs = (identify(hierarchy.path(directory)) for directory in descendants(hierarchy.mount))
    return [*{ref.container_id: ref for ref in refs if ref is not None and ref.container_id}.values()]


def _own_namespaces(folder: Path) -> dict[str, int]:
    """Return kind -> inode number of this process's namespaces.

    A kernel built without a kind of namespace has only the host's, which is left out.
    """
    found = {kind: folder / kind for kind in _INITIAL_NAMESPACES}
    return {kind: path.stat().st_ino for kind, path in found.items() if path.exists()}


def _can_be_made(hierarchy: Hierarchy | TracerError) -> bool:
    """Return whether `ephemeral_cgroup` may make a directory: at the root, or on v1 below our own cgroup."""
    if isinstance(hierarchy, TracerError):
        return False
    own = [hierarchy.directory(own_path(hierarchy))] if hierarchy.version == 1 else []
    return any(os.access(parent, os.W_OK) for parent in (hierarchy.mount, *own))


def _found(find: Callable[[], T]) -> T | TracerError:
    try:
        return find()
    except TracerError as error:
        return error


def tracefs(mounts: list[Mount]) -> Check:
    """Report tracefs for completeness: tracepoints are found by BTF and attached without it."""
    mounted = [mount.mount_point for mount in mounts if mount.fs_type == "tracefs"]
    return Check("tracefs", State.OK, f"{mounted[0] if mounted else 'not mounted'} (not needed)")


def unread(types: Btf | TracerError) -> Iterator[Check]:
    """Yield a line with the tracepoints that this kernel has and no signal uses, if there are any."""
    names = [name for name in UNREAD if isinstance(types, Btf) and types.tracepoint(name) is not None]
    if names:
        shown = ", ".join(f"{name} ({UNREAD[name]})" for name in names)
        yield Check("tracepoints unused", State.OK, shown)


def swap(path: Path) -> Check:
    """Report the swap areas in /proc/swaps; without any, anonymous memory cannot be reclaimed."""
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    sizes_kib = [int(line.split()[-3]) for line in lines[1:]]
    if not sizes_kib:
        return Check("swap", State.OK, "none: only page cache and slab can be reclaimed")
    return Check("swap", State.OK, f"{size(sum(sizes_kib) * 1024)} in {len(sizes_kib)} area(s)")


def huge_pages(path: Path) -> Check:
    """Report the mode of transparent huge pages, which are charged in units of 2 MiB."""
    try:
        mode = path.read_text("ascii").partition("[")[2].partition("]")[0]
    except OSError:
        mode = "this kernel has none"
    return Check("transparent huge pages", State.OK, mode)
