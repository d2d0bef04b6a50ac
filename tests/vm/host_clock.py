"""The frequency of this machine's time-stamp counter (TSC), which an emulated CPU shows to its guest.

A guest measures it at boot against emulated timers. On a busy host these may come so late that a kernel
believed in 36 MHz where there were 2596: its clock ran 70 times as fast as time.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Callable
from typing import Final

_READ_TSC: Final = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl $32, %rdx; or %rdx, %rax; ret
_SPAN_S: Final = 0.25
_READINGS: Final = 9


def tsc_khz() -> int:
    """Measure the frequency for a quarter of a second. Raises OSError if code may not be made here."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        code.write(_READ_TSC)
        place = ctypes.c_char.from_buffer(code)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(place))
        begin_ns, begin = _both(read)
        time.sleep(_SPAN_S)
        end_ns, end = _both(read)
        del place  # the map can be closed
    return round((end - begin) * 1e6 / (end_ns - begin_ns))


def _both(read: Callable[[], int]) -> tuple[int, int]:
    """Return the time and the counter at nearly the same moment."""

    def once() -> tuple[int, int, int]:
        before_ns = time.monotonic_ns()
        ticks = read()
        return time.monotonic_ns() - before_ns, before_ns, ticks

    _, at_ns, ticks = min(once() for _ in range(_READINGS))
    return at_ns, ticks
