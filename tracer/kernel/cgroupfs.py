"""Where the memory controller's cgroups are: the hierarchy, its directories, and their ids.

A cgroup's id is the inode number of its directory (`css.cgroup->kn->id`; kernfs gives both the same number
since kernel 5.5), on v1 and v2 alike. Its path is relative to the mount, "/" first. A container's mount may
begin below the hierarchy's root: `Hierarchy.root` says where, as far as this process's cgroup
namespace shows it.
"""

from __future__ import annotations

import ctypes
import difflib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from tracer.errors import TracerError, UsageError
from tracer.kernel.containers import identify, lookup_name
from tracer.kernel.mounts import Mount, read_mounts

_FILEID_KERNFS = 0xFE  # include/linux/exportfs.h: eight bytes, the node's id
_MIN_ID_PREFIX = 6  # shorter prefixes of a container id are too often a word that means something else
_NEAR_MATCHES = 5
_WHILE_IT_RUNS = (
    " (a container has a cgroup only while it runs: to catch its start, trace the cgroup above it, "
    "as -c /docker, or everything)"
)


@dataclass(frozen=True)
class Hierarchy:
    """The mount of the hierarchy that the memory controller is attached to."""

    version: int
    mount: Path
    root: str

    def directory(self, path: str) -> Path:
        """The directory of the cgroup at `path`, which is relative to the mount."""
        return self.mount / path.lstrip("/")

    def path(self, directory: Path) -> str:
        """The cgroup path of a directory below the mount: "/" for the mount itself."""
        relative = directory.relative_to(self.mount).as_posix()
        return "/" if relative == "." else f"/{relative}"

    def visible_path(self, rooted_path: str) -> str | None:
        """From a path as /proc/PID/cgroup gives it to one relative to the mount; None: it is outside."""
        root = self.root.rstrip("/")
        if rooted_path == root or rooted_path.startswith(f"{root}/"):
            return rooted_path[len(root) :] or "/"
        return None


def memory_hierarchy() -> Hierarchy:
    """The hierarchy of the memory controller on this machine: v1, v2, or v1 beside a cgroup2 without memory.

    Raises TracerError where there is none: the controller is switched off, or its filesystem is not mounted.
    """
    controllers = Path("/proc/cgroups")  # a kernel without cgroups has no such file
    return find_hierarchy(read_mounts(), controllers.read_text("ascii") if controllers.exists() else "")


def find_hierarchy(mounts: list[Mount], cgroups: str) -> Hierarchy:
    """`memory_hierarchy` from given mounts and the text of /proc/cgroups (kernel/cgroup/cgroup-v1.c)."""
    with_memory = [
        Hierarchy(version, Path(mount.mount_point), mount.root)
        for mount in mounts
        if (version := _memory_version(mount)) is not None
    ]
    if not with_memory:
        raise TracerError(_why_no_hierarchy(cgroups))
    return min(with_memory, key=lambda hierarchy: hierarchy.version)


