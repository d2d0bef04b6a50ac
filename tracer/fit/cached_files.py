"""The files of a command, whose page cache is dropped before each run.

Page cache is charged to the cgroup that reads it first. If somebody has run a program before, its text is
charged to others, and the program would seem to need less memory than it needs in its own container.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.kernel.cgroups.cgroupfs import Hierarchy, descendants
from tracer.kernel.cgroups.ephemeral import member_pids

_MAPS_PATH: Final = 5  # address, permissions, offset, device, inode, path (proc_pid_maps(5))
_EMPTYING: Final = {1: "memory.force_empty", 2: "memory.high"}


def files_of(cgroup: Path) -> frozenset[str]:
    """Return the paths of the regular files that processes of a cgroup execute, map or have open now."""
    found = frozenset(
        path for below in descendants(cgroup) for pid in member_pids(below) for path in _files_of_process(pid)
    )
    return frozenset(path for path in found if _is_regular(path))


def drop_files(paths: Iterable[str]) -> None:
    """Drop the page cache of these files, whichever cgroup it is charged to, except mapped and dirty pages
    (generic_fadvise, mm/fadvise.c)."""
    for path in paths:
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def drop_charged(hierarchy: Hierarchy, cgroup: Path) -> None:
    """Drop the page cache that is charged to a cgroup whose processes have ended.

    Writing 0 makes the kernel reclaim as long as reclaim frees anything (mem_cgroup_force_empty of
    mm/memcontrol-v1.c, memory_high_write of mm/memcontrol.c).
    """
    with suppress(OSError):
        Path(cgroup, _EMPTYING[hierarchy.version]).write_text("0", encoding="ascii")


def _files_of_process(pid: int) -> Iterator[str]:
    with suppress(OSError):  # the process may end at any time
        for line in Path(f"/proc/{pid}/maps").read_text("utf-8", "surrogateescape").splitlines():
            fields = line.split(None, _MAPS_PATH)
            if len(fields) > _MAPS_PATH:
                yield fields[_MAPS_PATH]
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield str(Path(entry).readlink())


def _is_regular(path: str) -> bool:
    return path.startswith("/") and Path(path).is_file()
