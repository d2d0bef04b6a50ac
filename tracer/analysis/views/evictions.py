"""Additions to the page cache and evictions from it, by file, cgroup, cause or process.

The owner of a folio is the cgroup that is charged for it; the actor is the task that added or evicted it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core import hierarchy, naming
from tracer.analysis.core.columns import NO_ID, Int64s, column_times_ns, integers, is_one_of, known, times_ns
from tracer.analysis.core.tables import TraceTables, is_evicted, is_shmem, page_size
from tracer.analysis.views.groupings import GROUPINGS
from tracer.analysis.views.refaults import left_pages
from tracer.errors import UsageError

AMOUNTS: Final = (
    *("added_bytes", "evicted_bytes", "dropped_bytes", "refaulted_bytes", "returned_bytes", "left_bytes"),
    "evicted_from_others_bytes",
)
CHARGED_TO: Final = ("live", "removed", "nobody")
_MINOR_BITS: Final = 20  # include/linux/kdev_t.h


def evictions(trace: TraceTables, by: str = "file", cgroup: str | int | None = None) -> pd.DataFrame:
    """Return the additions, evictions and refaults of the page cache, summed by one of these:

    * `file`: `inode_id`, `path` (null: not known), `dev` (`major:minor`), `ino`, `deleted` (NA: not known);
      `owners`, the number of cgroups that were charged for it; `evictor_tgid`, `evictor_comm`,
      `evictor_cgroup_id`, `evictor_cgroup` and `evictor_bytes` of the process that evicted most of it.
    * `cgroup`: a row for each pair of owner and actor. Of the owner: `cgroup_id`, `cgroup` (a path),
      `container`, `run` of `runs` (`analysis.core.lives`), and `charged_to`: `live`, `removed` (the cgroup's
      directory was gone, its cache was not) or `nobody`. Of the actor: `task_cgroup_id`, `task_cgroup`.
    * `cause`: `op` and `cause`, as in `pagecache`.
    * `process`: `tgid`, `comm`, `task_cgroup_id` and `task_cgroup` of the actor.

    These columns follow, in bytes:

    * `added_bytes`, and of that `refaulted_bytes`, which had been evicted before (`analysis.views.refaults`),
      and `left_bytes`, which was still there at the end of the trace;
    * `evicted_bytes`, taken by reclaim, and of that `returned_bytes`, which was read again later, and
      `evicted_from_others_bytes`, whose owner was another cgroup than the actor's;
    * `dropped_bytes`, truncated, invalidated or gone for another reason.

    Cache from before the trace began is not known. The row with the most evicted bytes stands first.

    `cgroup` is any pattern of `naming.resolve`: only cache of cgroups that fit it, with all lives of their
    names, and of cgroups below them is counted.

    Raises TracerError for a cgroup that is not in the trace, UsageError for another `by`.
    """
    if by not in GROUPINGS:
        raise UsageError(f"evictions can be summed by {', '.join(GROUPINGS)}, not by {by!r}")
    return summed(trace, moves(trace, cgroup), by)


def summed(trace: TraceTables, rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return `evictions` of rows that `moves` gave."""
    return (
        _SUMMED[by](trace, rows)
        .sort_values(["evicted_bytes", "added_bytes", "dropped_bytes"], ascending=False, kind="stable")
        .reset_index(drop=True)
    )


def moves(trace: TraceTables, cgroup: str | int | None = None) -> pd.DataFrame:
    """Return the rows of `pagecache` that are not of shmem, with the columns `AMOUNTS`.

    A null `cgroup_id` is `columns.NO_ID`.
    """
    pagecache, size = trace.pagecache, page_size(trace)
    owner, actor = integers(pagecache["cgroup_id"]), integers(pagecache["task_cgroup_id"])
    moved = integers(pagecache["nr_pages"]) * size
    is_add, evicted = is_one_of(pagecache["op"], ["add"]), is_evicted(pagecache)
    amounts = {
        "added_bytes": moved * is_add,
        "evicted_bytes": moved * evicted,
        "dropped_bytes": moved * (~is_add & ~evicted),
        "refaulted_bytes": _at_rows(trace, "added_row"),
        "returned_bytes": _at_rows(trace, "evicted_row"),
        "left_bytes": left_pages(pagecache) * size,
        "evicted_from_others_bytes": moved * (evicted & (owner != NO_ID) & (owner != actor)),
    }
    found = pagecache.assign(cgroup_id=owner, **{name: amounts[name] for name in AMOUNTS})
    counts = ~is_shmem(trace)
    if cgroup is not None:
        counts &= np.isin(owner, hierarchy.members_of(trace, naming.select(trace, cgroup)))
    return found[counts]


def _at_rows(trace: TraceTables, position: str) -> Int64s:
    """Return the refaulted bytes of each row of `pagecache`; `position` is a column of `refaults` with
    rows."""
    total = np.zeros(len(trace.pagecache), dtype=np.int64)
    np.add.at(total, integers(trace.refaults[position]), integers(trace.refaults["bytes"]))
    return total


