"""Refaults: page cache that was evicted and read again, linked to the evictions that took it.

An eviction and the refaults that follow it may differ in size: a folio of 2 MiB is evicted, and single pages
are read again. So each file is cut into pieces wherever a folio begins or ends, and an event is one event for
each piece that its folio covers. The events of one piece are put in the order of time. An addition is a
refault if the event before it is an eviction. An addition by write is not: its contents are replaced, not
needed, and the kernel does not count it either, since v4.7 ("mm: workingset: only do workingset activations
on reads"). After a write or a truncation, nothing is linked to the eviction before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Bools, Int64s, integers, is_one_of, times_ns, utc_times
from tracer.analysis.core.tables import TraceTables, is_evicted, page_size


def refaults(trace: TraceTables) -> pd.DataFrame:
    """Return a row for each pair of an eviction and an addition that brought back pages of it.

    The index, `time` (UTC), is that of the addition. Columns of the addition: `cgroup_id` (the cgroup that is
    charged now, NA: none), `cause`, and `tgid` and `task_cgroup_id` of the process that needed the pages. Of
    the eviction: `evicted` (UTC), `evicted_cgroup_id` (the cgroup that was charged then), `evicted_cause`,
    `evictor_tgid`, `evictor_cgroup_id`. Of both: `inode_id`, `bytes`, `away_ns` (the time between them), and
    their positions in `pagecache`, `added_row` and `evicted_row`.

    Pages that were evicted before the trace began, or whose eviction was lost, have no row.
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
    """Return a row for each piece of a file that was refaulted, once or several times.

    It was needed from its first eviction (`begin_ns`) to its last refault (`end_ns`), both in ns since the
    epoch. `cgroup_id` is the cgroup that was charged for it first (NA: none), `bytes` its size.
    """
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
    """Pairs of an addition and an eviction, ordered by both, and the number of pages that they share.

    `added` and `evicted` are positions in `pagecache`.
    """

    added: Int64s
    evicted: Int64s
    pages: Int64s


def link(pagecache: pd.DataFrame) -> Links:
    """Link each addition to the evictions whose pages it brought back, all or some of them."""
    returned = _returns(pagecache)
    order = np.lexsort((returned.evicted, returned.added))
    added, taken, pages = returned.added[order], returned.evicted[order], returned.pages[order]
    firsts = np.flatnonzero((np.diff(added, prepend=-1) != 0) | (np.diff(taken, prepend=-1) != 0))
    return Links(added[firsts], taken[firsts], np.add.reduceat(pages, firsts) if len(firsts) else pages)


@dataclass(frozen=True, slots=True)
class _Returns:
    """The refaults of pieces; those of one piece are together, in the order of time.

    `added` and `evicted` are the positions in `pagecache` of the addition and of the eviction before it,
    `pages` is the size of the piece.
    """

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
    """Return for each row the number of pages that it added and that were there at the end of the trace."""
    pieces = _Pieces.from_rows(pagecache)
    is_last = np.diff(pieces.piece, append=-1) != 0
    stayed = is_last & is_one_of(pagecache["op"], ["add"])[pieces.row]
    left = np.zeros(len(pagecache), dtype=np.int64)
    np.add.at(left, pieces.row[stayed], pieces.pages[stayed])
    return left


def _may_matter(pagecache: pd.DataFrame, evicted: Bools, needed: Bools) -> Bools:
    """Return a mask of the rows between the first eviction from their file and its last refault.

    No other rows can be part of a link; leaving them out saves most of the sorting.
    """
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
    """The pieces that rows cover: `row` covers `piece`, which has `pages`.

    The rows of a piece are together, in the order of the table.
    """

    row: Int64s
    piece: Int64s
    pages: Int64s

    @classmethod
    def from_rows(cls, pagecache: pd.DataFrame) -> _Pieces:
        """Cut the files of these rows into pieces, of which there are at most as many as pages."""
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
