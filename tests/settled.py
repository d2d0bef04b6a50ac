"""memory.stat lags by what the kernel has not flushed yet (every 2 s, FLUSH_TIME in mm/memcontrol.c): it is
read once it has stood still for longer.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from slowdown import SLOWDOWN

from tracer.kernel.cgroupfs import memory_hierarchy
from tracer.kernel.memory_files import MemcgFiles

QUIET_S: Final = 2.6 * min(SLOWDOWN, 3)  # a busy guest flushes late
_SETTLES_WITHIN_S: Final = 30.0 * SLOWDOWN


def settle(memcg: Path) -> None:
    """Wait until the cgroup's statistics have not changed for longer than the kernel takes to flush them."""
    files = MemcgFiles(memcg, memory_hierarchy().version)
    try:
        last, since = files.read(), time.monotonic()
        deadline = since + _SETTLES_WITHIN_S
        while time.monotonic() - since < QUIET_S:
            assert time.monotonic() < deadline, "the cgroup does not become quiet"
            time.sleep(0.1)
            now = files.read()
            if now != last:
                last, since = now, time.monotonic()
    finally:
        files.close()
