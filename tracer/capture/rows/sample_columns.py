"""Samples decoded into rows of the table `samples`, a column at a time."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from tracer.capture.bpf.ring import Records
from tracer.capture.rows.decode import PAGE_BYTES, limit_bytes
from tracer.capture.rows.stat_positions import STAT_COLUMNS, Flags, Numbers, StatPositions
from tracer.schema import LIMITS, SAMPLE_SOURCES, TABLES, TIME, UNLIMITED_BYTES
from tracer.trace.arrow_columns import numbers, strings
from tracer.wire.records import SAMPLE

_SCHEMA: Final = TABLES["samples"]
_COLUMNS: Final = [name for name in _SCHEMA.names if name not in ("time", "cgroup_id", "source", "kill_id")]
_AT: Final = {name: row for row, name in enumerate(_COLUMNS)}
_FIELDS: Final = [field.name for field in SAMPLE.fields if field.kind == "s64" and not field.length]
_FIELD_ROWS: Final = np.array([_AT[name.replace("_pages", "_bytes")] for name in _FIELDS])
_SIZE_ROWS: Final = np.array(
    [
        row
        for name, row in zip(_FIELDS, _FIELD_ROWS, strict=True)
        if name.endswith("_pages") and _COLUMNS[row] not in LIMITS
    ]
)
_SOURCES: Final = strings(SAMPLE_SOURCES)
_LIMIT_ROWS: Final = np.array([_AT[name] for name in LIMITS])
_STAT_ROWS: Final = np.array([_AT[name] for name in STAT_COLUMNS])


def sample_rows(
    records: Records, positions: StatPositions, *, version: int, clock_offset_ns: int
) -> pa.RecordBatch:
    """Return the rows of samples of cgroups of `version`."""
    values = np.zeros((len(_COLUMNS), len(records)), np.int64)
    is_null = np.ones(values.shape, np.bool_)
    values[_FIELD_ROWS] = [records[name] for name in _FIELDS]
    is_null[_FIELD_ROWS] = values[_FIELD_ROWS] < 0
    values[_SIZE_ROWS] *= PAGE_BYTES
    values[_LIMIT_ROWS] = limit_bytes(values[_LIMIT_ROWS])
    kernel = values[_AT["kernel_bytes"]].copy()
    values[_STAT_ROWS], is_null[_STAT_ROWS] = positions.values(records["counters"])
    if version == 1:
        _set(values, is_null, "kernel_bytes", kernel)
        _set(values, is_null, "sock_bytes", 0)  # v1 counts socket memory in tcpmem, outside of usage
        _set(values, is_null, "use_hierarchy", 1)
        _copy(values, is_null, "swap_bytes", "swap_usage_bytes")
        _add_memsw_refusals(values, is_null)
    else:
        _copy(values, is_null, "swap_usage_bytes", "swap_bytes")
    no_psi = records["has_psi"] == 0
    for name in ("psi_some_total_us", "psi_full_total_us"):
        is_null[_AT[name]] |= no_psi
    return _batch(records, values, is_null, clock_offset_ns)


def _set(values: Numbers, is_null: Flags, column: str, value: Numbers | int) -> None:
    values[_AT[column]], is_null[_AT[column]] = value, False


def _copy(values: Numbers, is_null: Flags, source: str, column: str) -> None:
    """Copy a column: each version shows swapped memory in one of two places."""
    values[_AT[column]], is_null[_AT[column]] = values[_AT[source]], is_null[_AT[source]]


def _add_memsw_refusals(values: Numbers, is_null: Flags) -> None:
    """Add the refusals by the limit of memory + swap to the refusals by the limit of memory, on v1.

    A charge that memory + swap refuses does not reach the counter of memory (try_charge_memcg,
    mm/memcontrol.c), so a cgroup whose two limits are equal hits the limit of memory + swap. Since
    "page_counter: track failcnt only for legacy cgroups", v6.15, refusals are counted for memory alone: then
    0 may also mean that the limit was hit.
    """
    refused, limit, memsw_limit = (
        values[_AT[name]] for name in ("swap_max_events", "limit_bytes", "swap_limit_bytes")
    )
    values[_AT["max_events"]] += refused
    may_be_uncounted = (refused == 0) & (memsw_limit < UNLIMITED_BYTES)
    is_null[_AT["swap_max_events"]] |= may_be_uncounted
    is_null[_AT["max_events"]] |= may_be_uncounted & (memsw_limit <= limit) & (limit < UNLIMITED_BYTES)


def _batch(records: Records, values: Numbers, is_null: Flags, clock_offset_ns: int) -> pa.RecordBatch:
    """Return the columns as slices of one array: making each from buffers costs twice as much."""
    length, whole = len(records), numbers(values.ravel(), null=is_null.ravel())
    columns = {name: whole.slice(row * length, length) for row, name in enumerate(_COLUMNS)}
    columns["time"] = numbers(records["time_ns"].astype(np.int64) + clock_offset_ns, TIME)
    columns["cgroup_id"] = numbers(records["cgroup_id"].astype(np.int64))
    columns["source"] = pa.DictionaryArray.from_arrays(numbers(records["source"].astype(np.int32)), _SOURCES)
    columns["kill_id"] = pa.nulls(length, pa.int64())
    return pa.RecordBatch.from_arrays([columns[name] for name in _SCHEMA.names], schema=_SCHEMA)
