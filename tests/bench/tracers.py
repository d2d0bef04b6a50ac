"""The tracers that `measure.py` compares: each traces a piece of work, and returns what it recorded."""

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
"""Phase of a piece of work -> the seconds that it took."""


@dataclass(frozen=True)
class Traced:
    """Traced work: its seconds, and its page-cache events: recorded ones, lost ones, and bytes on disk.

    `lost` is None if the tracer has no count. `program_ns` maps a tracepoint to the mean ns of a run of the
    recorder's program, if the kernel measures programs.
    """

    seconds: Seconds
    events: int
    lost: int | None
    disk_bytes: int
    program_ns: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tracer:
    """A tracer: `trace(cgroup, folder, work)` calls `work` while it traces, with its files in the folder."""

    name: str
    trace: Callable[[Path, Path, Callable[[], Seconds]], Traced]


def by_record(
    cgroup: Path, folder: Path, work: Callable[[], Seconds], options: tuple[str, ...] = ()
) -> Traced:
    """Trace the work by the recorder, which records all streams of the cgroup."""
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
    """Return tracepoint -> mean ns of a run of the program that this process has attached there.

    In /proc/PID/fdinfo, a link has its tracepoint and its program, and a program has its runs. Programs that
    the kernel did not measure are left out.
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
