"""The cost of tracing, relative to the CPU time of the traced work, and the decision that it is too much.

Two parts are measured. The kernel measures the run time of the BPF programs. This measurement costs time at
each run, so it is on for 50 ms of each second. The other part is the CPU time of the recorder. Each part is
divided by the CPU time of the tasks in traced cgroups during the same time. The quotient is the slowdown of
the work if the recorder takes its CPU time away from it. The programs also run for tasks that are not traced;
this time counts as well.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.syscall import enable_statistics
from tracer.errors import TracerError

_EVERY_S: Final = 1.0
_WINDOW_S: Final = 0.05
_FADES: Final = 0.5  # the part of the earlier measurements that counts beside a new one
_LEAST_WORK_NS: Final = 20_000_000
"""With less work than this in about two seconds, the slowdown is not judged."""
_LEAST_SHARE: Final = 0.1
"""If the programs of the page cache take less than this part of what is allowed, detail stays: without it,
tracing would hardly cost less."""
_LEAST_S: Final = 5.0
_MOST_S: Final = 80.0


@dataclass
class Spent:
    """CPU time: of all programs, of the page cache's programs, and of the work, while programs were measured;
    and the total of the recorder and of the work."""

    programs_ns: float = 0
    page_programs_ns: float = 0
    measured_work_ns: float = 0
    recorder_ns: float = 0
    work_ns: float = 0

    @property
    def programs_percent(self) -> float:
        """Return the time of the programs relative to the work."""
        return 100 * self.programs_ns / self.measured_work_ns if self.measured_work_ns else 0.0

    @property
    def page_programs_percent(self) -> float:
        """Return the time of the programs of the page cache relative to the work."""
        return 100 * self.page_programs_ns / self.measured_work_ns if self.measured_work_ns else 0.0

    @property
    def recorder_percent(self) -> float:
        """Return the time of the recorder relative to the work."""
        return 100 * self.recorder_ns / self.work_ns if self.work_ns else 0.0

    def add(self, other: Spent, *, fades: float = 1.0) -> None:
        """Add `other`; the earlier values are first multiplied by `fades`."""
        for field in fields(self):
            setattr(self, field.name, fades * getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True)
class Clocks:
    """The readings that give the cost, in ns: of all programs and of the page cache's programs, while they
    are measured; of the work and of the recorder. `now_s` is CLOCK_MONOTONIC."""

    programs_ns: Callable[[], int]
    page_programs_ns: Callable[[], int]
    work_ns: Callable[[], int]
    recorder_ns: Callable[[], int] = time.process_time_ns
    now_s: Callable[[], float] = time.monotonic


class Overhead:
    """The measurement, and the decision whether `most_percent` is exceeded.

    While it is exceeded, detail is given up for at least 5 s. If it is soon exceeded again, detail is given
    up for twice as long as before.
    """

    def __init__(self, most_percent: float, clocks: Clocks) -> None:
        """Begin to measure. Raises TracerError if the kernel does not measure programs."""
        self._most_percent = most_percent
        self._clocks = clocks
        self._whole, self._recent = Spent(), Spent()
        self._statistics: int | None = None
        self._due_s = clocks.now_s()
        self._begin = self._last = self._readings()
        self._until_s = -math.inf
        self._hold_s = _LEAST_S
        self.is_exceeded = False
        self._open(self._due_s)

    def close(self) -> None:
        if self._statistics is not None:
            os.close(self._statistics)
            self._statistics = None

    def step(self) -> None:
        """Measure and decide, if that is due. Call it at least every 25 ms while there is work."""
        now_s = self._clocks.now_s()
        if now_s < self._due_s:
            return
        if self._statistics is None:
            self._open(now_s)
        else:
            self._take()
            self._decide(now_s)

    def describe(self) -> dict[str, Any]:
        """Return the cost over the whole recording for meta.json."""
        return {
            "most_percent": self._most_percent,
            "programs_percent": round(self._whole.programs_percent, 3),
            "recorder_percent": round(self._whole.recorder_percent, 3),
            "work_cpu_s": round(self._whole.work_ns / 1e9, 3),
        }

    def _open(self, now_s: float) -> None:
        try:
            self._statistics = enable_statistics()
        except OSError as error:
            raise TracerError(
                f"--max-overhead: the kernel does not measure programs ({error.strerror}): leave it out"
            ) from error
        self._begin = self._readings()
        self._due_s = now_s + _WINDOW_S

    def _readings(self) -> tuple[int, int, int, int]:
        """Return the CPU times of the first fields of `Spent`, and of the recorder."""
        clocks = self._clocks
        return clocks.programs_ns(), clocks.page_programs_ns(), clocks.work_ns(), clocks.recorder_ns()

    def _take(self) -> None:
        """End the window, and add what was spent since the last one."""
        now = self._readings()
        self.close()
        programs, page_programs, work, _ = (
            ended - begun for ended, begun in zip(now, self._begin, strict=True)
        )
        spent = Spent(programs, page_programs, work, now[3] - self._last[3], now[2] - self._last[2])
        self._last = now
        self._whole.add(spent)
        self._recent.add(spent, fades=_FADES)

    def _decide(self, now_s: float) -> None:
        self._due_s = now_s + _EVERY_S - _WINDOW_S
        if self.is_exceeded:
            if now_s >= self._until_s:
                self.is_exceeded = False
                self._recent = Spent()
            return
        recent, most_percent = self._recent, self._most_percent
        if recent.work_ns < _LEAST_WORK_NS or recent.page_programs_percent < most_percent * _LEAST_SHARE:
            return
        if recent.programs_percent + recent.recorder_percent <= most_percent:
            return
        is_soon = now_s - self._until_s < 2 * _LEAST_S
        self._hold_s = min(2 * self._hold_s, _MOST_S) if is_soon else _LEAST_S
        self._until_s = now_s + self._hold_s
        self.is_exceeded = True


def cost(began_s: float, startup_s: float, overhead: Overhead | None) -> dict[str, Any]:
    """Return the cost of the recorder since `began_s` (CLOCK_MONOTONIC), for meta.json."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return ({} if overhead is None else {"overhead": overhead.describe()}) | {
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "wall_s": round(time.monotonic() - began_s, 3),
        "startup_s": round(startup_s, 3),
        "max_rss_bytes": usage.ru_maxrss * 1024,
    }


def overhead_of(programs: Programs, most_percent: float, work_ns: Callable[[], int]) -> Overhead:
    """Return the measurement for loaded programs, and for tasks whose CPU time `work_ns` returns. Raises
    TracerError if the kernel does not measure programs."""
    clocks = Clocks(programs.run_ns, partial(programs.run_ns, "pagecache"), work_ns)
    return Overhead(most_percent, clocks)
