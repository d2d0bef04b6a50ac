"""Memory of a process that is not in swap, and the strings of a process that are not.

Who reads memory of another process brings back what is swapped out (access_remote_vm() in mm/memory.c), and
the kernel charges it to the cgroup that had it (mem_cgroup_swapin_charge_folio() in mm/memcontrol.c). If that
is at its limit, the reader causes reclaim or a kill. /proc/PID/cmdline and environ do the same. Therefore
nothing is read that is in swap when it is looked at. The kernel charges pages of files to their reader.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

_IS_SWAPPED: Final = 1 << 62  # Documentation/admin-guide/mm/pagemap.rst
_ENTRY_BYTES: Final = 8
_START: Final = 19
_AREAS: Final = slice(45, 49)
"""Places in /proc/PID/stat behind the name: `starttime`; `arg_start` to `env_end` (proc_pid_stat(5))."""


def check_resident(pagemap_fd: int, address: int, size: int) -> None:
    """Raise OSError if a page of [address, address + size) is in swap, or if the kernel does not say it.

    `pagemap_fd`: of /proc/PID/pagemap.
    """
    first, behind = address // mmap.PAGESIZE, -(-(address + size) // mmap.PAGESIZE)
    entries = os.pread(pagemap_fd, (behind - first) * _ENTRY_BYTES, first * _ENTRY_BYTES)
    if len(entries) < (behind - first) * _ENTRY_BYTES:
        raise OSError(f"the kernel does not say whether {address:#x} is in swap")
    if any(entry & _IS_SWAPPED for (entry,) in struct.iter_unpack("=Q", entries)):
        raise OSError(f"{address:#x} is in swap")


def command_line(process: Path, most_bytes: int, start_ticks: int | None = None) -> bytes:
    """Return /proc/PID/cmdline of a process (a directory of /proc), at most so many bytes of a page.

    Raises OSError if the process has ended, did not start at `start_ticks` (since boot), has no memory, may
    not be read, or has its title in swap.
    """
    folder_fd = os.open(process, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        strings = _find_strings(folder_fd)
        if start_ticks not in (None, strings.start_ticks):
            raise ProcessLookupError("another process has this number")
        # A title may run on into the environment. The kernel reads a page for it (get_mm_proctitle() in
        # fs/proc/base.c), and looks at the last byte of the arguments whether there is one.
        end = min(strings.arg_start + mmap.PAGESIZE, max(strings.arg_end, strings.env_end))
        _check_area(folder_fd, strings.arg_start, end)
        _check_area(folder_fd, strings.arg_end - 1, strings.arg_end)
        return _read(folder_fd, "cmdline", min(most_bytes, mmap.PAGESIZE))
    finally:
        os.close(folder_fd)


def environment(process: Path, most_bytes: int) -> bytes:
    """Return the environment at the start of a process (a directory of /proc), at most so many bytes.

    Raises OSError if the process has ended, has none, may not be read, or has its environment in swap.
    """
    folder_fd = os.open(process, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        strings = _find_strings(folder_fd)
        end = min(strings.env_end, strings.env_start + most_bytes)
        _check_area(folder_fd, strings.env_start, end)
        return _read(folder_fd, "environ", end - strings.env_start)
    finally:
        os.close(folder_fd)


class _Strings(NamedTuple):
    """Where a process has its strings, and when it started, in clock ticks since boot."""

    start_ticks: int
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int


def _find_strings(folder_fd: int) -> _Strings:
    """Read /proc/PID/stat. The addresses are 0 if the process has no memory, or may not be read."""
    fields = _read(folder_fd, "stat", 1024).rpartition(b")")[2].split()
    try:
        return _Strings(*map(int, (fields[_START], *fields[_AREAS])))
    except (ValueError, IndexError, TypeError) as error:
        raise OSError("the kernel does not say where the strings of a process are") from error


def _check_area(folder_fd: int, begin: int, end: int) -> None:
    """Raise OSError if there is nothing in [begin, end), or if a part of it is in swap."""
    if not 0 < begin < end:
        raise OSError("the process has no such strings")
    pagemap_fd = os.open("pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder_fd)
    try:
        check_resident(pagemap_fd, begin, end - begin)
    finally:
        os.close(pagemap_fd)


def _read(folder_fd: int, name: str, most_bytes: int) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder_fd)
    try:
        return os.read(fd, most_bytes)
    finally:
        os.close(fd)
