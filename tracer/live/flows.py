"""Flows: what was charged, cached, evicted and reclaimed, as sums of the rows of a batch for each cgroup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from tracer.categories import CATEGORIES
from tracer.enumerations import CAUSE, EVICTION_CAUSES, STALL_KIND
from tracer.live.sample_arrays import Numbers
from tracer.metric_families import OUTCOMES
from tracer.trace.arrow_columns import nullable_integers, words

CATEGORY_NAMES: Final = tuple(category.name for category in CATEGORIES)
_BLOCKS: Final[Mapping[str, Sequence[str]]] = {
    "level": CATEGORY_NAMES,  # bytes, signed
    "charged": ("charged",),  # bytes, increases alone
    "added": CAUSE.names,  # bytes
    "deleted": CAUSE.names,  # bytes
    "attempts": OUTCOMES,
    "reclaimed": ("reclaimed",),  # bytes
    "reclaim": ("reclaim_ns",),  # of the tasks that reclaimed
    "stalled": STALL_KIND.names,  # ns
    "kills": ("kills",),  # OOM decisions
}
BLOCKS: Final[dict[str, slice]] = {}
"""Name of a group of flows -> its columns in an array of flows."""

WIDTH: Final = sum(map(len, _BLOCKS.values()))

_at = 0
for _name, _members in _BLOCKS.items():
    BLOCKS[_name] = slice(_at, _at + len(_members))
    _at += len(_members)

_NO_CGROUP: Final = 0


class Flows(NamedTuple):
    """Sums of some rows: `sums` has a row of `WIDTH` for each of `cgroup_ids`, which are distinct."""

    cgroup_ids: Numbers
    sums: Numbers


class Evictions(NamedTuple):
    """Evicted bytes by pair: the owner of the page cache, and the cgroup of the task that reclaimed it."""

    owners: Numbers
    evictors: Numbers
    sizes: Numbers


ADD_CAUSES: Final = ("read", "readahead", "fault", "write", "other")
DROP_CAUSES: Final = ("truncate", "invalidate", "drop_caches", "other")
"""The reasons other than eviction why page cache is deleted."""

_EVICTION_CODES: Final = np.array([CAUSE.number(name) for name in EVICTION_CAUSES])


def flows_of(table: str, rows: pa.RecordBatch, page_bytes: int) -> list[Flows]:
    """Return the sums of the rows of a table; [] for most tables, which have no flows.

    A page is `page_bytes`. Rows that belong to no cgroup are left out.
    """
    of = _OF_TABLE.get(table)
    return of(rows, page_bytes) if of is not None and rows.num_rows else []


def evictions_of(rows: pa.RecordBatch, page_bytes: int) -> Evictions:
    """Return the evictions in rows of `pagecache`, by owner and evictor."""
    is_evicted = (_codes(rows, "op", ("add", "delete")) == 1) & np.isin(
        _codes(rows, "cause", CAUSE.names), _EVICTION_CODES
    )
    owners = _column(rows, "cgroup_id")
    is_evicted &= owners != _NO_CGROUP
    pairs = np.stack([owners, _column(rows, "task_cgroup_id")], axis=1)[is_evicted]
    distinct, which = np.unique(pairs, axis=0, return_inverse=True)
    sizes = _summed(which.reshape(-1), _column(rows, "nr_pages")[is_evicted], len(distinct)) * page_bytes
    return Evictions(distinct[:, 0], distinct[:, 1], sizes)


def _of_charge(rows: pa.RecordBatch, _page_bytes: int) -> list[Flows]:
    sizes, codes = _column(rows, "bytes"), _codes(rows, "category", CATEGORY_NAMES)
    grown = np.where(np.isin(codes, _IN_USAGE), np.maximum(sizes, 0), 0)
    return _grouped(rows, "cgroup_id", {"level": (codes, sizes), "charged": (None, grown)})


def _of_pagecache(rows: pa.RecordBatch, page_bytes: int) -> list[Flows]:
    sizes, codes = _column(rows, "nr_pages") * page_bytes, _codes(rows, "cause", CAUSE.names)
    is_added = _codes(rows, "op", ("add", "delete")) == 0
    added, deleted = np.where(is_added, sizes, 0), np.where(is_added, 0, sizes)
    return _grouped(rows, "cgroup_id", {"added": (codes, added), "deleted": (codes, deleted)})


def _of_reclaim(rows: pa.RecordBatch, page_bytes: int) -> list[Flows]:
    freed = _column(rows, "reclaimed")
    is_waited = _codes(rows, "kind", ("kswapd",)) != 0
    ones = np.ones(len(freed), np.int64)
    outcome = np.where(freed > 0, *map(OUTCOMES.index, ("freed", "nothing")))
    waited = np.where(is_waited, _column(rows, "duration_ns"), 0)
    return [
        *_grouped(rows, "cgroup_id", {"attempts": (outcome, ones), "reclaimed": (None, freed * page_bytes)}),
        *_grouped(rows, "task_cgroup_id", {"reclaim": (None, waited)}),
    ]


def _of_stalls(rows: pa.RecordBatch, _page_bytes: int) -> list[Flows]:
    codes = _codes(rows, "kind", STALL_KIND.names)
    return _grouped(rows, "cgroup_id", {"stalled": (codes, _column(rows, "duration_ns"))})


def _of_oom(rows: pa.RecordBatch, _page_bytes: int) -> list[Flows]:
    """Count decisions: for the owner of the limit, or without a limit for the first victim's cgroup."""
    _, firsts = np.unique(_column(rows, "kill_id"), return_index=True)
    owners, victims = (_column(rows, name)[firsts] for name in ("limit_owner_cgroup_id", "cgroup_id"))
    ids, which = np.unique(np.where(owners == _NO_CGROUP, victims, owners), return_inverse=True)
    sums = np.zeros((len(ids), WIDTH), np.int64)
    sums[:, BLOCKS["kills"].start] = np.bincount(which.reshape(-1), minlength=len(ids))
    return [Flows(ids, sums)]


