"""The cost of `watch`: its own process, and its BPF programs while they are measured.

The kernel measures programs only on request, because each measured run takes longer. So the programs are
measured for half a second of each half minute in which the recorder is not at rest.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from tracer.capture.bpf.syscall import enable_statistics
from tracer.kernel.anatomy.smaps import parse_smaps
from tracer.kernel.process.mapped_ranges import read_maps

_SELF: Final = Path("/proc/self")
_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
_MALLOC_SETTINGS: Final = {-1: 64 << 10, -3: 64 << 10, -8: 1}
"""Values of M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX (glibc's malloc.h)."""
_GARBAGE: Final = (700, 10, 10)  # Python's own thresholds
_MADV_DONTNEED: Final = 4  # include/uapi/asm-generic/mman-common.h
_libc: Final = ctypes.CDLL(None)


def resident_bytes() -> int:
    """Return the resident memory of this process, including mapped rings (RSS in /proc/self/statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def return_early() -> None:
    """Make malloc return freed memory to the kernel at once instead of keeping it."""
    if mallopt := getattr(_libc, "mallopt", None):
        for setting, value in _MALLOC_SETTINGS.items():
            mallopt(setting, value)


def trim() -> None:
    """Return all free memory of malloc to the kernel, including free pages between used pieces."""
    if malloc_trim := getattr(_libc, "malloc_trim", None):
        malloc_trim(0)


def drop_code() -> None:
    """Unmap the pages of programs and libraries, code and tables: most were needed only at the start.

    A page that is needed again is mapped again from the page cache. Libraries that are loaded after the first
    call keep their pages.
    """
    unchanged = _mappings_without_own_pages()
    for one in read_maps(_SELF):
        if (one.start, one.end, one.permissions, one.inode) in unchanged:
            _libc.madvise(ctypes.c_void_p(one.start), ctypes.c_size_t(one.end - one.start), _MADV_DONTNEED)


def collect_cycles() -> None:
    """Collect cyclic garbage as Python does by default, but not among the objects that exist now.

    A verb collects nearly none (`tracer.cli`), because most verbs end within seconds. Here, garbage of days
    would stay, and would keep the memory around it in use.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


@cache
def _mappings_without_own_pages() -> frozenset[tuple[int, int, str, int]]:
    """Return (start, end, permissions, inode) of read-only mappings of files without anonymous pages.

    In the other mappings of files, the dynamic linker has written pages, and its changes would be lost.
    """
    return frozenset(
        (one.start, one.end, one.permissions, one.inode)
        for one in parse_smaps((_SELF / "smaps").read_bytes())
        if one.permissions in ("r-xp", "r--p") and one.inode and not one.anon_bytes
    )


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
