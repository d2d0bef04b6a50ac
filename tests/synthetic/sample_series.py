"""Samples of a cgroup as time goes on, ten a second, from what its usage is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from synthetic.unset import table_of

from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20
SECOND_NS = 1_000_000_000
START_NS = 1_764_000_000 * SECOND_NS

Shape = Callable[[float], dict[str, float]]
"""Seconds since the start -> MiB by column, without `_bytes`, and counts by column."""


def series(
    shape: Shape,
    seconds: float,
    limit: float = 100,
    *,
    cgroup_id: int = 7,
    every: float = 0.1,
    begin: float = 0,
    **columns: Any,
) -> pa.RecordBatch:
    """Return the samples of a cgroup with `anon`, `file`, `shmem` and others of `shape`.

    Its cache is on the LRU lists, except for shmem and what is `unevictable`. Usage is anon + file + kernel,
    at most the limit, if `shape` has none.
    """
    times = begin + np.arange(round(seconds / every) + 1) * every
    rows = [_row(shape(float(at)), limit) for at in times]
    given: dict[str, Any] = {name: np.array([row[name] for row in rows], np.int64) for name in rows[0]}
    return batch(
        len(rows),
        time=START_NS + np.round(times * 1e9).astype(np.int64),
        cgroup_id=cgroup_id,
        **given | {"limit_bytes": _limit(limit), "effective_limit_bytes": _limit(limit)} | columns,
    )


def batch(rows: int, **columns: Any) -> pa.RecordBatch:
    """Return rows of `samples`; a column is an array, or one value for all rows; the others are unset."""
    table = table_of("samples", rows, **{"source": "periodic"} | columns)
    return table.combine_chunks().to_batches()[0]


def joined(*parts: pa.RecordBatch) -> pa.RecordBatch:
    """Return the samples of several cgroups in the order of time."""
    table = pa.Table.from_batches(parts).sort_by("time").unify_dictionaries().combine_chunks()
    return table.to_batches()[0]


def cut(samples: pa.RecordBatch, sizes: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Yield the samples in batches of these sizes, which are taken in turn."""
    begin, turn = 0, 0
    while begin < len(samples):
        yield samples.slice(begin, sizes[turn % len(sizes)])
        begin, turn = begin + sizes[turn % len(sizes)], turn + 1


def _limit(limit: float) -> int:
    return UNLIMITED_BYTES if limit == np.inf else int(limit * MIB)


def _row(shape: dict[str, float], limit: float) -> dict[str, int]:
    given = {"anon": 0.0, "file": 0.0, "shmem": 0.0, "kernel": 0.0, "unevictable": 0.0} | shape
    counts = {
        name: int(given.pop(name)) for name in list(given) if name.endswith("_events") or name == "pgscan"
    }
    usage = min(limit, given["anon"] + given["file"] + given["kernel"])
    sizes = {
        "usage": usage,
        "inactive_file": given["file"] - given["shmem"] - given["unevictable"],
        "active_file": 0,
        "inactive_anon": given["anon"] + given["shmem"],
        "active_anon": 0,
    } | given
    return {f"{name}_bytes": int(size * MIB) for name, size in sizes.items()} | counts
