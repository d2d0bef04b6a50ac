"""Page cache that was evicted and read again: what came back is linked to the eviction that took it.

An eviction and what comes back need not be of one size: a folio of 2 MiB goes, single pages return. So each
file is cut where any folio begins or ends, and every event counts for the pieces between its ends. In one
piece the events follow each other in time, and an addition is a refault if the event just before it is an
eviction. An addition by write is none: its contents are replaced, not needed. The kernel has it so, too,
since 4.7 ("mm: workingset: only do workingset activations on reads"). After one, or after a truncation, the
eviction before it has no sequel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Bools, Int64s, integers, is_one_of, times_ns, utc_times
from tracer.analysis.core.tables import TraceTables, is_evicted, page_size


def refaults(trace: TraceTables) -> pd.DataFrame:
    """A row for each (eviction, addition) of which the one took pages that the other brought back.

    The index, `time` (UTC), is of the addition. Of the same: `cgroup_id` (who is charged now, NA: nobody),
    `cause`, `tgid`, `task_cgroup_id` (who needed it). Of the eviction: `evicted` (UTC), `evicted_cgroup_id`
    (who was charged then), `evicted_cause`, `evictor_tgid`, `evictor_cgroup_id`. Of both: `inode_id`,
    `bytes`, `away_ns` (the time between), and `added_row` and `evicted_row`, their positions in `pagecache`.

    What had been evicted before the trace began, or whose eviction was lost, is not there.
    """
    pagecache = trace.pagecache
    links = link(pagecache)
    added, evicted = pagecache.iloc[links.added], pagecache.iloc[links.evicted]
    columns = {
        "cgroup_id": added["cgroup_id"],
        "cause": added["cause"],
        "tgid": added["tgid"],
        "task_cgroup_id": added["task_cgroup_id"],
        "inode_id": added["inode_id"],
        "bytes": links.pages * page_size(trace),
        "away_ns": times_ns(added) - times_ns(evicted),
        "evicted": utc_times(times_ns(evicted)),
        "evicted_cgroup_id": evicted["cgroup_id"].array,
        "evicted_cause": evicted["cause"].array,
        "evictor_tgid": evicted["tgid"].to_numpy(),
        "evictor_cgroup_id": evicted["task_cgroup_id"].to_numpy(),
        "added_row": links.added,
        "evicted_row": links.evicted,
    }
    return pd.DataFrame(columns, index=added.index)


def needed_again(trace: TraceTables) -> pd.DataFrame:
    """A row for each piece of a file that came back, once or often: from when it was first evicted
    (`begin_ns`) to when it last came back (`end_ns`), both since the epoch, it was needed. `cgroup_id` is who
    was charged for it first (NA: nobody), `bytes` its size."""
    pagecache = trace.pagecache
    returned = _returns(pagecache)
    firsts = np.flatnonzero(np.diff(returned.piece, prepend=-1))
    lasts = np.append(firsts[1:], len(returned.piece))[: len(firsts)] - 1
    begin, end = returned.evicted[firsts], returned.added[lasts]
    moments = times_ns(pagecache)
    columns = {
        "cgroup_id": pagecache["cgroup_id"].iloc[begin].array,
        "begin_ns": moments[begin],
        "end_ns": moments[end],
        "bytes": returned.pages[firsts] * page_size(trace),
    }
    return pd.DataFrame(columns)


@dataclass(frozen=True, slots=True)
class Links:
    """Positions in `pagecache`, by `added` and then `evicted`, and how many pages the two have in common."""

    added: Int64s
    evicted: Int64s
    pages: Int64s


def link(pagecache: pd.DataFrame) -> Links:
    """Each addition to the evictions that it undoes, wholly or in part."""
    returned = _returns(pagecache)
    order = np.lexsort((returned.evicted, returned.added))
    added, taken, pages = returned.added[order], returned.evicted[order], returned.pages[order]
    firsts = np.flatnonzero((np.diff(added, prepend=-1) != 0) | (np.diff(taken, prepend=-1) != 0))
    return Links(added[firsts], taken[firsts], np.add.reduceat(pages, firsts) if len(firsts) else pages)


@dataclass(frozen=True, slots=True)
class _Returns:
    """Each return of a piece: positions in `pagecache` of what brought it back and of what had taken it, and
    its pages. The returns of a piece are together, in the order of time."""

    added: Int64s
    evicted: Int64s
    piece: Int64s
    pages: Int64s


def _returns(pagecache: pd.DataFrame) -> _Returns:
    evicted = is_evicted(pagecache)
    is_add = is_one_of(pagecache["op"], ["add"])
    needed = is_add & ~is_one_of(pagecache["cause"], ["write"])
    rows = np.flatnonzero(_may_matter(pagecache, evicted, needed))
    pieces = _Pieces.from_rows(pagecache.iloc[rows])
    row = rows[pieces.row]
    before, after = row[:-1], row[1:]
    linked = (pieces.piece[:-1] == pieces.piece[1:]) & evicted[before] & needed[after]
    return _Returns(after[linked], before[linked], pieces.piece[1:][linked], pieces.pages[1:][linked])


def left_pages(pagecache: pd.DataFrame) -> Int64s:
    """Of each row, the pages that it added and that were still there when the trace ended."""
    pieces = _Pieces.from_rows(pagecache)
    is_last = np.diff(pieces.piece, append=-1) != 0
    stayed = is_last & is_one_of(pagecache["op"], ["add"])[pieces.row]
    left = np.zeros(len(pagecache), dtype=np.int64)
    np.add.at(left, pieces.row[stayed], pieces.pages[stayed])
    return left


def _may_matter(pagecache: pd.DataFrame, evicted: Bools, needed: Bools) -> Bools:
    """Which rows lie between the first eviction from their file and the last addition to it that counts."""
    file = np.asarray(pd.factorize(integers(pagecache["inode_id"]))[0], dtype=np.int64)
    row = np.arange(len(file))
    files = int(file.max(initial=-1)) + 1
    first, last = np.full(files, len(file)), np.full(files, -1)
    # NumPy assigns repeated positions in order: the last one stays.
    first[file[evicted][::-1]] = row[evicted][::-1]
    last[file[needed]] = row[needed]
    return np.asarray((first[file] <= row) & (row <= last[file]))


@dataclass(frozen=True, slots=True)
class _Pieces:
    """What rows cover, cut where any of them begins or ends: `row` covers `pages` of `piece`; the rows of a
    piece are together, in their order."""

    row: Int64s
    piece: Int64s
    pages: Int64s

    @classmethod
    def from_rows(cls, pagecache: pd.DataFrame) -> _Pieces:
        """The number of pieces is at most that of the pages."""
        inode, first = integers(pagecache["inode_id"]), integers(pagecache["index"])
        ends = first + integers(pagecache["nr_pages"])
        files, points = np.tile(inode, 2), np.concatenate([first, ends])
        order = np.lexsort((points, files))
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = (np.diff(files[order]) != 0) | (np.diff(points[order]) != 0)
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.cumsum(is_new) - 1
        cuts = points[order][is_new]

        first_piece, end_piece = rank[: len(first)], rank[len(first) :]
        counts = end_piece - first_piece
        row = np.repeat(np.arange(len(first)), counts)
        begin = np.cumsum(counts) - counts
        piece = np.arange(len(row)) + np.repeat(first_piece - begin, counts)
        together = np.argsort(piece, kind="stable")
        row, piece = row[together], piece[together]
        return cls(row, piece, cuts[piece + 1] - cuts[piece] if len(piece) else piece)
