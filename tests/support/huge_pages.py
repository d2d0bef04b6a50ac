"""A machine with little memory: huge pages hold the rest, which the kernel cannot reclaim.

Only in a guest of tests/vm, where tests may disturb the whole machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WHOLE_MACHINE: Final = os.environ.get("MEMCG_TRACER_WHOLE_MACHINE") == "1"
"""True in a guest of tests/vm."""

_WANTED: Final = Path("/proc/sys/vm/nr_hugepages")
_HUGE_SHIFT: Final = 21


def meminfo_bytes() -> dict[str, int]:
    """Return the sizes of /proc/meminfo."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}


@contextmanager
def huge_pages_of(size_bytes: int) -> Iterator[None]:
    """Hold as many more huge pages as the kernel can provide: it reclaims for them, and kills nothing."""
    before = _WANTED.read_text(encoding="ascii")
    _WANTED.write_text(str(int(before) + (size_bytes >> _HUGE_SHIFT)), encoding="ascii")
    try:
        yield
    finally:
        _WANTED.write_text(before, encoding="ascii")
