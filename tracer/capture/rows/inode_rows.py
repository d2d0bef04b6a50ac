"""Rows of `inodes`: paths of files, from the names that the kernel has and the mounts of the acting
processes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from tracer.capture.bpf.ring import Records
from tracer.capture.rows.decode import text
from tracer.kernel.cgroups.mounts import Mounts, MountTable
from tracer.kernel.process.bounded_call import bounded
from tracer.kernel.process.mapped_ranges import read_maps
from tracer.stored_names import device_numbers, stored_device, stored_text

_OWN_MOUNT_NS: Final = Path("/proc/self/ns/mnt")


class InodeRows:
    """Rows of files. A path that is not known now is null; an earlier row of the file stays valid."""

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts
        self._mount_ns = _OWN_MOUNT_NS.stat().st_ino
        self._mapped: dict[int, _MappedFiles] = {}  # of a process, for one batch

    def rows_for(self, records: Records) -> list[dict[str, Any]]:
        """Return a row for each record."""
        if not len(records):
            return []
        own = self._mounts.own()
        self._mapped.clear()
        return [self._row(record, own) for record in records]

    def _row(self, record: np.void, own: MountTable) -> dict[str, Any]:
        path, kind, container_path = self._paths(record, own)
        is_block_device = stat.S_ISBLK(int(record["mode"]))
        return {
            "inode_id": int(record["inode_id"]),
            "dev": stored_device(int(record["dev"])),
            "ino": int(record["ino"]),
            "path": path and stored_text(path),
            "path_kind": kind,
            "container_path": container_path and stored_text(container_path),
            "rdev": stored_device(int(record["rdev"])) if is_block_device else None,
            "deleted": bool(record["nlink"] == 0),
            "fs_type": text(record["fs_type"]),
            "mode": int(record["mode"]),
            "size_bytes": int(record["size_bytes"]),
        }

    def _paths(self, record: np.void, own: MountTable) -> tuple[str | None, str | None, str | None]:
        """Return path, path_kind and container_path."""
        if record["fs_type"] == b"bdev":
            node = _device_node(stored_device(int(record["rdev"])))
            return node, node and "device", None
        if not record["depth"]:
            return None, None, None
        names = _names_from_root(record)
        if record["is_pseudo"]:
            return names[0], "kernel", None
        if record["truncated"]:
            return "…/" + "/".join(names), "filesystem", None
        path, device = "/" + "/".join(names), device_numbers(int(record["dev"]))
        host = self._mapped_name(record, device) or own.host_path(device, path)
        container = self._container_path(record, device, path, host)
        if host is not None:
            return host, "host", container
        return (container, "container", container) if container else (path, "filesystem", None)

    def _mapped_name(self, record: np.void, device: tuple[int, int]) -> str | None:
        """Return the path by which the acting process has mapped a file that has several names (hard links).

        None for other files, and for a process with mounts of its own, whose paths may differ from ours.
        """
        if record["nlink"] < 2 or int(record["mount_ns"]) != self._mount_ns:
            return None
        tgid, number = int(record["tgid"]), int(record["ino"])
        if tgid not in self._mapped:
            self._mapped[tgid] = _mapped_files(tgid)
        path = self._mapped[tgid].get((device, number))
        try:
            disk = f"device {device[0]}:{device[1]}"
            status = None if path is None else bounded(disk, os.lstat, path)
        except OSError:  # the name was removed, or its file system does not answer
            return None
        if path is None or status is None or status.st_ino != number:
            return None
        # A subvolume of Btrfs has another number in stat(2) than in /proc/PID/maps, where it is the kernel's.
        is_on_device = not device[0] or (os.major(status.st_dev), os.minor(status.st_dev)) == device
        return os.fsdecode(path) if is_on_device else None

    def _container_path(
        self, record: np.void, device: tuple[int, int], path: str, host: str | None
    ) -> str | None:
        """Return the path that the acting process sees: through an overlay where one shows the file."""
        tgids = (int(record["tgid"]), int(record["ppid"]), int(record["reaper_tgid"]))
        table = self._mounts.other(int(record["mount_ns"]), tgids, int(record["time_ns"]))
        if table is None:
            return None
        shown = table.host_path(device, path)
        layers = (name for name in (host, shown) if name is not None)
        return next((found for name in layers if (found := table.overlaid_path(name))), shown)


_MappedFiles: TypeAlias = dict[tuple[tuple[int, int], int], bytes]
"""(Device, inode number) -> path."""


def _mapped_files(tgid: int) -> _MappedFiles:
    """Return the files that a process has mapped; none if it is gone, or if it blocks who reads its
    mappings."""
    try:
        mapped = bounded(f"process {tgid}", read_maps, Path(f"/proc/{tgid}"))
    except OSError:
        return {}
    return {(one.device, one.inode): one.name for one in mapped if one.name.startswith(b"/")}


def _names_from_root(record: np.void) -> list[str]:
    names = bytes(record["path"])[: int(record["path_len"])].rstrip(b"\0").split(b"/")
    return [name.decode("utf-8", "surrogateescape") for name in reversed(names) if name]


def _device_node(device: str) -> str | None:
    """Return the default path of a block device (dev_uevent in drivers/base/core.c); None if it is gone."""
    try:
        lines = Path(f"/sys/dev/block/{device}/uevent").read_text("utf-8", "backslashreplace").splitlines()
    except OSError:
        return None
    return next(("/dev/" + line[len("DEVNAME=") :] for line in lines if line.startswith("DEVNAME=")), None)
