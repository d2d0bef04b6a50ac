"""A memory cgroup for one command or measurement, which is always removed at the end.

Only our own processes run in it, so all processes in it may be killed at the end.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracer.directory import Directory, remove_left_behind
from tracer.errors import TracerError, UsageError
from tracer.kernel.cgroups.cgroupfs import Hierarchy, descendants, memory_hierarchy, own_path
from tracer.kernel.cgroups.containers import EPHEMERAL_PREFIX
from tracer.units import size

_EMPTY_WITHIN_S = 5.0
_RETRY_S = 0.01
_LOG = logging.getLogger(__name__)


@contextmanager
def ephemeral_cgroup(
    name: str, limit_bytes: int | None, swap_bytes: int | None = None, hierarchy: Hierarchy | None = None
) -> Iterator[Path]:
    """Create the cgroup `memcg-tracer-<pid>-<name>` with a memory limit, yield its directory, and remove it.

    The cgroup is created at the root of the hierarchy, because a cgroup of v2 with processes cannot have
    children. On v1, it is created below our own cgroup if we may not write to the root. `swap_bytes` bounds
    the swap space used in addition to `limit_bytes`. Processes left in it at the end are killed. Raises
    TracerError if it cannot be created; if it cannot be removed, a warning is logged.
    """
    hierarchy = memory_hierarchy() if hierarchy is None else hierarchy
    directory = _make(hierarchy, f"{EPHEMERAL_PREFIX}{os.getpid()}-{_component(name)}")
    with Directory.open(directory) as locked:
        try:
            fcntl.flock(locked.fileno(), fcntl.LOCK_EX)
            _set_limits(hierarchy, directory, limit_bytes, swap_bytes)
            yield directory
        finally:
            remove(directory)


def remove_leftovers(hierarchy: Hierarchy) -> list[Path]:
    """Remove the cgroups of tracers that were killed, with the processes in them, and return their
    directories."""
    parents = {hierarchy.mount, hierarchy.directory(own_path(hierarchy))}
    return [gone for parent in parents for gone in remove_left_behind(parent, EPHEMERAL_PREFIX, remove)]


def remove(directory: Path) -> None:
    """Kill all processes in a cgroup that we made and in the cgroups below it, then remove these cgroups."""
    deadline = time.monotonic() + _EMPTY_WITHIN_S
    while True:
        problem = _try_remove(directory)
        if problem is None:
            return
        if time.monotonic() > deadline:
            shown = repr(str(directory))  # others could choose the name of a leftover
            _LOG.warning("cgroup %s is left behind (%s): remove it with rmdir", shown, problem.strerror)
            return
        time.sleep(_RETRY_S)


def _try_remove(directory: Path) -> OSError | None:
    """Try to remove a cgroup once; return the error, or None if it is gone."""
    for child in reversed(list(descendants(directory))):
        for pid in member_pids(child):
            _kill_member(child, pid)
        try:
            child.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            return error
    return None if not directory.exists() else OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _kill_member(directory: Path, pid: int) -> None:
    """Send SIGKILL to a process of the cgroup.

    The processes are read again after the pidfd pins the pid, so that a process that reuses the pid is
    spared.
    """
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if pid in member_pids(directory):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def member_pids(directory: Path) -> list[int]:
    """Return the pids of a cgroup's processes; those outside of our pid namespace are left out."""
    try:
        lines = Path(directory, "cgroup.procs").read_text("ascii").split()
    except OSError:
        return []
    return [pid for line in lines if (pid := int(line))]


def _make(hierarchy: Hierarchy, component: str) -> Path:
    parent = hierarchy.mount
    if hierarchy.version == 2:
        _require_delegation(parent)
    try:
        return _mkdir(parent / component)
    except PermissionError as error:
        own = hierarchy.directory(own_path(hierarchy))
        if hierarchy.version == 1 and own != parent:
            with suppress(OSError):
                return _mkdir(own / component)
        raise TracerError(f"cannot make a cgroup in {parent} ({error.strerror}): run as root") from error
    except OSError as error:
        raise TracerError(f"cannot make a cgroup in {parent} ({error.strerror}): is it read-only?") from error


def _mkdir(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _require_delegation(parent: Path) -> None:
    """Raise TracerError if children of a v2 cgroup get no memory controller (cgroup.subtree_control).

    The file belongs to the system's administrator, so it is not changed.
    """
    try:
        controllers = Path(parent, "cgroup.subtree_control").read_text("ascii").split()
    except OSError as error:
        raise TracerError(f"cannot read {parent}/cgroup.subtree_control: {error.strerror}") from error
    if "memory" not in controllers:
        raise TracerError(
            f"cgroups below {parent} have no memory controller: "
            f"run echo +memory > {parent}/cgroup.subtree_control"
        )


def _set_limits(
    hierarchy: Hierarchy, directory: Path, limit_bytes: int | None, swap_bytes: int | None
) -> None:
    """Write the limits; v1 bounds memory and swap together (memory.memsw), at least by the limit."""
    limit_file = "memory.limit_in_bytes" if hierarchy.version == 1 else "memory.max"
    if limit_bytes is not None:
        if limit_bytes < os.sysconf("SC_PAGE_SIZE"):
            raise UsageError(f"a limit of {size(limit_bytes)} is less than one page: give more")
        _write_setting(directory / limit_file, limit_bytes)
    if swap_bytes is None:
        return
    if hierarchy.version == 1 and limit_bytes is None:
        raise UsageError("cgroup v1 bounds memory and swap together: give a limit beside the swap size")
    swap_file = "memory.memsw.limit_in_bytes" if hierarchy.version == 1 else "memory.swap.max"
    if not Path(directory, swap_file).exists() and not machine_has_swap():
        return  # no swap accounting, and no swap to bound
    memory_bytes = limit_bytes if hierarchy.version == 1 and limit_bytes is not None else 0
    _write_setting(directory / swap_file, memory_bytes + swap_bytes)


def machine_has_swap() -> bool:
    """Return whether /proc/swaps lists a swap area below its heading (swap_show, mm/swapfile.c)."""
    try:
        return len(Path("/proc/swaps").read_text("utf-8", "replace").splitlines()) > 1
    except OSError:
        return False


def _write_setting(file: Path, value: int) -> None:
    try:
        file.write_text(str(value), encoding="ascii")
    except FileNotFoundError as error:
        raise TracerError(f"no {file.name} here (swap accounting is off): leave the swap size out") from error
    except OSError as error:
        raise TracerError(f"the kernel refused {value} for {file.name}: {error.strerror}") from error


def _component(name: str) -> str:
    """Return a directory name for any text, short enough for the path to fit the wire record."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:40] or "cgroup"
