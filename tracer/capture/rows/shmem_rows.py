"""Rows of `shmem_files`: the files of shared memory of the processes whose shared memory grew.

They are files of tmpfs, memfd, System V and shared anonymous memory that a process has mapped or open.
/proc/PID/map_files and /proc/PID/fd lead to the files themselves, whether they have a name or not: stat(2)
gives the size of a file, and its allocated blocks, in memory or in swap (shmem_getattr in mm/shmem.c). It is
not called for a file of another file system, whose server might never answer.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from tracer.capture.bpf.ring import Records
from tracer.enumerations import CATEGORY
from tracer.kernel.cgroups.mounts import mount_id_of, parse_mountinfo
from tracer.kernel.process.bounded_call import bounded
from tracer.kernel.process.mapped_ranges import read_maps
from tracer.stored_names import stored_path

Kind = Literal["anonymous", "sysv", "memfd", "tmpfs"]

_Key = tuple[tuple[int, int], int]  # device, inode number
_Place = int | tuple[int, int]  # the id of a mount, or a device

_PROC: Final = Path("/proc")
_BLOCK_BYTES: Final = 512  # st_blocks, stat(2)
_MOST_FILES: Final = 256
_MOST_DESCRIPTORS: Final = 2048  # 5 us for a socket, 20 us for a file
_DELETED: Final = " (deleted)"
_KERNELS_NAMES: Final[tuple[tuple[str, Kind], ...]] = (
    ("/dev/zero", "anonymous"),  # shmem_zero_setup() in mm/shmem.c
    ("/SYSV", "sysv"),  # newseg() in ipc/shm.c
    ("/memfd:", "memfd"),  # mm/memfd.c
)
"""The names that the kernel gives to the files of its own mount of tmpfs."""


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file of shared memory as a process has it. `device` and `inode` identify it.

    `held_bytes`: its allocated pages, in memory or in swap. `is_mapped`: it is mapped, and not only open.
    """

    kind: Kind
    name: str
    device: tuple[int, int]
    inode: int
    size_bytes: int
    held_bytes: int
    is_mapped: bool


class SharedFiles:
    """Reads the files of shared memory of processes."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._of_kernel, mount_id = _of_memfd()
        self._of_kernel_places: dict[_Place, bool] = {mount_id: True, _numbers(self._of_kernel): True}

    def of_process(self, tgid: int) -> list[SharedFile]:
        """Return each file once, mapped ones first; empty if the process has ended, or has none."""
        found: dict[_Key, SharedFile] = {}
        process = self._proc / str(tgid)
        for what, read in (("mappings", self._mapped), ("open files", self._opened)):
            with suppress(OSError):
                for file in bounded(f"the {what} of process {tgid}", read, process):
                    found.setdefault((file.device, file.inode), file)
        return list(found.values())

    def named(self, known: SharedFile, tgid: int) -> SharedFile | None:
        """Return a file on tmpfs that a process had, as it is now; None if its name now leads to another
        file, or to none."""
        with suppress(OSError):
            # The name is the process's, and may lead anywhere here.
            status = bounded(f"a file of process {tgid}", Path(known.name).stat)
            if (_numbers(status.st_dev), status.st_ino) == (known.device, known.inode):
                return replace(
                    known,
                    size_bytes=status.st_size,
                    held_bytes=status.st_blocks * _BLOCK_BYTES,
                    is_mapped=False,
                )
        return None

    def _mapped(self, process: Path) -> list[SharedFile]:
        """Return the files on tmpfs that are behind shared mappings."""
        is_on_tmpfs = self._mounts_of(process)
        found = (
            process / "map_files" / one.place
            for one in read_maps(process)
            if one.permissions.endswith("s") and is_on_tmpfs(one.device)
        )
        return self._files(found, is_mapped=True)

    def _opened(self, process: Path) -> list[SharedFile]:
        """Return the open files on tmpfs (proc_pid_fdinfo(5))."""
        is_on_tmpfs = self._mounts_of(process)

        def found() -> Iterator[Path]:
            with os.scandir(process / "fd") as entries:
                for entry in islice(entries, _MOST_DESCRIPTORS):
                    if _has_path(entry) and is_on_tmpfs(mount_id_of(f"{process}/fdinfo/{entry.name}")):
                        yield Path(entry)

        return self._files(found(), is_mapped=False)

    def _mounts_of(self, process: Path) -> Callable[[_Place], bool]:
        """Return a function that tells whether a device or a mount is of tmpfs, as far as the process or
        we see its mount."""
        known = _tmpfs((process / "mountinfo").read_bytes()) | self._of_kernel_places

        def is_on_tmpfs(place: _Place) -> bool:
            if place not in known:
                ours = _tmpfs((self._proc / "self" / "mountinfo").read_bytes())
                known[place] = ours.get(place, False)
            return known[place]

        return is_on_tmpfs

    def _files(self, links: Iterable[Path], *, is_mapped: bool) -> list[SharedFile]:
        found = []
        for link in islice(links, _MOST_FILES):
            with suppress(OSError):
                found.append(self._file(link, link.stat(), is_mapped=is_mapped))
        return found

    def _file(self, link: Path, status: os.stat_result, *, is_mapped: bool) -> SharedFile:
        name = str(link.readlink()).removesuffix(_DELETED)
        kinds = _KERNELS_NAMES if status.st_dev == self._of_kernel else ()
        return SharedFile(
            kind=next((kind for start, kind in kinds if name.startswith(start)), "tmpfs"),
            name=stored_path(name),
            device=_numbers(status.st_dev),
            inode=status.st_ino,
            size_bytes=status.st_size,
            held_bytes=status.st_blocks * _BLOCK_BYTES,
            is_mapped=is_mapped,
        )


@lru_cache(maxsize=16)  # most processes see the same mounts at each look
def _tmpfs(mountinfo: bytes) -> dict[_Place, bool]:
    """Return whether each mount id and device is of tmpfs."""
    return {
        place: mount.fs_type == "tmpfs"
        for mount in parse_mountinfo(mountinfo)
        for place in (mount.mount_id, mount.device)
    }


def _has_path(entry: os.DirEntry[str]) -> bool:
    """Return whether an open file has a path, as no socket has: to ask for that is cheap."""
    try:
        return os.readlink(entry).startswith("/")  # noqa: PTH115  hot
    except OSError:  # it was closed
        return False


def _numbers(device: int) -> tuple[int, int]:
    return os.major(device), os.minor(device)


def _of_memfd() -> tuple[int, int]:
    """Return the device and the id of the kernel's own mount of tmpfs."""
    file = os.memfd_create("memcg-tracer")
    try:
        return os.fstat(file).st_dev, mount_id_of(f"{_PROC}/self/fdinfo/{file}")
    finally:
        os.close(file)


