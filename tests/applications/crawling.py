"""Programs that are larger than the limit of their cgroup: run, recorded, and measured from outside."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from support.recorder import Recorder
from support.task_delays import Spent, spent_in
from support.waiting import wait_for

from tracer.analysis.results.survivor import Held
from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.cgroups.memory_files import read_stat


@dataclass(frozen=True, slots=True)
class Crawl:
    """A recorded crawl: the answer, what the kernel said of each process before the recorder stopped and
    after, how many it killed for the limit, and what the commands wrote to their standard error."""

    held: Held
    before: list[Spent]
    after: list[Spent]
    killed: int
    errors: str


def drop_from_cache(program: Path) -> None:
    """Drop the page cache of a file, so that the next cgroup that reads it is charged for it."""
    with program.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def own_copy(program: Path, folder: Path) -> Path:
    """Copy a program, so that no other cgroup is charged for its page cache, and drop the copy's."""
    copy = folder / program.name
    shutil.copy2(program, copy)
    drop_from_cache(copy)
    return copy


def crawl(
    commands: Sequence[Sequence[str | Path]],
    *,
    comm: str,
    limit_bytes: int,
    seconds: float,
    refaulted_bytes: int,
    folder: Path,
) -> Crawl:
    """Run commands in a cgroup for some time, and until the kernel counts so much as read again; the recorder
    is stopped while they still run."""
    folder.mkdir()
    errors = folder / "errors"
    with (
        errors.open("wb") as stream,
        ephemeral_cgroup(comm, limit_bytes) as memcg,
        Recorder(folder, "--ready-file", "ready", "-c", str(memcg)) as recorder,
    ):
        recorder.wait_until_ready()
        enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$@"'
        started = [
            subprocess.Popen(["sh", "-c", enter, "sh", *one], stdout=subprocess.DEVNULL, stderr=stream)
            for one in commands
        ]
        time.sleep(seconds)
        wait_for(lambda: _refaulted_bytes(memcg) >= refaulted_bytes)
        before = spent_in(memcg, comm)
        recorder.process.send_signal(signal.SIGINT)
        pids = [int(pid) for pid in (memcg / "cgroup.procs").read_text(encoding="ascii").split()]
        _send(signal.SIGSTOP, pids)  # one that ends while the recorder writes would be missing in `after`
        trace = AnalysedTrace(recorder.ended())
        after = spent_in(memcg, comm)
        _send(signal.SIGKILL, pids)
        for process in started:
            process.wait()
        (held,) = (one for one in trace.held_cgroups() if one.cgroup.endswith(memcg.name))
    return Crawl(held, before, after, len(trace.oom), errors.read_text(encoding="utf-8", errors="replace"))


def _refaulted_bytes(memcg: Path) -> int:
    return (read_stat(memcg, memory_hierarchy().version)["workingset_refault_file"] or 0) * mmap.PAGESIZE


def _send(number: signal.Signals, pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
