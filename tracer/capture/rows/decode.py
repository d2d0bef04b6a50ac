"""Wire records decoded into rows of the trace's tables: whole arrays at a time, no loop per event."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer import categories
from tracer.capture.bpf.ring import Records
from tracer.enumerations import CATEGORY
from tracer.schema import LIMITS, SAMPLE_SOURCES, TABLES, TIME, UNLIMITED_BYTES
from tracer.stored_names import stored_name
from tracer.trace.arrow_columns import from_values, names, numbers
from tracer.wire.dtypes import WIRE
from tracer.wire.fields import Field
from tracer.wire.streams import EFFECTIVE, STREAM_AT, Stream

PAGE_BYTES: Final = mmap.PAGESIZE

MOST_CARRIED: Final = 8192
"""The most pairs of cgroup and category whose fraction of a page is carried: removed cgroups leave some."""
MOST_KILLS: Final = 4096
"""The most decisions of the OOM killer that are remembered. Their victims come at once."""

_PARTIAL_PAGES: Final = [
    number for number, category in enumerate(categories.CATEGORIES) if category.unit == "bytes"
]
_UNIT_BYTES: Final = {c.item: c.unit_bytes(PAGE_BYTES) for c in categories.COUNTERS if c.items}

STATE_COLUMNS: Final[Mapping[str, str]] = {
    counter.column: counter.item for counter in categories.COUNTERS if counter.items
} | categories.WORKINGSET_ITEMS
"""Column of `samples` -> item of memcg_vmstats_percpu.state that memory.stat prints there (memory_stats[] and
memcg1_stats[] in mm/memcontrol*.c)."""


def state_reading(values: Mapping[str, int]) -> dict[str, int]:
    """Return columns of `samples`, sizes in bytes, from item name -> value in the kernel's unit."""
    reading = {}
    for column, item in STATE_COLUMNS.items():
        if item in values:
            reading[column] = values[item] * _UNIT_BYTES.get(item, 1)
    return reading


NO_INDEX: Final = np.iinfo(np.uint64).max
"""The `index` of a page-cache record that is a sum. If its `inode_id` is 0 too, the sum is over processes and
files."""

_NOT_TO_BE_KILLED: Final = -(1 << 63)
"""LONG_MIN: the badness of a task that must not be killed (oom_badness in mm/oom_kill.c)."""

_UNKNOWN_OF_RESIDUE: Final = ("tgid", "usage_bytes", "limit_bytes")

_IS_NULL: Final[Mapping[str | None, Callable[[Any], Any]]] = {
    None: lambda values: None,
    "zero": lambda values: values == 0,
    "negative": lambda values: values < 0,
}
"""`Field.null` -> a test of whether a number, or each number of an array, stands for "not known"."""


