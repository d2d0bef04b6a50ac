"""Additions to the page cache and evictions from it, by file, cgroup, cause or process; and the cache that
cgroups held at the first look.

The owner of a folio is the cgroup that is charged for it; the actor is the task that added or evicted it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import (
    NO_ID,
    Bools,
    Int64s,
    Integers,
    distinct,
    integers,
    is_one_of,
    known,
    sums_of,
    times_ns,
)
from tracer.analysis.core.evicted import is_evicted
from tracer.analysis.core.ledger import made_in_trace
from tracer.analysis.core.tables import ShmemFiles, TraceTables, page_size
from tracer.analysis.views.refaults import COUNTS as OF_PAGES
from tracer.errors import UsageError
from tracer.quantities import EVICTIONS_COLUMNS, EVICTIONS_GROUPINGS
from tracer.stored_names import stored_device


@dataclass(frozen=True, slots=True)
class FirstLooks:
    """The page cache that the first look at each cgroup found (`contents`), without shmem.

    `last_ns`: the time of the latest of these looks; None: there was none. `of_files`: inode_id -> bytes, for
    the files that were named.
    """

    last_ns: int | None
    bytes: int
    of_files: pd.Series[int]


def first_looks(trace: TraceTables, members: Int64s | None) -> FirstLooks:
    """Return the first looks at these cgroups; None: at all.

    What a look finds in a cgroup that had no page cache when the trace began came later, and counts as 0.
    """
    rows = trace.contents
    rows = rows[is_one_of(rows["kind"], ["file"])]
    if members is not None:
        rows = rows[np.isin(integers(rows["cgroup_id"]), members)]
    times = pd.Series(times_ns(rows), index=rows.index)
    first = times.groupby(integers(rows["cgroup_id"])).transform("min")
    is_first = (times == first).to_numpy()
    rows, times = rows[is_first], times[is_first]
    is_before = ~_began_empty(trace, integers(rows["cgroup_id"]))
    named = rows[is_before & known(rows["inode_id"])]
    return FirstLooks(
        last_ns=int(times.max()) if len(times) else None,
        bytes=int(rows["bytes"][is_before].sum()),
        of_files=named["bytes"].groupby(integers(named["inode_id"])).sum(),
    )


def _began_empty(trace: TraceTables, cgroup_ids: Int64s) -> Bools:
    """Return a mask of the cgroups that were made during the trace, or had no page cache at their first
    sample."""
    samples = trace.samples[np.isin(integers(trace.samples["cgroup_id"]), cgroup_ids)]
    first = samples[known(samples["file_bytes"])].drop_duplicates("cgroup_id")
    empty = integers(first["cgroup_id"])[(first["file_bytes"] == 0).to_numpy(np.bool_)]
    return made_in_trace(trace.cgroups, cgroup_ids) | np.isin(cgroup_ids, empty)


AMOUNTS: Final = tuple(column.field for column in EVICTIONS_COLUMNS)
USES: Final = ("only written", "read once", "read again")
"""The uses of a file's cache in the trace: it was written and never read, read and not read again after its
eviction, or read again."""
CHARGED_TO: Final = ("live", "removed", "nobody")
_FLOWS: Final = ("added", "written", "evicted", "evicted_from_others", "dropped")
"""What an event is counted as, with all of its pages: everything that fits."""

COUNTS: Final = (*_FLOWS, *(name for name in OF_PAGES if name != "pages"))
"""The counts of pages that are the columns `AMOUNTS`."""


def evictions(trace: TraceTables, by: str = "file", cgroup: str | int | None = None) -> pd.DataFrame:
    """Return the additions, evictions and refaults of the page cache, summed by one of these:

    * `file`: `inode_id`, `path` (null: not known), `dev` (`major:minor`), `ino`, `deleted` (NA: not known);
      `owners`, the number of cgroups that were charged for it; `evictor_tgid`, `evictor_comm`,
      `evictor_cgroup_id`, `evictor_cgroup` and `evictor_bytes` of the process that evicted most of it; `use`,
      one of `USES` (null: the trace has no addition to its cache, or what was dropped of it may have been
      read again). If a file is only written, such as a log, nothing reads its cache, so its eviction costs
      nothing.
    * `cgroup`: a row for each pair of owner and actor. Columns of the owner: `cgroup_id`, `cgroup` (a path),
      `container`, `run` of `runs` (`analysis.core.lives`), and `charged_to`: `live`, `removed` (the cgroup's
      directory was gone, its cache was not) or `nobody`. Columns of the actor: `task_cgroup_id`,
      `task_cgroup`.
    * `cause`: `op` and `cause`, as in `pagecache`.
    * `process`: `tgid`, `comm`, `task_cgroup_id` and `task_cgroup` of the actor.

    The columns of `tracer.quantities.EVICTIONS_COLUMNS` follow, in bytes, with the meanings that they have
    there and in docs/examples/evictions.md. `refaulted_bytes`, `left_bytes` and `written_bytes` are parts of
    `added_bytes`; `returned_bytes` and `evicted_from_others_bytes` are parts of `evicted_bytes`.

    `file` also has `first_look_bytes`: the file's cache at the first look at each cgroup (`contents`), such
    as from before the trace began; null: no such look named the file. A file that no event of the trace is
    about has no row.

    Events that were summed (`summed`) are in `added_bytes`, `evicted_bytes` and `dropped_bytes`, and their
    pages cannot be followed: `refaulted_bytes`, `returned_bytes` and `left_bytes` are then lower bounds. The
    file and the process of a sum may be null. The row with the most evicted bytes comes first.

    `cgroup` is any pattern of `naming.resolve`: only cache of cgroups that fit it, with all lives of their
    names, and of cgroups below them is counted.

    Raises TracerError for a cgroup that is not in the trace, UsageError for another `by`.
    """
    if by not in EVICTIONS_GROUPINGS:
        raise UsageError(f"evictions can be summed by {', '.join(EVICTIONS_GROUPINGS)}, not by {by!r}")
    return summed(trace, moves(trace, cgroup), by)


@dataclass(frozen=True, slots=True)
class Moves:
    """The moves of page cache, without shmem, as sums: DataFrames with keys and the columns `AMOUNTS`.

    `kinds` has a row for each of `CacheEvents.kinds` that occurs, with its columns. `files` has one for each
    file and owner: `file` (a position in `CacheEvents.files`) and `cgroup_id` (`NO_ID`: none). `evictors` has
    one for each file and process that evicted from it: `file`, `kind` (of its last eviction, a position in
    `CacheEvents.kinds`) and only `evicted_bytes` of the amounts. `first_looks` are those at the same cgroups.
    """

    kinds: pd.DataFrame
    files: pd.DataFrame
    evictors: pd.DataFrame
    first_looks: FirstLooks


def summed(trace: TraceTables, sums: Moves, by: str) -> pd.DataFrame:
    """Return the table of `evictions` from the result of `moves`."""
    return (
        _SUMMED[by](trace, sums)
        .sort_values(["evicted_bytes", "added_bytes", "dropped_bytes"], ascending=False, kind="stable")
        .reset_index(drop=True)
    )


def moves(trace: TraceTables, cgroup: str | int | None = None) -> Moves:
    """Return the moves of page cache of the cgroups that fit `cgroup`, and of those below them."""
    kinds = trace.cache_events.kinds
    counts, members = np.ones(len(kinds), dtype=np.bool_), None
    if cgroup is not None:
        members = naming.members_of(trace, naming.select(trace, cgroup))
        counts = np.isin(integers(kinds["cgroup_id"]), members)
    flows, owner = _flows(kinds), _numbers(kinds, "cgroup_id")
    flow, _ = distinct(*flows.values())
    process, is_taken = _numbers(kinds, "tgid", "task_cgroup_id"), is_evicted(kinds)
    totals, shmem = trace.page_moves.totals, ShmemFiles.from_inodes(trace.inodes)
    is_file = ~shmem.hold(*(integers(trace.cache_events.files[name]) for name in ("inode_id", "dev")))
    chosen = np.flatnonzero(counts[totals["kind"]] & is_file[totals["file"]])
    chosen = chosen[np.argsort(-totals["last_ns"][chosen], kind="stable")]  # the last event stands first
    shown = {name: totals[name][chosen] for name in ("file", "kind")}
    pages = {name: totals[name][chosen] for name in OF_PAGES}
    file, kind = shown.values()
    of_kind = {name: sums_of(kind, of, len(kinds)) for name, of in pages.items()}
    by_kind = _amounts(trace, pd.DataFrame(of_kind | {"kind": np.arange(len(kinds))}), flows)
    files = _amounts(trace, _sums(shown, (file, owner[kind], flow[kind]), pages), flows)
    files["cgroup_id"] = integers(kinds["cgroup_id"])[files["kind"]]
    taken = np.flatnonzero(is_taken[kind])
    evicted = {"evicted_bytes": pages["pages"][taken] * page_size(trace)}
    of_taken = {name: column[taken] for name, column in shown.items()}
    return Moves(
        kinds.join(by_kind.drop(columns="kind"))[np.bincount(kind, minlength=len(kinds)) > 0],
        files.groupby(["file", "cgroup_id"], as_index=False)[list(AMOUNTS)].sum(),
        _sums(of_taken, (of_taken["file"], process[of_taken["kind"]]), evicted),
        first_looks(trace, members),
    )


def _flows(kinds: pd.DataFrame) -> dict[str, Bools]:
    """Return for each of `_FLOWS` a mask of the kinds of event that count."""
    owner, actor = integers(kinds["cgroup_id"]), integers(kinds["task_cgroup_id"])
    added, evicted = is_one_of(kinds["op"], ["add"]), is_evicted(kinds)
    written = added & is_one_of(kinds["cause"], ["write"])
    from_others = evicted & (owner != NO_ID) & (owner != actor)
    return dict(zip(_FLOWS, (added, written, evicted, from_others, ~(added | evicted)), strict=True))


def _numbers(kinds: pd.DataFrame, *names: str) -> Integers:
    """Return for each kind a number for its values in these columns, from 0."""
    return distinct(*(np.asarray(pd.factorize(kinds[name])[0], dtype=np.int64) for name in names))[0]


def _sums(
    shown: Mapping[str, Int64s], by: tuple[Integers, ...], amounts: Mapping[str, Int64s]
) -> pd.DataFrame:
    """Return the sums of the amounts for each combination of `by`, with the first values of `shown`."""
    code, firsts = distinct(*by)
    columns = {name: column[firsts] for name, column in shown.items()}
    return pd.DataFrame(columns | {name: sums_of(code, of, len(firsts)) for name, of in amounts.items()})


def _amounts(trace: TraceTables, pages: pd.DataFrame, flows: Mapping[str, Bools]) -> pd.DataFrame:
    """Return sums of pages by kind, with the columns `AMOUNTS` in bytes."""
    kind, page_bytes = pages["kind"].to_numpy(), page_size(trace)
    counts = {name: pages["pages"].where(fits[kind], 0) for name, fits in flows.items()}
    counts |= {name: pages[name] for name in OF_PAGES}
    amounts = {column.field: counts[column.count] * page_bytes for column in EVICTIONS_COLUMNS}
    return pages.drop(columns=list(OF_PAGES)).assign(**amounts)


def _by_file(trace: TraceTables, sums: Moves) -> pd.DataFrame:
    files = trace.cache_events.files
    inode_id = integers(files["inode_id"])
    of_file = sums.files.assign(inode_id=inode_id[sums.files["file"]])
    found = of_file.groupby("inode_id")[list(AMOUNTS)].sum()
    owners = of_file[of_file["cgroup_id"] != NO_ID].groupby("inode_id")["cgroup_id"].nunique()
    devices = files.set_index(inode_id)[["dev", "ino"]].drop(NO_ID, errors="ignore").reindex(found.index)
    numbers = integers(devices["dev"].astype("Int64")).tolist()
    inodes = trace.inodes.set_index("inode_id")
    inodes = inodes[~inodes.index.duplicated(keep="last")].reindex(found.index)
    return pd.DataFrame(
        {
            "inode_id": _or_null(found.index.to_series()),
            "path": inodes["path"].astype(object).where(inodes["path"].notna(), None).to_numpy(),
            "dev": [None if dev == NO_ID else stored_device(dev) for dev in numbers],
            "ino": devices["ino"].to_numpy(),
            "deleted": inodes["deleted"].astype("boolean").array,
            "use": _uses(found),
            "owners": owners.reindex(found.index, fill_value=0).to_numpy(),
            **{name: found[name].to_numpy() for name in AMOUNTS},
            "first_look_bytes": sums.first_looks.of_files.reindex(found.index).astype("Int64").array,
            **_most_of_it(trace, sums, found.index),
        }
    )


def _uses(of_file: pd.DataFrame) -> Any:
    """Return for each file the use of its cache; null if no cache was added, or if dropped cache may have
    been read again: only evictions are followed."""
    is_read_again = of_file[["returned_bytes", "refaulted_bytes"]].sum(axis=1) > 0
    is_only_written = (of_file["added_bytes"] == of_file["written_bytes"]) & ~is_read_again
    is_unknown = (of_file["added_bytes"] == 0) | ((of_file["dropped_bytes"] > 0) & ~is_only_written)
    code = np.select([is_read_again, is_unknown, is_only_written], [2, -1, 0], default=1)
    return pd.Categorical.from_codes(code, categories=pd.Index(USES))


def _or_null(ids: pd.Series[int]) -> pd.arrays.IntegerArray:
    """Return ids with null in place of `NO_ID`."""
    numbers = integers(ids)
    return pd.arrays.IntegerArray(numbers, numbers == NO_ID)


def _most_of_it(trace: TraceTables, sums: Moves, files: pd.Index) -> dict[str, Any]:
    """Return the columns of the process that evicted most of each file; null if no process evicted any of
    it."""
    events = trace.cache_events
    inode_id = integers(events.files["inode_id"])[sums.evictors["file"]]
    evictors = sums.evictors.assign(inode_id=inode_id).join(events.kinds, on="kind")
    keys = ["inode_id", "tgid", "task_cgroup_id"]
    by_process = evictors.groupby(keys, as_index=False).agg({"evicted_bytes": "sum", "task": "first"})
    most = by_process.sort_values("evicted_bytes", ascending=False, kind="stable").drop_duplicates("inode_id")
    most = (
        most.assign(comm=trace.processes.comms(integers(most["task"]))).set_index("inode_id").reindex(files)
    )
    actor = most["task_cgroup_id"].astype("Int64")
    return {
        "evictor_tgid": _or_null(most["tgid"].fillna(NO_ID)),
        "evictor_comm": most["comm"].where(most["comm"].notna(), None).to_numpy(),
        "evictor_cgroup_id": actor.array,
        "evictor_cgroup": _paths(trace, integers(actor)),
        "evictor_bytes": most["evicted_bytes"].fillna(0).astype("int64").to_numpy(),
    }


def _by_cgroup(trace: TraceTables, sums: Moves) -> pd.DataFrame:
    kinds = sums.kinds
    code = np.where(kinds["cgroup_id"] == NO_ID, 2, kinds["is_removed"])
    charged_to = pd.Categorical.from_codes(code, categories=pd.Index(CHARGED_TO))
    found = _grouped(kinds.assign(charged_to=charged_to), ["cgroup_id", "charged_to", "task_cgroup_id"])
    owner, actor = integers(found["cgroup_id"]), integers(found["task_cgroup_id"])
    containers = {number: trace.places.container_of(number)[0] for number in np.unique(owner).tolist()}
    lives = [trace.places.lives.life_for(number) for number in owner.tolist()]
    described = {
        "cgroup_id": found["cgroup_id"].astype("Int64").where(owner != NO_ID),
        "cgroup": _paths(trace, owner),
        "container": [containers[number] for number in owner.tolist()],
        "run": pd.Series([life.run for life in lives], dtype="Int64").where(owner != NO_ID),
        "runs": pd.Series([life.runs for life in lives], dtype="Int64").where(owner != NO_ID),
        "charged_to": found["charged_to"],
        "task_cgroup_id": actor,
        "task_cgroup": _paths(trace, actor),
    }
    return pd.concat([pd.DataFrame(described), found[list(AMOUNTS)]], axis=1)


def _by_cause(_trace: TraceTables, sums: Moves) -> pd.DataFrame:
    return _grouped(sums.kinds, ["op", "cause"])


def _by_process(trace: TraceTables, sums: Moves) -> pd.DataFrame:
    comm = pd.Categorical(trace.processes.comms(integers(sums.kinds["task"])))
    found = _grouped(sums.kinds.assign(comm=comm), ["tgid", "comm", "task_cgroup_id"])
    found["comm"] = found["comm"].astype(object).where(found["comm"].notna(), None)
    found["tgid"] = _or_null(found["tgid"])
    found.insert(3, "task_cgroup", _paths(trace, integers(found["task_cgroup_id"])))
    return found


def _grouped(kinds: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return kinds.groupby(keys, observed=True, dropna=False, as_index=False)[list(AMOUNTS)].sum()


def _paths(trace: TraceTables, cgroup_ids: Int64s) -> list[str | None]:
    """Return the path of each cgroup: None for `NO_ID`, `id:N` if the trace has no path."""
    labels = naming.labels_of(trace.cgroups, cgroup_ids.tolist())
    return [
        None if number == NO_ID else label for number, label in zip(cgroup_ids.tolist(), labels, strict=True)
    ]


_SUMMED: Final[Mapping[str, Callable[[TraceTables, Moves], pd.DataFrame]]] = dict(
    zip(EVICTIONS_GROUPINGS, (_by_file, _by_cgroup, _by_cause, _by_process), strict=True)
)