def _by_file(trace: TraceTables, rows: pd.DataFrame) -> pd.DataFrame:
    by_file = rows.groupby("inode_id", sort=True)
    sums = by_file[list(AMOUNTS)].sum()
    device = by_file[["dev", "ino"]].first()
    inodes = trace.inodes.set_index("inode_id")
    inodes = inodes[~inodes.index.duplicated(keep="last")].reindex(sums.index)
    numbers = integers(device["dev"])
    return pd.DataFrame(
        {
            "inode_id": sums.index,
            "path": inodes["path"].astype(object).where(inodes["path"].notna(), None).to_numpy(),
            "dev": [f"{dev >> _MINOR_BITS}:{dev & (1 << _MINOR_BITS) - 1}" for dev in numbers.tolist()],
            "ino": device["ino"].to_numpy(),
            "deleted": inodes["deleted"].astype("boolean").array,
            "owners": _owners(rows).reindex(sums.index, fill_value=0).to_numpy(),
            **{name: sums[name].to_numpy() for name in AMOUNTS},
            **_most_of_it(trace, rows, sums.index),
        }
    )


def _owners(rows: pd.DataFrame) -> pd.Series[int]:
    charged = rows.loc[rows["cgroup_id"] != NO_ID, ["inode_id", "cgroup_id"]].drop_duplicates()
    return charged.groupby("inode_id").size()


def _most_of_it(trace: TraceTables, rows: pd.DataFrame, files: pd.Index) -> dict[str, Any]:
    """Return the columns of the process that evicted most of each file; null if none did."""
    evicted = rows[rows["evicted_bytes"] > 0]
    keys = ["inode_id", "tgid", "task_cgroup_id"]
    sums = evicted.reset_index().groupby(keys, as_index=False).agg({"evicted_bytes": "sum", "time": "max"})
    most = sums.sort_values("evicted_bytes", ascending=False, kind="stable").drop_duplicates("inode_id")
    named = naming.with_names(trace, most.set_index("time")[["tgid"]])
    most = most.assign(comm=named["comm"].astype(object).to_numpy()).set_index("inode_id").reindex(files)
    actor = most["task_cgroup_id"].astype("Int64")
    return {
        "evictor_tgid": most["tgid"].astype("Int64").array,
        "evictor_comm": most["comm"].where(most["comm"].notna(), None).to_numpy(),
        "evictor_cgroup_id": actor.array,
        "evictor_cgroup": _paths(trace, integers(actor)),
        "evictor_bytes": most["evicted_bytes"].fillna(0).astype("int64").to_numpy(),
    }


def _by_cgroup(trace: TraceTables, rows: pd.DataFrame) -> pd.DataFrame:
    keys = ["cgroup_id", "charged_to", "task_cgroup_id"]
    charged_to = pd.Categorical.from_codes(_charged_to(trace, rows), categories=pd.Index(CHARGED_TO))
    sums = _sums(rows.assign(charged_to=charged_to), keys)
    owner, actor = integers(sums["cgroup_id"]), integers(sums["task_cgroup_id"])
    containers = {number: trace.places.container_of(number)[0] for number in np.unique(owner).tolist()}
    lives = [trace.places.lives.life_for(number) for number in owner.tolist()]
    described = {
        "cgroup_id": sums["cgroup_id"].astype("Int64").where(owner != NO_ID),
        "cgroup": _paths(trace, owner),
        "container": [containers[number] for number in owner.tolist()],
        "run": pd.Series([life.run for life in lives], dtype="Int64").where(owner != NO_ID),
        "runs": pd.Series([life.runs for life in lives], dtype="Int64").where(owner != NO_ID),
        "charged_to": sums["charged_to"],
        "task_cgroup_id": actor,
        "task_cgroup": _paths(trace, actor),
    }
    return pd.concat([pd.DataFrame(described), sums[list(AMOUNTS)]], axis=1)


def _charged_to(trace: TraceTables, rows: pd.DataFrame) -> Int64s:
    """Return the position in `CHARGED_TO` of each row."""
    gone = trace.cgroups[known(trace.cgroups["removed"])]
    removed = pd.Series(column_times_ns(gone["removed"]), index=integers(gone["cgroup_id"]))
    owner = integers(rows["cgroup_id"])
    position = pd.Index(removed.index).get_indexer(pd.Index(owner))
    removed_ns = np.append(removed.to_numpy(np.int64), np.iinfo(np.int64).max)[position]
    return np.where(owner == NO_ID, 2, np.where(removed_ns < times_ns(rows), 1, 0))


def _by_cause(_trace: TraceTables, rows: pd.DataFrame) -> pd.DataFrame:
    return _sums(rows, ["op", "cause"])


def _by_process(trace: TraceTables, rows: pd.DataFrame) -> pd.DataFrame:
    named = rows.assign(comm=naming.with_names(trace, rows[["tgid"]])["comm"].array)
    sums = _sums(named, ["tgid", "comm", "task_cgroup_id"])
    sums["comm"] = sums["comm"].astype(object).where(sums["comm"].notna(), None)
    sums.insert(3, "task_cgroup", _paths(trace, integers(sums["task_cgroup_id"])))
    return sums


def _sums(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return rows.groupby(keys, observed=True, dropna=False, as_index=False)[list(AMOUNTS)].sum()


def _paths(trace: TraceTables, cgroup_ids: Int64s) -> list[str | None]:
    """Return the path of each cgroup: None for `NO_ID`, `id:N` if the trace has no path."""
    labels = naming.labels_of(trace.cgroups, cgroup_ids.tolist())
    return [
        None if number == NO_ID else label for number, label in zip(cgroup_ids.tolist(), labels, strict=True)
    ]


_SUMMED: Final[Mapping[str, Callable[[TraceTables, pd.DataFrame], pd.DataFrame]]] = dict(
    zip(GROUPINGS, (_by_file, _by_cgroup, _by_cause, _by_process), strict=True)
)