def limit_bytes(pages: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return limits in bytes. PAGE_COUNTER_MAX is no limit: LONG_MAX / PAGE_SIZE (linux/page_counter.h)."""
    is_set = pages < np.iinfo(np.int64).max // PAGE_BYTES
    return np.where(is_set, np.where(is_set, pages, 0).astype(np.int64) * PAGE_BYTES, UNLIMITED_BYTES)


@dataclass
class Decoder:
    """A decoder for the records of one recording. `clock_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC.

    For the categories that the kernel counts in bytes, it carries fractions of a page from row to row. So
    the sum of `pages` over any number of rows is exact to the page, except for cgroups that did not change
    while `MOST_CARRIED` others were carried.
    """

    clock_offset_ns: int
    _carried: dict[tuple[int, int], int] = field(default_factory=dict)
    _kills: dict[tuple[int, int], int] = field(default_factory=dict)
    _decisions: int = 0

    def times(self, time_ns: npt.NDArray[np.uint64]) -> pa.Array:
        """Return monotonic stamps as UTC timestamps."""
        return numbers(time_ns.astype(np.int64) + self.clock_offset_ns, TIME)

    def rows(self, stream: Stream, records: Records, **columns: pa.Array) -> pa.RecordBatch:
        """Return the rows of the stream's table that stand for `records`.

        A column with the name of a field has the values of the field, and `X_bytes` has the values of
        `X_pages` in bytes. `columns` are the columns that the records lack.
        """
        if stream.name == "charge":  # a row for each category that changed
            at, categories_at = np.nonzero(records["delta_bytes"])
            delta_bytes = records["delta_bytes"][at, categories_at]
            records = records[at]
            columns |= self._changes(records["cgroup_id"], categories_at, delta_bytes)
        columns = _computed(stream, records) | columns
        if stream.name == "code_sample":
            columns |= self._following(records)
        for name, member, kind in _columns_of(stream.name):
            if name not in columns:
                columns[name] = self._column(name, member, kind, records)
        schema = TABLES[stream.table]
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _column(self, name: str, field: Field | None, kind: str, records: Records) -> pa.Array:
        if name == "time":
            return self.times(records["time_ns"])
        if field is None:
            return _sizes(name, records)
        values = records[field.name]
        if field.enumeration is not None:
            return names(values, field.enumeration.names)
        return numbers(values.astype(kind), null=_IS_NULL[field.null](values))

    def residue(self, time_ns: int, sums: Mapping[tuple[int, int], int]) -> pa.RecordBatch:
        """Return rows of `charge` for sums whose record was lost: (cgroup id, category) -> bytes."""
        changed = {key: delta_bytes for key, delta_bytes in sums.items() if delta_bytes}
        records = np.zeros(len(changed), WIRE["charge"])
        records["time_ns"] = time_ns
        for row, ((cgroup_id, category), delta_bytes) in zip(records, changed.items(), strict=True):
            row["cgroup_id"], row["delta_bytes"][category] = cgroup_id, delta_bytes
        nulls = {
            name: pa.nulls(len(records), TABLES["charge"].field(name).type) for name in _UNKNOWN_OF_RESIDUE
        }
        return self.rows(STREAM_AT["charge"], records, **nulls)

    def _following(self, records: Records) -> dict[str, pa.Array]:
        """Return the columns of `code_samples` that connect a sample with the row in which it is freed."""
        sampled_ns = records["sampled_ns"].astype(np.int64)
        return {
            "is_followed": from_values(records["is_followed"] != 0, pa.bool_()),
            "sampled": numbers(sampled_ns + self.clock_offset_ns, TIME, null=sampled_ns == 0),
        }

    def _changes(
        self,
        cgroup_ids: npt.NDArray[np.uint64],
        category: npt.NDArray[np.int64],
        delta_bytes: npt.NDArray[np.int64],
    ) -> dict[str, pa.Array]:
        """Return the columns of `charge` that differ in the rows of one record."""
        return {
            "category": names(category, CATEGORY.names),
            "pages": numbers(self._whole_pages(cgroup_ids, category, delta_bytes)),
            "bytes": numbers(delta_bytes),
        }

    def _whole_pages(
        self,
        cgroup_ids: npt.NDArray[np.uint64],
        category: npt.NDArray[np.int64],
        delta_bytes: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        pages = delta_bytes // PAGE_BYTES
        partial = np.flatnonzero(np.isin(category, _PARTIAL_PAGES))  # few rows are of this kind
        keys = zip(cgroup_ids[partial].tolist(), category[partial].tolist(), strict=True)
        for row, key, delta in zip(partial.tolist(), keys, delta_bytes[partial].tolist(), strict=True):
            pages[row], carried = divmod(self._carried.pop(key, 0) + delta, PAGE_BYTES)
            if carried:
                self._carried[key] = carried  # the latest last
                if len(self._carried) > MOST_CARRIED:
                    del self._carried[next(iter(self._carried))]
        return pages

    def kill_id(self, record: np.void) -> int:
        """Return the number of the decision that an OOM record belongs to, from 1. Its victims share it."""
        key = (int(record["trigger_pid"]), int(record["invocation"]))
        if key not in self._kills:
            self._decisions += 1
            self._kills[key] = self._decisions
            if len(self._kills) > MOST_KILLS:
                del self._kills[next(iter(self._kills))]
        return self._kills[key]

    def oom(self, record: np.void) -> dict[str, Any]:
        """Return a row of `oom`. Kills are few: they are decoded one by one."""
        owner = int(record["owner_cgroup_id"])
        return _columns_named_alike(STREAM_AT["oom"], record) | {
            "time": int(record["time_ns"]) + self.clock_offset_ns,
            "ktime_ns": int(record["time_ns"]),
            "kill_id": self.kill_id(record),
            "limit_owner_cgroup_id": owner or None,
            "usage_bytes": int(record["owner_usage_pages"]) * PAGE_BYTES if owner else None,
            "limit_bytes": int(limit_bytes(record["owner_limit_pages"])) if owner else None,
            "total_bytes": int(record["total_pages"]) * PAGE_BYTES or None,
            "pid": int(record["victim_pid"]),
            "tgid": int(record["victim_tgid"]),
            "comm": text(record["victim_comm"]),
            "cgroup_id": int(record["victim_cgroup_id"]),
            "uid": int(record["victim_uid"]),
            **_mapped_sizes(record),
            "threads": int(record["victim_threads"]),
            **mm_sizes(record),
        }

    def sigkill(self, record: np.void) -> dict[str, Any]:
        """Return a row of `sigkills`. They are few: they are decoded one by one."""
        row = _columns_named_alike(STREAM_AT["sigkill"], record) | {
            "time": int(record["time_ns"]) + self.clock_offset_ns,
            "usage_bytes": int(record["usage_pages"]) * PAGE_BYTES,
            "limit_bytes": int(limit_bytes(record["limit_pages"])),
        }
        for party in ("sender", "parent1", "parent2", "parent3"):
            if row[f"{party}_tgid"] is None:
                row[f"{party}_comm"] = None
        return row

    def candidates(self, records: Records, kill_id: int, chosen_tgid: int) -> list[dict[str, Any]]:
        """Return rows of `oom_candidates`: the tasks that a decision weighed, with the chosen process."""
        return [
            _columns_named_alike(STREAM_AT["candidate"], record)
            | {
                "time": int(record["time_ns"]) + self.clock_offset_ns,
                "kill_id": kill_id,
                "badness": None if record["badness"] == _NOT_TO_BE_KILLED else int(record["badness"]),
                "rss_bytes": None if no_mm(record) else sum(_rss(record).values()),
                "chosen": int(record["tgid"]) == chosen_tgid,
                **mm_sizes(record),
            }
            for record in records
        ]

    def oom_sample(
        self, record: np.void, positions: Mapping[str, int], *, version: int
    ) -> dict[str, Any] | None:
        """Return the `samples` row of the limit owner at a kill; None: no memcg's limit was hit.

        The counters are the owner's own. If it has children, these counters are not the whole, and stay null.
        """
        owner = int(record["owner_cgroup_id"])
        if not owner:
            return None
        row = sample_row(int(record["time_ns"]) + self.clock_offset_ns, owner, "oom")
        row["kill_id"] = self.kill_id(record)
        row["usage_bytes"] = int(record["owner_usage_pages"]) * PAGE_BYTES
        row["limit_bytes"] = int(limit_bytes(record["owner_limit_pages"]))
        row |= effective_sizes(record)
        if record["owner_has_children"]:
            return row
        if record["state_items"]:
            row |= state_reading({name: int(record["state"][at]) for name, at in positions.items()})
            row |= {column: int(record[column]) for column in ("pgscan", "pgsteal") if column in positions}
        if version == 1:
            row["sock_bytes"] = 0  # as in Sampler: tcpmem is not part of usage
        return row


@cache
def _columns_of(stream: str) -> list[tuple[str, Field | None, str]]:
    """Return (name, the field with that name, type in NumPy) of each column of a stream's table."""
    record, table = STREAM_AT[stream].record, TABLES[STREAM_AT[stream].table]
    return [(column.name, record.field_at(column.name), str(column.type)) for column in table]


def effective_sizes(record: np.void) -> dict[str, int | None]:
    """Return what a cgroup has together with its ancestors and children, as columns of `samples`."""
    sizes: dict[str, int | None] = {}
    for one in EFFECTIVE:
        column, value = one.name.replace("_pages", "_bytes"), record[one.name]
        unit = PAGE_BYTES if column != one.name else 1
        size = limit_bytes(value) if column in LIMITS else value * unit
        sizes[column] = None if value < 0 else int(size)
    return sizes


def _computed(stream: Stream, records: Records) -> dict[str, pa.Array]:
    """Return the columns of a stream that are not a field with the same name."""
    match stream.name:
        case "pagecache":
            return _null_columns(records)
        case "reclaim":
            return _reclaim_columns(records)
    return {}


def no_mm(record: np.void) -> bool:
    """Return whether a task had lost its memory."""
    return bool(record["anon_pages"] == -1)


def _rss(record: np.void) -> dict[str, int]:
    kinds = ("anon", "file", "shmem")
    return {f"{kind}_rss_bytes": int(record[f"{kind}_pages"]) * PAGE_BYTES for kind in kinds}


def mm_sizes(record: np.void) -> dict[str, int | None]:
    """Return the sizes of a task's memory, as columns of `oom` and `oom_candidates`."""
    sizes = {
        **_rss(record),
        "pgtables_bytes": int(record["pgtables_bytes"]),
        "swap_bytes": int(record["swap_entries"]) * PAGE_BYTES,
    }
    return dict.fromkeys(sizes) if no_mm(record) else dict(sizes)


def _mapped_sizes(record: np.void) -> dict[str, int | None]:
    """Return the sizes of the parts of an address space, touched or not, as columns of `oom`."""
    kinds = ("total", "data", "exec", "stack")
    return {
        f"{kind}_vm_bytes": None if no_mm(record) else int(record[f"{kind}_vm_pages"]) * PAGE_BYTES
        for kind in kinds
    }


def _null_columns(records: Records) -> dict[str, pa.Array]:
    """Return the columns of `pagecache` that are null in sums; {} without sums."""
    is_sum = records["index"] == NO_INDEX
    if not is_sum.any():
        return {}
    is_of_many = is_sum & (records["inode_id"] == 0)
    nulls = {"index": is_sum, "inode_id": is_of_many, "ino": is_of_many, "tgid": is_of_many}
    kinds = {name: str(TABLES["pagecache"].field(name).type) for name in nulls}
    return {name: numbers(records[name].astype(kinds[name]), null=null) for name, null in nulls.items()}


def _reclaim_columns(records: Records) -> dict[str, pa.Array]:
    """Return the columns of `reclaim` that sum both lists, and the page counter of the target."""
    both = {
        name: numbers(records[f"{name}_anon"].astype(np.int64) + records[f"{name}_file"])
        for name in ("scanned", *categories.RECLAIM_COUNTS)
    }
    has_no_target = records["cgroup_id"] == 0
    counter = {name: _sizes(name, records, null=has_no_target) for name in ("usage_bytes", "limit_bytes")}
    return both | counter


def stack_columns(
    kernel_stacks: npt.NDArray[np.int64], user_stacks: npt.NDArray[np.int64]
) -> dict[str, pa.Array]:
    """Return the columns of `code_samples` that its records lack: numbers of stacks, negative for no stack.
    What was mapped where the memory grew is not known yet."""
    numbered = {"kernel_stack_id": kernel_stacks, "stack_id": user_stacks}
    columns = {name: numbers(stacks, null=stacks < 0) for name, stacks in numbered.items()}
    return columns | {"mapping": pa.nulls(len(user_stacks), pa.string())}


def _sizes(column: str, records: Records, null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return a column of sizes, from the field that counts them in pages."""
    pages = records[f"{column.removesuffix('_bytes')}_pages"]
    values = limit_bytes(pages) if column == "limit_bytes" else pages.astype(np.int64) * PAGE_BYTES
    return numbers(values, null=null)


def _columns_named_alike(stream: Stream, record: np.void) -> dict[str, Any]:
    """Return the columns of one row that have the name of a field."""
    columns = ((column, stream.record.field_at(column.name)) for column in TABLES[stream.table])
    return {
        column.name: _value(field, record[field.name], is_flag=pa.types.is_boolean(column.type))
        for column, field in columns
        if field is not None
    }


def _value(field: Field, value: Any, *, is_flag: bool) -> Any:
    if field.enumeration is not None:
        return field.enumeration.names[value]
    if field.kind == "char":
        return text(value)
    if is_flag:
        return bool(value)
    return None if _IS_NULL[field.null](value) else int(value)


def sample_row(time_ns: int, cgroup_id: int, source: str) -> dict[str, Any]:
    """Return a row of `samples` with nothing known yet. `time_ns` is CLOCK_REALTIME."""
    assert source in SAMPLE_SOURCES
    row: dict[str, Any] = dict.fromkeys(TABLES["samples"].names)
    return row | {"time": time_ns, "cgroup_id": cgroup_id, "source": source}


def text(name: bytes) -> str:
    """Return a name from the kernel as a trace keeps it."""
    return stored_name(bytes(name).split(b"\0", 1)[0])
