"""Mount tables, and the paths on the host of files that are known by their place in a filesystem.

A BPF program can name a file only within its filesystem (by `struct super_block`, and the dentries up to its
root). The mount table has the directory of the host that shows the filesystem. Format: proc_pid_mountinfo(5),
and show_mountinfo in fs/proc_namespace.c.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tracer.kernel.process.bounded_call import bounded

MOUNTINFO = Path("/proc/self/mountinfo")

_MOST_FDINFO_BYTES = 4096
_LAYER_OPTIONS = ("upperdir", "lowerdir", "lowerdir+", "datadir+")
_LAYER_END = re.compile(r"(?<!\\):+")
_NAMESPACES_KEPT = 128

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
_OCTAL_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo; `root` is the directory of the filesystem that is shown at `mount_point`."""

    mount_id: int
    parent_id: int
    device: tuple[int, int]
    root: str
    mount_point: str
    fs_type: str
    source: str
    super_options: frozenset[str]

    def layers(self) -> Iterator[str]:
        """Yield the directories that an overlay shows as one, as it was given them.

        Relative paths are left out, because the working directory of the overlay's maker is not known. Lower
        directories are separated by ":", and data-only directories by "::". Since 24e16e385f22 ("ovl: add
        support for appending lowerdirs one by one"), v6.7, each may be a separate option.
        """
        if self.fs_type != "overlay":
            return
        for option in self.super_options:
            name, _, value = option.partition("=")
            if name in _LAYER_OPTIONS:
                parts = [value] if name in ("upperdir", "lowerdir+", "datadir+") else _LAYER_END.split(value)
                yield from (part.replace("\\:", ":") for part in parts if part[:1] == "/")


def parse_mountinfo(text: bytes) -> list[Mount]:
    """Return the mounts in the text of a mountinfo file; lines of another form are left out."""
    return [mount for line in text.split(b"\n") if (mount := _parse_line(line)) is not None]


def read_mounts() -> list[Mount]:
    """Return the mounts of this process's namespace, in the kernel's order: later mounts come later."""
    return parse_mountinfo(MOUNTINFO.read_bytes())


def mount_id_of(information: str) -> int:
    """Return the mount of an open file, given its file in fdinfo (proc_pid_fdinfo(5)); -1: it was closed."""
    try:
        with open(information, "rb", buffering=0) as stream:  # noqa: PTH123  hot
            text = stream.read(_MOST_FDINFO_BYTES)
        return int(text.partition(b"mnt_id:")[2].split(maxsplit=1)[0])
    except (OSError, IndexError):
        return -1


def device_of(file: int) -> tuple[int, int]:
    """Return (major, minor) of the filesystem of an open file by its `s_dev`, which /proc/PID/maps and
    /proc/locks have.

    stat(2) has another device for a subvolume of Btrfs (btrfs_getattr in fs/btrfs/inode.c), and for a file
    that an overlay shows from another filesystem (ovl_map_dev_ino in fs/overlayfs/inode.c). It has to do for
    a mount that this process does not see.
    """
    start = b"%d " % mount_id_of(f"/proc/self/fdinfo/{file}")
    lines = MOUNTINFO.read_bytes().split(b"\n")
    mount = next((found for line in lines if line.startswith(start) and (found := _parse_line(line))), None)
    if mount is not None:
        return mount.device
    device = os.fstat(file).st_dev
    return os.major(device), os.minor(device)


class MountTable:
    """An index of mounts, for looking up the paths of files."""

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self._by_device: defaultdict[tuple[int, int], list[Mount]] = defaultdict(list)
        self._by_parent: defaultdict[int, list[Mount]] = defaultdict(list)
        known = {mount.mount_id: mount for mount in mounts}
        overlays: dict[str, Mount] = {}
        for mount in known.values():
            self._by_device[mount.device].append(mount)
            self._by_parent[mount.parent_id].append(mount)
            overlays.update(dict.fromkeys(mount.layers(), mount))
        self._by_layer = {_without_links(layer): mount for layer, mount in overlays.items()}
        # The parent of the namespace's root is a mount that is not in the table, or the root itself.
        self._roots = [
            mount
            for mount in known.values()
            if mount.mount_point == "/" and known.get(mount.parent_id, mount) is mount
        ]
        self._outermost = [mount for mount in known.values() if mount.parent_id not in known]

    def host_path(self, device: tuple[int, int], path_in_fs: str) -> str | None:
        """Return the path at which a file can be reached; None if no mount shows the file, or if other mounts
        hide it.

        `device` is (major, minor) of the filesystem's `s_dev`, and `path_in_fs` begins at the filesystem's
        own root, "/" first. If several mounts show the file, the mount with the deepest root is taken, then
        the earliest.
        """
        fitting = [mount for mount in self._by_device.get(device, ()) if _is_below(path_in_fs, mount.root)]
        for mount in sorted(fitting, key=lambda mount: -len(mount.root)):
            path = mount.mount_point.rstrip("/") + path_in_fs[len(mount.root.rstrip("/")) :] or "/"
            if self.mount_of(path) is mount:
                return path
        return None

    def overlaid_path(self, path: str) -> str | None:
        """Return the path at which an overlay of this table shows a file; None if no overlay does, or if
        other mounts hide the file.

        `path` is the path of the file for the overlay's maker, below the upper or a lower directory.
        """
        end = len(path)
        while self._by_layer and (end := path.rfind("/", 0, end)) > 0:
            if overlay := self._by_layer.get(path[:end]):
                return self.host_path(overlay.device, path[end:])
        return None

    def mount_of(self, path: str) -> Mount | None:
        """Return the mount of `path` (absolute, without symbolic links); None if the table does not have it.

        It is the mount in which a walk along the path ends, as path_lookupat (fs/namei.c) crosses mounts. The
        table lacks the mount of the root in a chroot(2) whose root is not a mount point (show_mountinfo).
        """
        starts = self._roots[-1:] or [each for each in self._outermost if _is_below(path, each.mount_point)]
        current = min(starts, key=lambda mount: len(mount.mount_point), default=None)
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


