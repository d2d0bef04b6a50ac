"""The summary tables of a dataset as DataFrames of Dask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import pyarrow as pa

from tracer.extras import from_extra
from tracer.fleet.dataset.host_ranges import HostRange, host_ranges, read
from tracer.fleet.summary.overlaps import conform
from tracer.fleet.summary.summaries import SUMMARIES

if TYPE_CHECKING:
    import dask.dataframe as dd

_DTYPES: Final[dict[pa.DataType, Any]] = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype("pyarrow"),
    pa.date32(): pd.ArrowDtype(pa.date32()),
}


class Dataset:
    """The summary tables of a dataset, each a lazy Dask DataFrame: `sources`, `kills`, `sigkills`, `lives`,
    `evictors` and `timeline`. docs/dataset.md lists their columns.

    Rows that several traces share occur once. NA means "not known". The files are listed once, when the
    dataset is opened.
    """

    def __init__(self, address: str) -> None:
        self._parts = host_ranges(address, SUMMARIES)
        self._address = address

    @cached_property
    def sources(self) -> dd.DataFrame:
        """Return a row for each trace."""
        return self._frame("sources")

    @cached_property
    def kills(self) -> dd.DataFrame:
        """Return a row for each kill."""
        return self._frame("kills")

    @cached_property
    def sigkills(self) -> dd.DataFrame:
        """Return a row for each process that SIGKILL ended and the OOM killer did not."""
        return self._frame("sigkills")

    @cached_property
    def lives(self) -> dd.DataFrame:
        """Return a row for each life of a cgroup."""
        return self._frame("lives", "kills")

    @cached_property
    def evictors(self) -> dd.DataFrame:
        """Return a row for each minute, owner of page cache, cgroup that evicted it, and cause."""
        return self._frame("evictors")

    @cached_property
    def timeline(self) -> dd.DataFrame:
        """Return a row for each minute of each life."""
        return self._frame("timeline")

    def __repr__(self) -> str:
        tables = ", ".join(SUMMARIES)
        return f"memcg-tracer dataset {ascii(self._address)[1:-1]}: {tables}; next: d.kills.compute()"

    def _frame(self, table: str, *beside: str) -> dd.DataFrame:
        with from_extra("fleet", "a table of a dataset"):
            import dask.dataframe as dd  # noqa: PLC0415  it takes a second to import
        parts = [_with_tables(part, (table, *beside)) for part in self._parts]
        nothing = to_frame(conform(SUMMARIES[table].empty_table(), table))
        found: dd.DataFrame
        if parts:
            found = dd.from_map(_read_frame, parts, table=table, meta=nothing)  # type: ignore[no-untyped-call]
        else:
            found = dd.from_pandas(nothing, npartitions=1)  # type: ignore[no-untyped-call]
        return found


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return rows as a DataFrame, with times in UTC, and nullable integers, flags and texts."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_DTYPES.get)
    return frame


def _read_frame(part: HostRange, table: str) -> pd.DataFrame:
    return to_frame(read(part)[table])


def _with_tables(part: HostRange, tables: Sequence[str]) -> HostRange:
    return replace(part, files={table: part.files[table] for table in tables})