_SHMEM: Final = CATEGORY.number("shmem")
_LEAST_GROWTH_BYTES: Final = 1 << 20
_GROWTH_DIVISOR: Final = 8  # a cgroup is looked at again when its shared memory has grown by an eighth
_PROCESSES_KEPT: Final = 8
_CGROUPS_KEPT: Final = 4096
_FILES_KEPT: Final = 64


@dataclass
class _Grown:
    """The shared memory of a cgroup since the recording began, its growth since the last look, the processes
    that were charged for it last, and the files on tmpfs that were seen, each with a process that had it."""

    level_bytes: int = 0
    unseen_bytes: int = 0
    tgids: OrderedDict[int, None] = field(default_factory=OrderedDict)
    on_tmpfs: dict[_Key, tuple[int, SharedFile]] = field(default_factory=dict)


class ShmemRows:
    """Looks at the files of shared memory when the ledger shows that the shared memory of a cgroup has grown.

    `files` are read from /proc at most once for each eighth by which the cgroup grows. So a row can be older
    than the file's last growth, but not by much.
    """

    def __init__(self, files: SharedFiles) -> None:
        self._files = files
        self._cgroups: OrderedDict[int, _Grown] = OrderedDict()

    def take(
        self, charges: Records, clock_offset_ns: int, *, is_at_kill: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Take records of `charge`; yield rows of the looks due: at a kill, at each cgroup with growth."""
        grown = charges["delta_bytes"][:, _SHMEM]
        for row in np.flatnonzero(grown).tolist():
            self._add(int(charges["cgroup_id"][row]), int(charges["tgid"][row]), int(grown[row]))
        for cgroup_id, cgroup in self._cgroups.items() if grown.any() or is_at_kill else ():
            due = max(_LEAST_GROWTH_BYTES, cgroup.level_bytes // _GROWTH_DIVISOR)
            if cgroup.unseen_bytes >= (1 if is_at_kill else due):
                cgroup.unseen_bytes = 0
                yield from self._look(cgroup_id, cgroup, clock_offset_ns)

    def _add(self, cgroup_id: int, tgid: int, bytes_: int) -> None:
        cgroup = self._cgroups.setdefault(cgroup_id, _Grown())
        self._cgroups.move_to_end(cgroup_id)
        if len(self._cgroups) > _CGROUPS_KEPT:
            self._cgroups.popitem(last=False)
        cgroup.level_bytes += bytes_
        if bytes_ > 0 and tgid:
            cgroup.unseen_bytes += bytes_
            cgroup.tgids[tgid] = None
            cgroup.tgids.move_to_end(tgid)
            if len(cgroup.tgids) > _PROCESSES_KEPT:
                cgroup.tgids.popitem(last=False)

    def _look(self, cgroup_id: int, cgroup: _Grown, clock_offset_ns: int) -> Iterator[dict[str, Any]]:
        seen: dict[_Key, tuple[int, SharedFile]] = {}
        for tgid in reversed(cgroup.tgids):
            for file in self._files.of_process(tgid):
                seen.setdefault((file.device, file.inode), (tgid, file))
        for key, (tgid, known) in cgroup.on_tmpfs.items():
            if key not in seen and (now := self._files.named(known, tgid)) is not None:
                seen[key] = (tgid, now)
        on_tmpfs = [(key, one) for key, one in seen.items() if one[1].kind == "tmpfs"]
        cgroup.on_tmpfs = dict(on_tmpfs[:_FILES_KEPT])
        for tgid, file in seen.values():
            if file.held_bytes or file.is_mapped:
                yield {
                    "time": time.monotonic_ns() + clock_offset_ns,
                    "cgroup_id": cgroup_id,
                    "tgid": tgid,
                    "kind": file.kind,
                    "name": file.name,
                    "dev": "{}:{}".format(*file.device),
                    "ino": file.inode,
                    "size_bytes": file.size_bytes,
                    "held_bytes": file.held_bytes,
                    "is_mapped": file.is_mapped,
                }
