"""The cost of `watch`: its own process, and its BPF programs while they are measured.

The kernel measures programs only on request, because each measured run takes longer. So the programs are
measured for half a second of each half minute in which the recorder is not at rest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

from tracer.capture.bpf.syscall import enable_statistics
from tracer.watch.own_memory import resident_bytes

EVERY_S: Final = 30.0
WINDOW_S: Final = 0.5


class Cost:
    """The cost since `begin`. `programs_ns` returns the run time of the programs that the kernel measured."""

    def __init__(self, programs_ns: Callable[[], int]) -> None:
        self._programs_ns = programs_ns
        self._statistics: int | None = None
        self._refused: str | None = None
        self._measured_ns = self._measured_s = 0.0
        self._from_ns = 0
        self.begin()

    def begin(self) -> None:
        """Begin to count; the cost of the start is not included."""
        self._began_s, self._began_cpu_s = time.monotonic(), time.process_time()
        self._from_s = self._began_s

    @property
    def is_measuring(self) -> bool:
        """Return whether the kernel measures the programs now."""
        return self._statistics is not None

    def open_window(self) -> None:
        """Make the kernel measure the programs until `close_window`."""
        if self._statistics is None and self._refused is None:
            try:
                self._statistics = enable_statistics()
            except OSError as error:
                self._refused = error.strerror or str(error)
                return
            self._from_s, self._from_ns = time.monotonic(), self._programs_ns()

    def close_window(self) -> None:
        """Stop measuring when the window is over, and add the measured run time."""
        if self._statistics is not None and time.monotonic() - self._from_s >= WINDOW_S:
            self._measured_ns += self._programs_ns() - self._from_ns
            self._measured_s += time.monotonic() - self._from_s
            os.close(self._statistics)
            self._statistics = None

    def describe(self) -> dict[str, Any]:
        """Return the cost for meta.json: shares of one CPU in percent, and the resident memory."""
        wall_s = max(time.monotonic() - self._began_s, 1e-3)
        programs = None
        if self._measured_s:
            programs = round(self._measured_ns / self._measured_s / 1e7, 3)
        refused = {} if self._refused is None else {"programs_not_measured": self._refused}
        return refused | {
            "recorder_cpu_percent": round(100 * (time.process_time() - self._began_cpu_s) / wall_s, 3),
            "programs_cpu_percent": programs,
            "programs_measured_s": round(self._measured_s, 3),
            "resident_bytes": resident_bytes(),
        }

    def sentence(self) -> str:
        """Return the facts of `describe` as one line."""
        cost = self.describe()
        programs = (
            f"programs {cost['programs_cpu_percent']:.2f} % while measured "
            f"({cost['programs_measured_s']:.1f} s)"
            if cost["programs_cpu_percent"] is not None
            else f"programs not measured ({self._refused or 'nothing has happened yet'})"
        )
        return (
            f"cost: {cost['recorder_cpu_percent']:.2f} % of a CPU, {programs}, "
            f"{cost['resident_bytes'] >> 20} MiB resident"
        )
