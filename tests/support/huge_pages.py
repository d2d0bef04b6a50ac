"""Huge pages: those that hold most of the machine's memory, and those that tests do not want."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WHOLE_MACHINE: Final = os.environ.get("MEMCG_TRACER_WHOLE_MACHINE") == "1"
"""True in a guest of tests/vm."""

_WANTED: Final = Path("/proc/sys/vm/nr_hugepages")
_HUGE_SHIFT: Final = 21
_PR_SET_THP_DISABLE: Final = 41  # include/uapi/linux/prctl.h; inherited by children


@contextmanager
def huge_pages_of(size_bytes: int) -> Iterator[None]:
    """Hold as many more huge pages as the kernel can provide: it reclaims for them, and kills nothing.

    Only in a guest of tests/vm, where tests may disturb the whole machine.
    """
    before = _WANTED.read_text(encoding="ascii")
    _WANTED.write_text(str(int(before) + (size_bytes >> _HUGE_SHIFT)), encoding="ascii")
    try:
        yield
    finally:
        _WANTED.write_text(before, encoding="ascii")


@contextmanager
def small_pages() -> Iterator[None]:
    """Start processes that have small pages only.

    khugepaged charges a huge page before it fills it, and until then no line of memory.stat has it.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_THP_DISABLE")
    try:
        yield
    finally:
        prctl(_PR_SET_THP_DISABLE, 0, 0, 0, 0)
