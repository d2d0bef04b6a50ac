"""The cost of one event of each signal on this machine: a short known workload is traced, and the kernel
measures our programs.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tracer.capture.bpf.hooks import Choice
from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.roots import Roots
from tracer.capture.bpf.syscall import enable_statistics
from tracer.capture.learn.stimuli import STIMULI
from tracer.errors import TracerError
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.cgroups.mounts import first_on_a_disk
from tracer.kernel.process.children import forked

_LIMIT_BYTES: Final = 24 << 20
_FILE_BYTES: Final = 40 << 20
_CHUNK_BYTES: Final = 1 << 20
_WITHIN_S: Final = 30.0  # the work takes a third of a second; emulated machines are slow


@dataclass(frozen=True)
class EventCost:
    """`event_ns`: the time of our programs for one event, start and end together; None without an event.

    It is the mean of the whole machine. So it includes events of cgroups that are not traced, for which the
    programs return early. It does not include the kernel's time to reach a program.
    """

    events: int
    event_ns: float | None


def measure(programs: Programs, hierarchy: Hierarchy) -> Mapping[str, EventCost]:
    """Return signal name -> its cost, for the signals that have a hook during a recording. The programs must
    be attached, and trace no cgroup yet.

    The work causes no OOM kill, which would stay in the kernel's log. Raises TracerError if nothing can be
    measured.
    """
    with ephemeral_cgroup("doctor", _LIMIT_BYTES, hierarchy=hierarchy) as cgroup:
        Roots(programs).add(cgroupfs.cgroup_id(cgroup))
        try:
            statistics = enable_statistics()
        except OSError as error:
            raise TracerError(f"the kernel does not measure programs: {error.strerror}") from error
        try:
            _work_in(cgroup)
            return {
                choice.signal.name: _cost(programs, choice)
                for choice in programs.choices
                if choice.way is not None and not (choice.signal.is_calibration or choice.signal.samples)
            }
        finally:
            os.close(statistics)


def _cost(programs: Programs, choice: Choice) -> EventCost:
    """Return the cost of a signal. Each run of the first hook's program is an event: no other signal has this
    program. The other programs do not count events: signals share them, and an event runs one of several."""
    assert choice.way is not None
    runs = [programs.runs(hook) for hook in choice.way.hooks]
    ends = [run for run in runs[1:] if run.times]
    if not runs[0].times or (len(runs) > 1 and not ends):
        return EventCost(runs[0].times, None)
    return EventCost(runs[0].times, sum(run.total_ns / run.times for run in (runs[0], *ends)))


def _work_in(cgroup: Path) -> None:
    """Run the work in a child process in the cgroup. Raises TracerError if it fails or takes too long."""
    child = forked(partial(_work, cgroup))
    ended = os.pidfd_open(child)
    try:
        done = select.select([ended], [], [], _WITHIN_S)[0]
    finally:
        signal.pidfd_send_signal(ended, signal.SIGKILL)  # no effect on an ended child that is not reaped
        os.close(ended)
        _, status = os.waitpid(child, 0)
    if not done:
        raise TracerError(f"the work to be measured was not done within {_WITHIN_S:.0f} s")
    if status:
        raise TracerError(f"the work to be measured failed ({os.waitstatus_to_exitcode(status)})")


def _work(cgroup: Path) -> None:
    Path(cgroup, "cgroup.procs").write_text("0", encoding="ascii")
    below: Callable[[], None] = partial(_make_and_remove, cgroup / "below")
    for work in (*(stimulus.act for stimulus in STIMULI), _read_and_map_a_file, below):
        with suppress(OSError):  # a signal without its work has no cost
            work()


def _read_and_map_a_file() -> None:
    """Read and map a file that exceeds the limit: page cache is added, reclaimed, and added again by faults.

    The file is a hole. Its pages enter the page cache like others, without disk I/O.
    """
    place = first_on_a_disk((Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()))
    if place is None:
        return
    with tempfile.TemporaryFile(dir=place) as file:
        file.truncate(_FILE_BYTES)
        for offset in range(0, _FILE_BYTES, _CHUNK_BYTES):
            os.pread(file.fileno(), _CHUNK_BYTES, offset)
        with mmap.mmap(file.fileno(), _FILE_BYTES, prot=mmap.PROT_READ) as mapping:
            sum(mapping[page] for page in range(0, _FILE_BYTES, mmap.PAGESIZE))


def _make_and_remove(cgroup: Path) -> None:
    cgroup.mkdir()
    cgroup.rmdir()