_OF_TABLE: Final[Mapping[str, Callable[[pa.RecordBatch, int], list[Flows]]]] = {
    "charge": _of_charge,
    "pagecache": _of_pagecache,
    "reclaim": _of_reclaim,
    "stalls": _of_stalls,
    "oom": _of_oom,
}
_IN_USAGE: Final = np.array([code for code, one in enumerate(CATEGORIES) if one.is_in_usage])


def _grouped(
    rows: pa.RecordBatch, key: str, blocks: Mapping[str, tuple[Numbers | None, Numbers]]
) -> list[Flows]:
    """Return sums by the cgroup in the column `key`. `blocks`: block -> (position within it, amount), each an
    array with a number for each row; None: the block has one position."""
    ids, which = np.unique(_column(rows, key), return_inverse=True)
    which = which.reshape(-1)
    sums = np.zeros((len(ids), WIDTH), np.int64)
    for name, (given, amounts) in blocks.items():
        columns = BLOCKS[name]
        width = columns.stop - columns.start
        codes = np.zeros(len(which), np.int64) if given is None else given
        is_named = codes >= 0
        cells = (which * width + codes)[is_named]
        sums[:, columns] = _summed(cells, amounts[is_named], len(ids) * width).reshape(len(ids), width)
    known = ids != _NO_CGROUP
    return [Flows(ids[known], sums[known])] if known.any() else []


def _summed(places: Numbers, amounts: Numbers, length: int) -> Numbers:
    sums = np.zeros(length, np.int64)
    np.add.at(sums, places, amounts)
    return sums


def _column(rows: pa.RecordBatch, name: str) -> Numbers:
    """Return a column of integers; 0 for null: no cgroup has this id."""
    return nullable_integers(rows.column(name), _NO_CGROUP)


def _codes(rows: pa.RecordBatch, name: str, vocabulary: Sequence[str]) -> Numbers:
    """Return the positions in `vocabulary` of a column of names; -1 for other names."""
    codes, found = words(rows.column(name))
    places = np.array([vocabulary.index(word) if word in vocabulary else -1 for word in found], np.int64)
    return places[codes]
