"""The hierarchy of the memory controller, the directories of its cgroups, and their ids.

On v1 and v2, a cgroup's id is the inode number of its directory: kernfs uses one number for both
(`css.cgroup->kn->id`) since 40430452fd5d ("kernfs: use 64bit inos if ino_t is 64bit"), v5.5. A cgroup's path
is relative to the mount, "/" first. A container's mount may begin below the root of the hierarchy, at
`Hierarchy.root`, as far as the cgroup namespace of this process shows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tracer.errors import TracerError
from tracer.kernel.cgroups.mounts import Mount, read_mounts

ROOT_ID = 1
"""The id of the root of each hierarchy."""


@dataclass(frozen=True)
class Hierarchy:
    """The mount of the memory controller's hierarchy; `options` are those of its filesystem."""

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
    """Return what `memory_hierarchy` does, for these mounts and this text of /proc/cgroups."""
    with_memory = [
        Hierarchy(version, Path(mount.mount_point), _root(mount), mount.super_options)
        for mount in mounts
        if (version := memory_version(mount)) is not None
    ]
    if not with_memory:
        raise TracerError(_why_no_hierarchy(cgroups))
    return min(with_memory, key=lambda hierarchy: hierarchy.version)


def _root(mount: Mount) -> str:
    """Return the cgroup at the top of a mount. A cgroup namespace (a pod has one on v2) shows the root of the
    host's hierarchy as "/../..", but its inode number is the same everywhere (cgroup_setup_root in
    kernel/cgroup/cgroup.c)."""
    with suppress(OSError):
        if cgroup_id(Path(mount.mount_point)) == ROOT_ID:
            return "/"
    return mount.root


def count_cgroups(hierarchy: Hierarchy, controllers: str | None = None) -> int:
    """Return the number of cgroups of the hierarchy; on v1, removed ones that hold memory are included.

    0: it is not known. `controllers` is the text of /proc/cgroups, which is read if it is not given.
    """
    with suppress(OSError, ValueError):
        if hierarchy.version == 1:
            text = Path("/proc/cgroups").read_text("ascii") if controllers is None else controllers
            rows = (line.split() for line in text.splitlines())
            return next((int(row[2]) for row in rows if row[:1] == ["memory"]), 0)
        stat = (hierarchy.mount / "cgroup.stat").read_text("ascii").split()
        return int(stat[stat.index("nr_descendants") + 1]) + 1
    return 0


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


class Walked(NamedTuple):
    """A cgroup that a walk found; `parent_id` is None for the mount."""

    path: str
    id: int
    parent_id: int | None


def walk(hierarchy: Hierarchy, path: str = "/", begins: bytes = b"") -> Iterator[Walked]:
    """Yield the cgroup at `path` and all cgroups below it, parents first.

    Children of `path` whose names do not begin with `begins` are left out, and so are cgroups that are
    removed meanwhile.
    """
    prefix = "" if path == "/" else path
    with suppress(OSError):
        top = hierarchy.directory(path)
        parent_id = None if path == "/" else cgroup_id(top.parent)
        for below, number, parent in _subtree(os.fspath(top), begins):
            yield Walked(prefix + below or "/", number, parent_id if parent is None else parent)


def descendants(directory: Path) -> Iterator[Path]:
    """Yield the directories of a cgroup and of all cgroups below it, parents first.

    Cgroups that are removed meanwhile are left out.
    """
    for below, _, _ in _subtree(os.fspath(directory)):
        yield Path(f"{directory}{below}")


def _subtree(top: str, begins: bytes = b"") -> Iterator[tuple[str, int, int | None]]:
    """Yield (path below `top`, id, parent's id) of `top` and of all directories below it; the parent of `top`
    is None.

    The id of a child comes with its name: kernfs_fop_readdir() in fs/kernfs/dir.c gives kernfs_ino(), as
    stat(2) does.
    """
    try:
        waiting: list[tuple[str, int, int | None]] = [("", cgroup_id(Path(top)), None)]
    except OSError:
        return
    while waiting:
        below, number, _ = one = waiting.pop()
        try:
            with os.scandir(top + below) as entries:
                children = [
                    (f"{below}/{entry.name}", entry.inode(), number)
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                    and (below or not begins or os.fsencode(entry.name).startswith(begins))
                ]
        except OSError:
            continue
        yield one
        waiting += sorted(children, reverse=True)


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
