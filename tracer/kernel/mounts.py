"""The mounts of this process's namespace, and from a file's place in its filesystem to its path on the host.

The kernel program can name a file only within its filesystem (`struct super_block` and the chain of
dentries up to its root): which directory of the host that is, only the mount table knows. Format:
proc_pid_mountinfo(5), and `show_mountinfo` in fs/proc_namespace.c.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
_OCTAL_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo; `root` is the directory within the filesystem that is visible at
    `mount_point`.
    """

    mount_id: int
    parent_id: int
    device: tuple[int, int]
    root: str
    mount_point: str
    fs_type: str
    source: str
    super_options: frozenset[str]


def parse_mountinfo(text: bytes) -> list[Mount]:
    """The mounts that `text`, the content of a mountinfo file, describes; lines of another form are left
    out.
    """
    return [mount for line in text.split(b"\n") if (mount := _parse_line(line)) is not None]


def read_mounts() -> list[Mount]:
    """The mounts of this process's namespace, in the kernel's order: what was mounted later comes later."""
    return parse_mountinfo(MOUNTINFO.read_bytes())


class MountTable:
    """Paths of the host for files known by filesystem; indexed once, for many look-ups."""

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self._by_device: defaultdict[tuple[int, int], list[Mount]] = defaultdict(list)
        self._by_parent: defaultdict[int, list[Mount]] = defaultdict(list)
        known = {mount.mount_id: mount for mount in mounts}
        for mount in known.values():
            self._by_device[mount.device].append(mount)
            self._by_parent[mount.parent_id].append(mount)
        # The root of the namespace hangs below a mount that is not in the table, or below itself.
        self._roots = [
            mount
            for mount in known.values()
            if mount.mount_point == "/" and known.get(mount.parent_id, mount) is mount
        ]

    def host_path(self, device: tuple[int, int], path_in_fs: str) -> str | None:
        """The path at which `path_in_fs` (from the filesystem's own root, "/" first) is reachable here.

        `device` is (major, minor) of the filesystem's `s_dev`. Of several mounts the one that shows the file
        by the deepest root is taken, then the earliest. None: no mount shows it, or others are mounted over
        it.
        """
        fitting = [mount for mount in self._by_device.get(device, ()) if _is_below(path_in_fs, mount.root)]
        for mount in sorted(fitting, key=lambda mount: -len(mount.root)):
            path = _join(mount.mount_point, path_in_fs[len(mount.root.rstrip("/")) :])
            if self.mount_of(path) is mount:
                return path
        return None

    def mount_of(self, path: str) -> Mount | None:
        """The mount that `path` (absolute, without symbolic links) is in; None only for an empty table.

        It is the one in which a walk from "/" along `path` ends, as `path_lookupat` (fs/namei.c) crosses
        them.
        """
        current = self._roots[-1] if self._roots else None
        visited: set[int] = set()
        while current is not None and current.mount_id not in visited:
            visited.add(current.mount_id)
            crossed = [
                mount
                for mount in self._by_parent[current.mount_id]
                if mount.mount_id not in visited and _is_below(path, mount.mount_point)
            ]
            if not crossed:
                return current
            current = min(crossed, key=lambda mount: len(mount.mount_point))
        return current


def first_on_a_disk(directories: Iterable[Path]) -> Path | None:
    """The first of these that can be written and is not kept in memory; None: none is."""
    table = MountTable(read_mounts())
    for directory in directories:
        mount = table.mount_of(os.path.realpath(directory))
        if mount is not None and mount.fs_type not in _IN_MEMORY and os.access(directory, os.W_OK | os.X_OK):
            return directory
    return None


def _parse_line(line: bytes) -> Mount | None:
    head, separator, tail = line.partition(b" - ")
    fields, filesystem = head.split(b" "), tail.split(b" ", 2)
    if not separator or len(fields) < 6 or len(filesystem) < 3:
        return None
    try:
        mount_id, parent_id = int(fields[0]), int(fields[1])
        major, minor = (int(number) for number in fields[2].split(b":"))
    except ValueError:
        return None
    return Mount(
        mount_id,
        parent_id,
        (major, minor),
        root=_unescape(fields[3]),
        mount_point=_unescape(fields[4]),
        fs_type=_unescape(filesystem[0]),
        source=_unescape(filesystem[1]),
        super_options=frozenset(_unescape(option) for option in filesystem[2].split(b",")),
    )


def _unescape(field: bytes) -> str:
    """Undo `mangle_path` (fs/seq_file.c): space, tab, newline and backslash stand as three octal digits."""
    plain = _OCTAL_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field)
    return plain.decode("utf-8", "surrogateescape")


def _is_below(path: str, directory: str) -> bool:
    return directory in ("/", path) or path.startswith(directory.rstrip("/") + "/")


def _join(mount_point: str, rest: str) -> str:
    return (mount_point.rstrip("/") + rest) or "/"
