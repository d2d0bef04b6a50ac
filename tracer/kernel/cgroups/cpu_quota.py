"""The CPU time that the cgroups of this process allow it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from tracer.kernel.cgroups.mounts import Mount, read_mounts

_OWN = Path("/proc/self/cgroup")


def quota_cpus() -> float | None:
    """Return the least CPU quota of the cgroups of this process, in CPUs; None: no quota was found.

    The quota is cpu.max of v2 (Documentation/admin-guide/cgroup-v2.rst), and cpu.cfs_quota_us of v1
    (Documentation/scheduler/sched-bwc.rst).
    """
    with suppress(OSError):
        return least_quota(read_mounts(), _OWN.read_text("utf-8", "surrogateescape"))
    return None


def least_quota(mounts: Iterable[Mount], own: str) -> float | None:
    """Return what `quota_cpus` does, by mounts and the text of /proc/PID/cgroup (cgroups(7))."""
    lines = [line.split(":", 2) for line in own.splitlines() if line.count(":") >= 2]
    found: list[float] = []
    for mount in mounts:
        if mount.fs_type == "cgroup2":
            paths = [path for _, controllers, path in lines if not controllers]
        elif mount.fs_type == "cgroup" and "cpu" in mount.super_options:
            paths = [path for _, controllers, path in lines if "cpu" in controllers.split(",")]
        else:
            continue
        for path in paths:
            for directory in _shown(mount, path):
                with suppress(OSError, ValueError):
                    found += _quota(directory, is_v2=mount.fs_type == "cgroup2")
    return min(found, default=None)


def _shown(mount: Mount, path: str) -> Iterator[Path]:
    """Yield the directories of a cgroup and of those above it, as far as the mount shows them."""
    place, root = PurePosixPath(path), PurePosixPath(mount.root)
    if not place.is_relative_to(root) or ".." in place.parts:
        return
    below = place.relative_to(root)
    yield from (Path(mount.mount_point) / one for one in (below, *below.parents))


def _quota(directory: Path, *, is_v2: bool) -> list[float]:
    if is_v2:
        quota, period = (directory / "cpu.max").read_text("ascii").split()
    else:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, period = ((directory / name).read_text("ascii") for name in names)
    return [] if quota == "max" or int(quota) < 0 else [int(quota) / int(period)]