def own_path(hierarchy: Hierarchy, proc_cgroup: str | None = None) -> str:
    """The cgroup of this process in the memory controller's hierarchy, relative to the mount.

    `proc_cgroup` is the text of /proc/self/cgroup (cgroups(7)), read when not given.
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
    """The id by which the kernel program knows the cgroup of this directory."""
    return directory.stat().st_ino


def directory_of(hierarchy: Hierarchy, cgroup: int) -> Path | None:
    """The directory of a cgroup id without walking the tree; None: it is gone, or was never of this
    hierarchy.

    Opens the kernfs file handle of the id (fs/kernfs/mount.c, `kernfs_fh_to_dentry`); needs
    CAP_DAC_READ_SEARCH, and raises TracerError without it.
    """
    mount = os.open(hierarchy.mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handle = _FileHandle(8, _FILEID_KERNFS, cgroup)
        fd = _libc().open_by_handle_at(mount, ctypes.byref(handle), os.O_PATH | os.O_CLOEXEC)
        if fd < 0:
            _gone_or_raise(ctypes.get_errno())
            return None
    finally:
        os.close(mount)
    try:
        directory = Path(f"/proc/self/fd/{fd}").readlink()
    finally:
        os.close(fd)
    return directory if directory.is_relative_to(hierarchy.mount) and directory.is_dir() else None


def descendants(directory: Path) -> Iterator[Path]:
    """The cgroup itself and all below it, parents first; those that vanish meanwhile are left out."""
    for parent, children, _ in os.walk(directory):
        children.sort()
        yield Path(parent)


def resolve(hierarchy: Hierarchy, pattern: str) -> list[Path]:
    """The directories that a `-c` argument means, sorted; at least one.

    `pattern` is a path (of the directory, or relative to the hierarchy), the last part of a path, a
    container's name, its id or the first six or more digits of it, or a glob over any of these. In a glob
    over paths `*` also crosses "/". Raises UsageError that lists near matches when nothing fits, or the
    candidates when the beginning of an id fits several containers, or that says where memory is when the path
    is one of another controller's hierarchy.
    """
    literal = _literal_directory(hierarchy, pattern)
    if literal is not None:
        return [literal]
    _refuse_other_hierarchies(hierarchy, pattern)
    paths = [hierarchy.path(directory) for directory in descendants(hierarchy.mount)]
    matched = _match_paths(paths, pattern) or _match_containers(paths, pattern)
    if not matched:
        raise UsageError(_why_no_match(paths, pattern))
    return [hierarchy.directory(path) for path in sorted(matched)]


def _literal_directory(hierarchy: Hierarchy, pattern: str) -> Path | None:
    if not pattern or "\0" in pattern:
        raise UsageError("an empty cgroup name means nothing: give a path, a container or a glob")
    for candidate in (Path(pattern), hierarchy.directory(pattern)):
        directory = Path(os.path.normpath(candidate))
        if directory.is_absolute() and directory.is_relative_to(hierarchy.mount) and directory.is_dir():
            return directory
    return None


def _refuse_other_hierarchies(hierarchy: Hierarchy, pattern: str) -> None:
    """A cgroup of the same path in the memory controller's hierarchy is not taken by itself: managers keep
    the paths the same as a rule, but the two can hold different processes.
    """
    for mount in read_mounts():
        if mount.fs_type not in ("cgroup", "cgroup2") or _memory_version(mount) is not None:
            continue
        other = Hierarchy(1 if mount.fs_type == "cgroup" else 2, Path(mount.mount_point), mount.root)
        directory = Path(os.path.normpath(pattern))
        if not directory.is_relative_to(other.mount):
            continue
        namesake = hierarchy.directory(other.path(directory))
        hint = f", as -c {str(namesake)!r}" if namesake.is_dir() else ""
        raise UsageError(
            f"{pattern!r} is of a cgroup v{other.version} hierarchy without the memory controller, "
            f"which is on v{hierarchy.version} at {hierarchy.mount}: give a cgroup of that one{hint}"
        )


def _match_paths(paths: list[str], pattern: str) -> set[str]:
    if "/" in pattern:
        rooted = pattern if pattern.startswith("/") else f"/{pattern}"
        return {path for path in paths if fnmatchcase(path, rooted)}
    return {path for path in paths if _name(path) == pattern} or {
        path for path in paths if fnmatchcase(_name(path), pattern)
    }


def _match_containers(paths: list[str], pattern: str) -> set[str]:
    """Containers by id, by the beginning of an id, then by name (which costs a question to the runtime)."""
    containers = _containers(paths)
    by_id = {path for container, path in containers.items() if fnmatchcase(container, pattern)}
    if not by_id and len(pattern) >= _MIN_ID_PREFIX:
        by_id = {path for container, path in containers.items() if container.startswith(pattern)}
        if len(by_id) > 1:
            candidates = ", ".join(sorted(by_id)[:_NEAR_MATCHES])
            raise UsageError(f"container id {pattern!r} is ambiguous, give more of it: {candidates}")
    return by_id or {path for name, path in _container_names(containers) if fnmatchcase(name, pattern)}


def _containers(paths: list[str]) -> dict[str, str]:
    """Container id -> its topmost cgroup."""
    found: dict[str, str] = {}
    for path in paths:
        ref = identify(path)
        if ref is not None and ref.container_id is not None:
            found.setdefault(ref.container_id, path)
    return found


def container_names(paths: list[str]) -> list[tuple[str, str]]:
    """Return (name, topmost cgroup) of each container below `paths` whose runtime says a name."""
    return _container_names(_containers(paths))


def _container_names(containers: dict[str, str]) -> list[tuple[str, str]]:
    """(name, cgroup path) of the containers whose runtime says a name."""
    refs = [(identify(path), path) for path in containers.values()]
    return [
        (name, path)
        for ref, path in refs
        if ref is not None and (name := lookup_name(ref).container) is not None
    ]


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _why_no_match(paths: list[str], pattern: str) -> str:
    known = {_name(path): path for path in paths} | {path: path for path in paths}
    known |= dict(container_names(paths))
    near = [known[name] for name in difflib.get_close_matches(pattern, known, _NEAR_MATCHES, 0.5)]
    near += [path for path in paths if pattern in path]
    listed = ", ".join(repr(path)[1:-1] for path in list(dict.fromkeys(near))[:_NEAR_MATCHES])
    hint = f"near it: {listed}" if listed else f"there are {len(paths)} cgroups, none with a name like it"
    wait = "" if "/" in pattern else _WHILE_IT_RUNS
    return f"no cgroup or container matches {pattern!r}; {hint}{wait}"


def _gone_or_raise(error: int) -> None:
    if error not in (errno.ESTALE, errno.ENOENT, errno.ENODEV):
        raise TracerError(f"cannot open a cgroup by its id ({os.strerror(error)}): run as root")


def _why_no_hierarchy(cgroups: str) -> str:
    for line in cgroups.splitlines():
        fields = line.split()
        if fields[:1] == ["memory"] and fields[3:] == ["0"]:
            return "the memory controller is off: remove cgroup_disable=memory from the kernel's command line"
    return (
        "no mounted cgroup hierarchy has the memory controller: mount one, for example "
        "mount -t cgroup2 none /sys/fs/cgroup"
    )


def _memory_version(mount: Mount) -> int | None:
    """1 or 2: the cgroup version of a mount that has the memory controller; None for any other mount."""
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
    """struct file_handle (include/linux/fs.h) with room for a kernfs id."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("kernfs_id", ctypes.c_uint64),
    )


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
