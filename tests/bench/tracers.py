"""The tracers that `measure.py` compares: each traces a piece of work, and says what it got of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from support.recorder import Recorder

from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.trace.layout import parts
from tracer.trace.meta import read_meta

Seconds = Mapping[str, float]
"""Phase of a piece of work -> what it took."""


@dataclass(frozen=True)
class Traced:
    """`events`, `lost`, `disk_bytes`: of page-cache events; `lost` is None where the tracer does not tell.
    `program_ns`: tracepoint -> the mean of our program's runs, if the kernel measures them.
    """

    seconds: Seconds
    events: int
    lost: int | None
    disk_bytes: int
    program_ns: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tracer:
    """`trace` does the work, given as a function, with its cgroup traced and its files in a folder."""

    name: str
    trace: Callable[[Path, Path, Callable[[], Seconds]], Traced]


def by_record(
    cgroup: Path, folder: Path, work: Callable[[], Seconds], options: tuple[str, ...] = ()
) -> Traced:
    """All streams of this cgroup."""
    (folder / "ready").unlink(missing_ok=True)
    path = memory_hierarchy().path(cgroup)
    with Recorder(folder, "-f", "-c", path, "--ready-file", "ready", *options) as recorder:
        recorder.wait_until_ready()
        seconds = work()
        program_ns = mean_runs(recorder.process.pid)
        trace = recorder.stop()
    meta = read_meta(trace)
    return Traced(
        seconds,
        (meta["rows"] or {})["pagecache"],
        (meta["lost"] or {}).get("pagecache", 0),
        sum(part.stat().st_size for part in parts(trace, "pagecache")),
        program_ns,
    )


def mean_runs(pid: int) -> dict[str, float]:
    """Tracepoint -> mean ns of the program that this process has attached there, if it ran while the kernel
    measured. From /proc/PID/fdinfo: a link tells its tracepoint and its program, a program its runs.
    """
    described = [
        dict(re.findall(r"(\w+):\t(\S+)", path.read_text())) for path in Path(f"/proc/{pid}/fdinfo").iterdir()
    ]
    tracepoints = {one["prog_id"]: one["tp_name"] for one in described if "tp_name" in one}
    return {
        tracepoints[one["prog_id"]]: int(one["run_time_ns"]) / int(one["run_cnt"])
        for one in described
        if int(one.get("run_cnt", 0)) and one["prog_id"] in tracepoints
    }


RECORD: Final = Tracer("record", by_record)
WITH_STACKS: Final = Tracer("record --stacks 1M", partial(by_record, options=("--stacks", "1M")))
