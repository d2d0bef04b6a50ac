"""The hierarchy of the memory controller, the directories of its cgroups, and their ids.

On v1 and v2, a cgroup's id is the inode number of its directory: kernfs uses one number for both
(`css.cgroup->kn->id`) since 40430452fd5d ("kernfs: use 64bit inos if ino_t is 64bit"), v5.5. A cgroup's path
is relative to the mount, "/" first. A container's mount may begin below the root of the hierarchy, at
`Hierarchy.root`, as far as the cgroup namespace of this process shows it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tracer.errors import TracerError
from tracer.kernel.cgroups.mounts import Mount, read_mounts

_FILEID_KERNFS = 0xFE  # a handle of eight bytes, the node's id (include/linux/exportfs.h)
ROOT_ID = 1
"""The id of the root of each hierarchy."""

_GONE = frozenset({errno.ESTALE, errno.ENOENT, errno.ENODEV})


@dataclass(frozen=True)
class Hierarchy:
    """The mount of the hierarchy that has the memory controller; `options` are those of its filesystem."""

    version: int
    mount: Path
    root: str
    options: frozenset[str] = field(default=frozenset(), compare=False)

    def directory(self, path: str) -> Path:
        """Return the directory of the cgroup at `path`, which is relative to the mount."""
        return self.mount / path.lstrip("/")

    def path(self, directory: Path) -> str:
        """Return the cgroup path of a directory below the mount; "/" for the mount itself."""
        relative = directory.relative_to(self.mount).as_posix()
        return "/" if relative == "." else f"/{relative}"

    def visible_path(self, rooted_path: str) -> str | None:
        """Return a path of /proc/PID/cgroup relative to the mount; None if it is outside of the mount."""
        root = self.root.rstrip("/")
        if rooted_path == root or rooted_path.startswith(f"{root}/"):
            return rooted_path[len(root) :] or "/"
        return None


def memory_hierarchy() -> Hierarchy:
    """Return the hierarchy of the memory controller on this machine: v1, v2, or v1 next to a cgroup2 without
    memory.

    Raises TracerError if there is none: the controller is switched off, or its filesystem is not mounted.
    """
    controllers = Path("/proc/cgroups")  # a kernel without cgroups has no such file
    return find_hierarchy(read_mounts(), controllers.read_text("ascii") if controllers.exists() else "")


def find_hierarchy(mounts: list[Mount], cgroups: str) -> Hierarchy:
    """Return `memory_hierarchy` for given mounts and text of /proc/cgroups (kernel/cgroup/cgroup-v1.c)."""
    with_memory = [
        Hierarchy(version, Path(mount.mount_point), _root(mount), mount.super_options)
        for mount in mounts
        if (version := memory_version(mount)) is not None
    ]
    if not with_memory:
        raise TracerError(_why_no_hierarchy(cgroups))
    return min(with_memory, key=lambda hierarchy: hierarchy.version)


def _root(mount: Mount) -> str:
    """Return the cgroup that a mount shows first. A cgroup namespace (a pod has one on v2) shows the root of
    the host's hierarchy as "/../..", but its inode number is the same everywhere (cgroup_setup_root in
    kernel/cgroup/cgroup.c).
    """
    with suppress(OSError):
        if cgroup_id(Path(mount.mount_point)) == ROOT_ID:
            return "/"
    return mount.root


def own_path(hierarchy: Hierarchy, proc_cgroup: str | None = None) -> str:
    """Return the cgroup of this process in the memory controller's hierarchy, relative to the mount.

    `proc_cgroup` is the text of /proc/self/cgroup (cgroups(7)), which is read if it is not given.
    """
    text = Path("/proc/self/cgroup").read_text("utf-8") if proc_cgroup is None else proc_cgroup
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if (hierarchy.version == 1 and "memory" in controllers.split(",")) or (
            hierarchy.version == 2 and number == "0"
        ):
            return hierarchy.visible_path(path) or path
    raise TracerError("this process is in no memory cgroup: /proc/self/cgroup does not name the controller")


def cgroup_id(directory: Path) -> int:
    """Return the id of the cgroup of a directory, as BPF programs read it."""
    return directory.stat().st_ino


def directory_of(hierarchy: Hierarchy, cgroup: int) -> Path | None:
    """Return the directory of a cgroup id; None if this hierarchy has no such cgroup now.

    Opens the kernfs file handle of the id (kernfs_fh_to_dentry, fs/kernfs/mount.c). That takes
    CAP_DAC_READ_SEARCH, which also opens every file of the host; without it, the tree is walked.
    """
    mount = os.open(hierarchy.mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handle = _FileHandle(8, _FILEID_KERNFS, cgroup)
        fd = _libc().open_by_handle_at(mount, ctypes.byref(handle), os.O_PATH | os.O_CLOEXEC)
        if fd < 0:
            return None if ctypes.get_errno() in _GONE else _walked_to(hierarchy, cgroup)
    finally:
        os.close(mount)
    try:
        directory = Path(f"/proc/self/fd/{fd}").readlink()
    finally:
        os.close(fd)
    return directory if directory.is_relative_to(hierarchy.mount) and directory.is_dir() else None


def _walked_to(hierarchy: Hierarchy, cgroup: int) -> Path | None:
    for directory in descendants(hierarchy.mount):
        with suppress(FileNotFoundError):
            if cgroup_id(directory) == cgroup:
                return directory
    return None


def descendants(directory: Path) -> Iterator[Path]:
    """Yield the directory of a cgroup and those of all cgroups below it, parents first.

    Cgroups that are removed meanwhile are left out.
    """
    for parent, children, _ in os.walk(directory):
        children.sort()
        yield Path(parent)


def _why_no_hierarchy(cgroups: str) -> str:
    for line in cgroups.splitlines():
        fields = line.split()
        if fields[:1] == ["memory"] and fields[3:] == ["0"]:
            return "the memory controller is off: remove cgroup_disable=memory from the kernel's command line"
    return (
        "no mounted cgroup hierarchy has the memory controller: mount one, for example "
        "mount -t cgroup2 none /sys/fs/cgroup"
    )


def memory_version(mount: Mount) -> int | None:
    """Return the cgroup version (1 or 2) of a mount with the memory controller; None for any other mount."""
    if mount.fs_type == "cgroup" and "memory" in mount.super_options:
        return 1
    if mount.fs_type == "cgroup2" and "memory" in _words(Path(mount.mount_point, "cgroup.controllers")):
        return 2
    return None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except OSError:
        return []


class _FileHandle(ctypes.Structure):
    """struct file_handle (include/linux/fs.h) with space for a kernfs id."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("kernfs_id", ctypes.c_uint64),
    )


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