def _without_links(path: str) -> str:
    """Return a path without symbolic links, but as it is if its file system does not answer."""
    try:
        return str(bounded(path, os.path.realpath, path))
    except OSError:
        return path


class Mounts:
    """The mount tables by which the files of a recording get their paths.

    The table of this process's namespace is read again when the kernel reports a change (poll,
    proc_pid_mountinfo(5)). Tables of other namespaces are read from processes in them; their files are not
    kept open, because that would keep the mounts alive.
    """

    def __init__(self) -> None:
        self._own_ns = _namespace("self")
        self._mountinfo = MOUNTINFO.open("rb")
        self._changed = select.poll()
        self._changed.register(self._mountinfo, select.POLLPRI)
        self._own: MountTable | None = None
        self._others: OrderedDict[int, _Namespace] = OrderedDict()

    def close(self) -> None:
        self._mountinfo.close()

    def own(self) -> MountTable:
        """Return the mounts of this process's namespace as they are now."""
        if self._changed.poll(0) or self._own is None:
            self._own = MountTable(read_mounts())
        return self._own

    def other(self, mount_ns: int, tgids: tuple[int, ...], since_ns: int) -> MountTable | None:
        """Return the mounts of another namespace; None if it is our own, or if no process was in it long
        enough.

        The table is not older than `since_ns` (CLOCK_MONOTONIC) if one of the processes `tgids` is still in
        the namespace.
        """
        if mount_ns in (0, self._own_ns):
            return None
        known = self._others.setdefault(mount_ns, _Namespace())
        self._others.move_to_end(mount_ns)
        if len(self._others) > _NAMESPACES_KEPT:
            self._others.popitem(last=False)
        if known.read_ns < since_ns and known.gone != tgids:
            known.read(mount_ns, tgids)
        return known.table


@dataclass
class _Namespace:
    """A mount namespace as it was last read; `gone` are the processes from which it could not be read."""

    table: MountTable | None = None
    read_ns: int = 0
    gone: tuple[int, ...] = ()
    _mountinfo: bytes = b""

    def read(self, mount_ns: int, tgids: tuple[int, ...]) -> None:
        """Read the table from the first of these processes that is in the namespace."""
        read_ns = time.monotonic_ns()
        mountinfo = next((text for tgid in tgids if (text := _mountinfo_of(mount_ns, tgid))), b"")
        if not mountinfo:
            self.gone = tgids
            return
        if mountinfo != self._mountinfo:
            self.table = MountTable(parse_mountinfo(mountinfo))
        self.read_ns, self.gone, self._mountinfo = read_ns, (), mountinfo


def _namespace(process: str) -> int:
    """Return the number of a process's mount namespace; raises OSError if the process is gone."""
    return Path(f"/proc/{process}/ns/mnt").stat().st_ino


def _mountinfo_of(mount_ns: int, tgid: int) -> bytes:
    """Return the mountinfo of a process; b"" if it is no longer in that namespace."""
    try:
        mountinfo = Path(f"/proc/{tgid}/mountinfo").read_bytes()
        is_there = _namespace(str(tgid)) == mount_ns  # checked after reading: it may have left meanwhile
    except OSError:
        return b""
    return mountinfo if is_there else b""


def first_on_a_disk(directories: Iterable[Path]) -> Path | None:
    """Return the first of these directories that is writable and not known to be in memory; None without one.

    The root of a chroot may be missing in the mount table, and is assumed to be on a disk.
    """
    table = MountTable(read_mounts())
    for directory in directories:
        mount = table.mount_of(os.path.realpath(directory))
        is_in_memory = mount is not None and mount.fs_type in _IN_MEMORY
        if not is_in_memory and os.access(directory, os.W_OK | os.X_OK):
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
    """Return a field without the octal escapes of mangle_path (fs/seq_file.c), as for space and backslash."""
    plain = _OCTAL_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field)
    return plain.decode("utf-8", "surrogateescape")


def _is_below(path: str, directory: str) -> bool:
    return directory in ("/", path) or path.startswith(directory.rstrip("/") + "/")
