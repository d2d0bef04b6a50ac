"""One run of a command at one limit, under `record`.

The files of a command, whose page cache is dropped before each run.

Page cache is charged to the cgroup that reads it first. If somebody has run a program before, its text is
charged to others, and the program would seem to need less memory than it needs in its own container.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Final

from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.evictions import evictions
from tracer.analysis.views.lost_time import total_lost_share
from tracer.errors import TracerError
from tracer.fit.search import Run
from tracer.kernel.cgroups import memory_files
from tracer.kernel.cgroups.cgroupfs import Hierarchy, cgroup_id, descendants, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup, member_pids
from tracer.kernel.process.children import start_module
from tracer.kernel.process.mapped_ranges import read_maps
from tracer.kernel.process.spawn import GatedCommand, spawn
from tracer.trace.write.claim import open_own

_EMPTYING: Final = {1: "memory.force_empty", 2: "memory.high"}


def files_of(cgroup: Path) -> frozenset[str]:
    """Return the paths of the regular files that processes of a cgroup execute, map or have open now."""
    found = frozenset(
        path for below in descendants(cgroup) for pid in member_pids(below) for path in _files_of_process(pid)
    )
    return frozenset(path for path in found if path.startswith("/") and Path(path).is_file())


def drop_files(paths: Iterable[str]) -> None:
    """Drop the page cache of these files, but for mapped and dirty pages (mm/fadvise.c)."""
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
        yield from (os.fsdecode(one.name) for one in read_maps(Path(f"/proc/{pid}")))
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield str(Path(entry).readlink())


_READY_WITHIN_S: Final = 60.0
_ERROR: Final = "memcg-tracer: error: "
_POLL_S: Final = 0.02
_LOOK_S: Final = 0.05
_PIECE_BYTES: Final = 1 << 16
_STRAGGLERS_S: Final = 1.0

Look = Callable[[Path, float], None]
"""Called while a command runs, some times a second, with its cgroup and the seconds since its start."""


def run(argv: Sequence[str], limit_bytes: int | None, trace: Path, most_s: float | None, look: Look) -> Run:
    """Run the command in a fresh cgroup with this limit and without swap, record it into `trace`, and return
    how it ended. Its output goes to the path `trace` with the ending `.log`.

    The command is ended with SIGKILL after `most_s` seconds. Page cache that it left behind is dropped, so
    that the next run has to read as much, and is charged as much. Raises TracerError if the command cannot be
    recorded, or if it succeeds without a limit and leaves processes behind; CommandError if it cannot be run.
    """
    hierarchy = memory_hierarchy()
    swap_bytes = None if limit_bytes is None and hierarchy.version == 1 else 0
    with (
        _printed_to(trace.with_suffix(".log")) as output_fd,
        ephemeral_cgroup("fit", limit_bytes, swap_bytes, hierarchy) as cgroup,
    ):
        number = cgroup_id(cgroup)
        command = spawn(cgroup, argv, output_fd=output_fd)
        try:
            with _recorded(hierarchy, cgroup, trace):
                status, wall_s = _wait(command, cgroup, most_s, look)
                kills = memory_files.oom_kills_below(hierarchy, cgroup)
                peak_bytes = memory_files.read_peak(cgroup, hierarchy.version)
            if limit_bytes is None and status == 0:
                _require_the_end(cgroup)
        finally:
            command.process.kill()
            command.abandon()
        drop_charged(hierarchy, cgroup)
    refaulted_bytes, lost_share = _lost_to_the_limit(trace, number)
    return Run(limit_bytes, status, wall_s, refaulted_bytes, kills, peak_bytes, trace.name, lost_share)


@contextmanager
def _printed_to(log: Path) -> Iterator[int]:
    """Yield the write end of a pipe whose content goes to `log`.

    This process writes the file, so that its page cache is not charged to the command.
    """
    with open_own(log.parent, "folder of fit") as folder:
        with suppress(FileNotFoundError):
            folder.unlink(log.name)  # of a search that was killed
        file = folder.create(log.name)
    read_end, write_end = os.pipe()

    def copy() -> None:
        while piece := os.read(read_end, _PIECE_BYTES):
            with suppress(OSError):  # a full disk must not stop the command
                os.write(file.fileno(), piece)

    copier = Thread(target=copy)
    copier.start()
    try:
        yield write_end
    finally:
        os.close(write_end)
        copier.join()
        os.close(read_end)
        file.close()


def _wait(command: GatedCommand, cgroup: Path, most_s: float | None, look: Look) -> tuple[int | None, float]:
    """Release the command; return its exit status as a shell does (None: too late), and its time."""
    pidfd = os.pidfd_open(command.process.pid)
    try:
        began_s = time.monotonic()
        command.release()
        while not select.select([pidfd], [], [], _LOOK_S)[0]:
            wall_s = time.monotonic() - began_s
            if most_s is not None and wall_s > most_s:
                return None, wall_s
            look(cgroup, wall_s)
        wall_s = time.monotonic() - began_s
    finally:
        os.close(pidfd)
    status = command.process.wait()
    return (128 - status if status < 0 else status), wall_s


@contextmanager
def _recorded(hierarchy: Hierarchy, cgroup: Path, trace: Path) -> Iterator[None]:
    """Record the cgroup while the context is entered."""
    ready = trace.with_suffix(".ready")
    ready.unlink(missing_ok=True)  # of a search that was killed
    options = ["-f", "-o", str(trace), "-c", hierarchy.path(cgroup), "--ready-file", str(ready)]
    recorder = start_module(
        "tracer",
        "record",
        *options,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C ends the search, and the search ends the recorder
    )
    is_ready = False
    try:
        is_ready = _becomes_ready(recorder, ready)
        if is_ready:
            yield
    finally:
        recorder.send_signal(signal.SIGINT)
        said = recorder.communicate()[1].decode("utf-8", "replace").strip()
        ready.unlink(missing_ok=True)
    if recorder.returncode or not is_ready:
        raise TracerError(f"the run was not recorded: {said.rpartition(chr(10))[2].removeprefix(_ERROR)}")


def _becomes_ready(recorder: subprocess.Popen[bytes], ready: Path) -> bool:
    deadline = time.monotonic() + _READY_WITHIN_S
    while not ready.exists():
        if recorder.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _require_the_end(cgroup: Path) -> None:
    """Raise TracerError if processes of the command go on after its first process has ended."""
    deadline = time.monotonic() + _STRAGGLERS_S
    while left := [pid for directory in descendants(cgroup) for pid in member_pids(directory)]:
        if time.monotonic() > deadline:
            raise TracerError(
                f"the command ended, but {len(left)} of its processes did not: fit is for commands that end, "
                "so keep it in the foreground"
            )
        time.sleep(_POLL_S)


def _lost_to_the_limit(trace: Path, number: int) -> tuple[int | None, float | None]:
    """Return the page cache (bytes) that the run in cgroup `number` read again, and the lost share of its
    time.

    Both are None if events were lost or summed, so that not all pages can be followed.
    """
    recorded = AnalysedTrace(trace)
    if recorded.meta["lost"] is None or recorded.meta["lost"].get("pagecache") or len(recorded.summed):
        return None, None
    refaulted_bytes = int(evictions(recorded, by="cgroup")["refaulted_bytes"].sum())
    return refaulted_bytes, total_lost_share(recorded, number)
