"""The cgroups that a work runs in, and how a program is started in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tracer.errors import TracerError
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.cgroups.mounts import read_mounts

ENTER: Final = Path(__file__).with_name("enter.py")
PINNED: Final = max(os.sched_getaffinity(0))
"""The CPU that pinned work runs on."""


@dataclass(frozen=True)
class Scope:
    """A memory cgroup, and the cgroup by which perf selects tasks: the same one on v2; None without one."""

    memory: Path
    perf: Path | None
    perf_name: str = ""

    @property
    def path(self) -> str:
        """The path as `record -c` takes it."""
        return memory_hierarchy().path(self.memory)

    def start(
        self, argv: Sequence[str], cpu: int | None = PINNED, user: str | None = None, **popen: Any
    ) -> subprocess.Popen[str]:
        """Start a program in these cgroups, on one CPU or on all, as root or as another user."""
        procs = [str(place / "cgroup.procs") for place in dict.fromkeys((self.memory, self.perf)) if place]
        enter = [sys.executable, "-I", "-S", str(ENTER), "" if cpu is None else str(cpu), user or "", *procs]
        return subprocess.Popen([*enter, "--", *argv], text=True, **popen)

    def run(self, argv: Sequence[str], cpu: int | None = PINNED) -> str:
        """Run a program in these cgroups and return what it prints. Raises TracerError if it fails."""
        process = self.start(argv, cpu, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            output, errors = process.communicate()
        finally:
            process.kill()
        if process.returncode != 0:
            last = errors.strip().splitlines()[-1:] or ["it printed no error"]
            raise TracerError(f"{Path(argv[0]).name} ended with status {process.returncode}: {last[0]}")
        return output


def perf_mount() -> Path | None:
    """Return the hierarchy by which perf selects tasks: that of perf_event on v1, else that of cgroup2, which
    has each controller that no v1 hierarchy has. None if neither is mounted."""
    mounts = read_mounts()
    of_perf = [mount for mount in mounts if mount.fs_type == "cgroup" and "perf_event" in mount.super_options]
    found = of_perf or [mount for mount in mounts if mount.fs_type == "cgroup2"]
    return Path(found[0].mount_point) if found else None


@contextmanager
def scopes(name: str, limit_bytes: int | None = None) -> Iterator[Scope]:
    """Make the cgroups of a scope, and remove them at the end with what still runs in them."""
    perf = perf_mount()
    with ExitStack() as stack:
        memory = stack.enter_context(ephemeral_cgroup(f"bench-{name}", limit_bytes))
        if perf is None:
            yield Scope(memory, None)
        elif memory.is_relative_to(perf):
            yield Scope(memory, memory, memory.relative_to(perf).as_posix())
        else:
            own = perf / memory.name
            own.mkdir()
            stack.callback(own.rmdir)
            stack.callback(_empty, own)
            yield Scope(memory, own, own.name)


def _empty(cgroup: Path) -> None:
    """Move what is left in a cgroup into its parent: the memory cgroup, which has the same, is killed."""
    for pid in (cgroup / "cgroup.procs").read_text("ascii").split():
        (cgroup.parent / "cgroup.procs").write_text(pid)
