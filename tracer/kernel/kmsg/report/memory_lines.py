"""The lines about the memory of the cgroup whose limit was hit (mm/memcontrol.c, mm/slab_common.c)."""

from __future__ import annotations

import re
from typing import Final

from tracer.kernel.kmsg.report.log_report import Counter, CounterName, MemoryStat
from tracer.kernel.kmsg.text.line_markers import STATS
from tracer.schema import UNLIMITED_BYTES

_COUNTER: Final = re.compile(
    r"(memory|memory\+swap|swap|kmem): usage (\d{1,20})kB, limit (\d{1,20})kB, failcnt (\d{1,20})\s*"
)
_STAT: Final = re.compile(r"\s*([a-z][a-z0-9_]{0,63}) (\d{1,20})\s*")
_OLD_STAT: Final = re.compile(r"([a-z][a-z0-9_]{0,63}):(\d{1,20})KB")
_PROTECTION: Final = re.compile(r"Memory cgroup min protection (\d{1,20})kB -- low protection \d{1,20}kB\s*")


def counter(text: str) -> tuple[CounterName, Counter] | None:
    """Return the page counter of `memory: usage 102400kB, limit 102400kB, failcnt 7`; None for any other
    line."""
    found = _COUNTER.fullmatch(text)
    if found is None:
        return None
    limit = int(found[3]) * 1024
    # PAGE_COUNTER_MAX, printed in kB, is the largest number of pages below 2^63 bytes, for any page size.
    limit = UNLIMITED_BYTES if limit >= UNLIMITED_BYTES - (1 << 20) else limit
    name: CounterName = found[1]  # type: ignore[assignment]
    return name, Counter(int(found[2]) * 1024, limit, int(found[4]))


def stats(text: str) -> MemoryStat | None:
    """Return the cgroup of `Memory cgroup stats for /a:`; None for any other line.

    Before c8713d0b2312 ("mm: memcontrol: dump memory.stat during cgroup OOM"), v5.3, the line also has the
    values, in KB.
    """
    _, found, rest = text.partition(STATS)
    if not found:
        return None
    at = rest.rfind(": cache:")
    if at < 0:
        path = rest.rstrip()
        return MemoryStat(path.removesuffix(":") if path.endswith(":") else "", {})  # "": the line was cut
    values = {name: int(number) * 1024 for name, number in _OLD_STAT.findall(rest, at + 1)}
    return MemoryStat(rest[:at], values, resolution_bytes=1024)


def stat(text: str) -> tuple[str, int] | None:
    """Return (name, value) of `inactive_file 4096`, a line of memory.stat; None for any other line."""
    found = _STAT.fullmatch(text)
    return None if found is None else (found[1], int(found[2]))


def protection(text: str) -> int | None:
    """Return memory.min, in bytes, of `Memory cgroup min protection 4kB -- low protection 0kB`; None for any
    other line."""
    found = _PROTECTION.fullmatch(text)
    return None if found is None else int(found[1]) * 1024
