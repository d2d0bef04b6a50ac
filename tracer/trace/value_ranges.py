"""The range of numbers that each column of a trace may have."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from tracer.schema import LIMITS

LATEST_NS: Final = 7_258_118_400_000_000_000
"""2200-01-01: times up to this one, and their differences, fit an int64."""

MOST_RECORDS: Final = 1 << 52
"""The most records that a row of `loss` may count."""

_LONGEST_NS: Final = 1_000_000_000_000_000_000  # 31 years
_LARGEST_BYTES: Final = 1 << 60
_MOST_PAGES: Final = 1 << 52  # twice those of a file of 8 EiB, the largest offset
_LARGEST: Final = (1 << 63) - 1


def value_range(table: str, field: pa.Field) -> tuple[int, int] | None:
    """Return the least and the largest number that a column may have (times: ns since 1970); None: any
    number.

    Counts, ids and times are never negative. Changes may be, and sizes may be slightly negative: the kernel
    reads per-CPU counters while other CPUs change them. The bounds keep sums, differences and products within
    64 bits.
    """
    name, kind = field.name, field.type
    signed = {"pages": _MOST_PAGES, "oom_score_adj": 1000, "badness": _MOST_PAGES, "bytes": _LARGEST_BYTES}
    most = _LARGEST
    if pa.types.is_timestamp(kind):
        return 0, LATEST_NS
    if not pa.types.is_integer(kind) or kind == pa.uint64():
        return None
    if name in signed:
        return -signed[name], signed[name]
    if name.endswith("_ns"):
        most = _LONGEST_NS
    elif name == "lost":
        most = MOST_RECORDS
    elif name in ("nr_pages", "folios", "index", "updates", "waits"):
        most = _MOST_PAGES
    elif name.endswith("_bytes") and name not in LIMITS and table != "inodes":
        return -_LARGEST_BYTES, _LARGEST_BYTES
    return 0, most
