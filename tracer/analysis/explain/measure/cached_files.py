"""The page cache of a cgroup by file, from the recorder's looks at all pages (`contents`)."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import integers, known, optional_text, times_ns, utc_time
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.results.memory import CacheContents, CachedFile

MOST_FILES: Final = 10
"""The files that `CacheContents.files` has at most."""

_SIZES: Final = ("bytes", "dirty_bytes", "active_bytes")


def last_look(subtree: Subtree, begin_ns: int, end_ns: int) -> CacheContents | None:
    """Return the last look within an interval at the page cache of a cgroup and those below it.

    None: there was none, or it found no cache.
    """
    rows = subtree.contents
    times = times_ns(rows)
    is_within = (times >= begin_ns) & (times <= end_ns)
    if not is_within.any():
        return None
    last_ns = int(times[is_within].max())
    look = rows[times == last_ns]
    named = look[known(look["inode_id"])]
    sums = named.groupby(["inode_id", "kind"], observed=True)[list(_SIZES)].sum(min_count=1)
    sums = sums.sort_values("bytes", ascending=False, kind="stable").head(MOST_FILES)
    files = tuple(_file(subtree, inode_id, kind, row) for (inode_id, kind), row in sums.iterrows())
    whole = int(look["bytes"].sum())
    return CacheContents(
        time=utc_time(last_ns),
        bytes=whole,
        files=files,
        further_files=len(np.unique(integers(named["inode_id"])))
        + int(look["files"][~known(look["inode_id"])].sum())
        - len(files),
        further_bytes=whole - sum(file.bytes for file in files),
    )


def _file(subtree: Subtree, inode_id: int, kind: str, sizes: pd.Series[int]) -> CachedFile:
    active = sizes["active_bytes"]
    return CachedFile(
        path=_path(subtree, inode_id),
        kind=str(kind),
        bytes=int(sizes["bytes"]),
        dirty_bytes=int(sizes["dirty_bytes"]),
        active_bytes=None if pd.isna(active) else int(active),
    )


def _path(subtree: Subtree, inode_id: int) -> str | None:
    inodes = subtree.whole.inodes
    found = inodes["path"][integers(inodes["inode_id"]) == inode_id]
    return optional_text(found.iloc[-1]) if len(found) else None
