"""Conversions of the pandas columns of a table to NumPy arrays and Python values.

In a DataFrame, a limit that is not set and a limit that is not known are both NA; the flag column beside the
limit (`schema.LIMITS`) distinguishes them. In the kernel, a limit that is not set is a number:
`UNLIMITED_BYTES`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.extensions import ExtensionDtype

from tracer.schema import LIMITS, UNLIMITED_BYTES

Int64s = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Unsigned = npt.NDArray[np.unsignedinteger[Any]]

NO_ID: Final = -1
"""The value of a null id in int64 arrays; ids of the kernel and hashes of inodes are positive."""

_MOST_IN_A_TABLE: Final = (1 << 16) - 1  # codes and sizes fit into 16 bits
_FIRST_ROWS: Final = 64
_DIGIT_BITS: Final = 16
_WORD_BITS: Final = 63
_AT_A_TIME: Final = 1 << 15
_LARGEST: Final = np.iinfo(np.int64).max
_MASKED: Final = (
    *(pd.Int8Dtype, pd.Int16Dtype, pd.Int32Dtype, pd.Int64Dtype),
    *(pd.UInt8Dtype, pd.UInt16Dtype, pd.UInt32Dtype, pd.UInt64Dtype, pd.BooleanDtype),
)


def times_ns(frame: pd.DataFrame) -> Int64s:
    """Return the `time` index of a table in nanoseconds since the epoch."""
    return _index_ns(frame.index)


def column_times_ns(column: pd.Series) -> Int64s:
    """Return a column of times in nanoseconds since the epoch; a null is the least int64, as in NumPy."""
    return _index_ns(pd.Index(column))


def _index_ns(index: pd.Index) -> Int64s:
    times = index if isinstance(index, pd.DatetimeIndex) else pd.DatetimeIndex(index)
    if times.unit != "ns":  # as_unit() copies even a column that is in ns
        times = times.as_unit("ns")
    return np.asarray(times.asi8, dtype=np.int64)


def utc_times(time_ns: Int64s) -> pd.DatetimeIndex:
    """Return nanoseconds since the epoch as an index of UTC times."""
    return pd.DatetimeIndex(time_ns.view("datetime64[ns]")).tz_localize("UTC")


def utc_time(time_ns: int) -> pd.Timestamp:
    """Return nanoseconds since the epoch as a UTC time."""
    return pd.Timestamp(time_ns, tz=UTC)


def integers(column: pd.Series, missing: int = NO_ID) -> Int64s:
    """Return a column as int64, with `missing` in place of nulls."""
    return np.asarray(column.to_numpy(np.int64, na_value=missing), dtype=np.int64)


def known(column: pd.Series) -> Bools:
    """Return a mask of the rows of a column that are not null."""
    return np.asarray(column.notna().to_numpy(), dtype=np.bool_)


def is_one_of(column: pd.Series, values: Iterable[str | int]) -> Bools:
    """Return a mask of the rows of a column that have one of these values."""
    wanted, array = list(values), column.array
    if isinstance(array, pd.Categorical):  # pandas makes an index of its categories each time
        is_wanted = np.array([word in wanted for word in array.categories.tolist()] + [False])
        return np.asarray(is_wanted[array.codes], dtype=np.bool_)  # the code of a null is -1
    return np.asarray(column.isin(wanted).to_numpy(), dtype=np.bool_)


def positions(ids: Int64s, wanted: Int64s) -> Int64s:
    """Return the position of each wanted id in `ids` (distinct), -1 where it is missing."""
    return np.asarray(pd.Index(ids).get_indexer(pd.Index(wanted)), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class ColumnArrays:
    """Columns of a table as arrays, out of which some rows are read as dictionaries of Python objects.

    To take rows out of a DataFrame costs more than to read a few of them, once for each of its columns.
    """

    columns: Mapping[str, Any]

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, columns: Iterable[str] | None = None) -> ColumnArrays:
        """Take these columns; None: all."""
        names = frame.columns if columns is None else columns
        return cls({str(name): _array_of(frame[name]) for name in names})

    def records(self, rows: slice | Int64s) -> list[dict[str, Any]]:
        """Return the rows at these positions."""
        cells = {name: column[rows].tolist() for name, column in self.columns.items()}
        return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]

    def row(self, position: int) -> dict[str, Any]:
        """Return the row at a position."""
        return {name: _cell(column, position) for name, column in self.columns.items()}


@dataclass(frozen=True, slots=True)
class _Nullable:
    """A nullable column of numbers as two arrays, of which a slice costs a fraction of what it costs in
    pandas."""

    values: npt.NDArray[Any]
    is_null: Bools

    def __getitem__(self, rows: slice | Int64s) -> _Nullable:
        return _Nullable(self.values[rows], self.is_null[rows])

    def tolist(self) -> list[Any]:
        """Return the cells as objects of Python, or NA."""
        cells: list[Any] = self.values.tolist()
        for row in np.flatnonzero(self.is_null).tolist():
            cells[row] = pd.NA
        return cells


def _cell(column: Any, position: int) -> Any:
    """Return what `tolist` has at a position, of a column that `_array_of` returned."""
    if isinstance(column, _Nullable):
        return pd.NA if column.is_null[position] else column.values[position].item()
    return column[position : position + 1].tolist()[0]


def _array_of(column: pd.Series) -> Any:
    """Return a column as an array whose `tolist` gives objects of Python, or NA."""
    kind: Any = column.dtype
    is_masked = isinstance(column.dtype, _MASKED)
    if is_masked:
        return _Nullable(column.to_numpy(kind.numpy_dtype, na_value=0), column.isna().to_numpy(np.bool_))
    if isinstance(kind, pd.CategoricalDtype):
        return column.to_numpy(object)
    return column.array if isinstance(kind, ExtensionDtype) else column.to_numpy()


@dataclass(frozen=True, slots=True)
class Cells:
    """A short table as lists of Python objects, out of which one row after the other is read."""

    columns: Mapping[str, list[Any]]

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Cells:
        """Convert all columns, each once."""
        return cls({str(name): frame[name].tolist() for name in frame.columns})

    def row(self, position: int) -> dict[str, Any]:
        """Return the row at a position."""
        return {name: cells[position] for name, cells in self.columns.items()}


def records(frame: pd.DataFrame, columns: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows as dictionaries of Python objects, with these columns only; None: with all.

    Each column is converted at once, which is faster than `DataFrame.to_dict`: that converts cell by cell.
    Of few rows, each column costs as much as of many: a caller names those that it reads.
    """
    return ColumnArrays.from_frame(frame, columns).records(slice(None))


def optional(value: Any) -> int | None:
    """Return a cell of a nullable integer column; None for NA."""
    if type(value) is int:  # nearly all cells are: pandas takes longer to look at one
        return value
    if value is pd.NA:
        return None
    return None if pd.isna(value) else int(value)


def optional_text(value: Any) -> str | None:
    """Return a cell of a nullable string column; None for NA."""
    return None if pd.isna(value) else str(value)


def narrow(values: npt.NDArray[Any]) -> Unsigned:
    """Return numbers that are not negative with as few bytes each as they need."""
    return values.astype(np.min_scalar_type(values.max(initial=0)))


def joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return arrays (at least one), one after the other. If all values are equal, the result takes the memory
    of one."""
    values = [part[0] for part in parts if len(part)]
    if values and all(((part[:1] if is_repeated(part) else part) == values[0]).all() for part in parts):
        return np.broadcast_to(values[0].astype(np.result_type(*parts)), (sum(map(len, parts)),))
    return np.concatenate(parts)


def is_repeated(values: npt.NDArray[Any]) -> bool:
    """Return whether an array is one value in memory, as `joined` makes it of equal values."""
    return values.strides == (0,)


def taken(values: npt.NDArray[Any], chosen: slice | Int64s) -> npt.NDArray[Any]:
    """Return some of the values; those of a repeated value take the memory of one again."""
    if is_repeated(values) and not isinstance(chosen, slice):
        return np.broadcast_to(values[:1].squeeze(), chosen.shape) if len(values) else values[chosen]
    return values[chosen] if isinstance(chosen, slice) else values.take(chosen)  # faster than [chosen]


def reorder(values: npt.NDArray[Any], order: Int64s) -> None:
    """Put values into another order, in place. If they are one value in memory, nothing is written."""
    if not is_repeated(values):
        values[:] = values.take(order)


def sums_of(code: Integers, amounts: Integers | None, count: int) -> Int64s:
    """Return the sum of the amounts of each code from 0 to `count` - 1; None: each amount is 1."""
    if amounts is None or is_repeated(amounts):
        times = 1 if amounts is None else int(amounts[:1].sum())
        return np.asarray(np.bincount(code, minlength=count) * times, dtype=np.int64)
    return np.bincount(code, amounts, count).astype(np.int64)


def ascending(numbers: Int64s, least: int = 0) -> Int64s:
    """Return the positions that sort numbers, none of which is below `least`; equal ones keep their order."""
    bits, of_positions = int(numbers.max(initial=least) - least).bit_length(), len(numbers).bit_length()
    if bits > _DIGIT_BITS and bits + of_positions <= _WORD_BITS:
        keys = numbers - least
        keys <<= of_positions
        for first in range(0, len(keys), _AT_A_TIME):  # memory is written faster than it is obtained
            some = keys[first : first + _AT_A_TIME]
            some |= np.arange(first, first + len(some))
        keys.sort()  # NumPy sorts faster than it finds an order
        keys &= (1 << of_positions) - 1
        return np.asarray(keys)
    numbers = numbers - least
    order = np.argsort(numbers.astype(np.uint16), kind="stable")  # a radix sort of one digit
    for shift in range(_DIGIT_BITS, bits, _DIGIT_BITS):
        digit = (numbers >> shift).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def distinct(*columns: npt.NDArray[np.integer[Any] | np.bool_]) -> tuple[Integers, Int64s]:
    """Return (the number of each row's combination of values, the first row of each combination).

    The values are not negative. The numbers count from 0, in the order of the first rows.
    """
    sizes = [int((column[:1] if is_repeated(column) else column).max(initial=0)) + 1 for column in columns]
    is_small, most = math.prod(sizes) <= _MOST_IN_A_TABLE, 1
    code: Integers = np.zeros(len(columns[0]), np.uint16 if is_small else np.int64)
    for column, size in zip(columns, sizes, strict=True):
        if size == 1:
            continue
        if most * size > _LARGEST:
            code = np.asarray(pd.factorize(code)[0], dtype=np.int64)
            most = int(code.max(initial=0)) + 1
        code, most = code * size + column.astype(code.dtype), most * size
    if is_small:
        firsts = firsts_of(code, most)
        occurring = np.flatnonzero(firsts >= 0)
        occurring = occurring[np.argsort(firsts[occurring])]
        number = np.zeros(most, dtype=np.min_scalar_type(len(occurring)))
        number[occurring] = np.arange(len(occurring))
        return number.take(code), firsts[occurring]
    found, values = pd.factorize(code)
    number = np.asarray(found, dtype=np.int64)
    return number, firsts_of(number, len(values))


def firsts_of(code: npt.NDArray[np.integer[Any]], count: int) -> Int64s:
    """Return the first row of each of the codes from 0 to `count` - 1; -1: the code has no row.

    Most codes occur among the first rows. The later rows are then only compared.
    """
    firsts, begin, end = np.full(count, -1, dtype=np.int64), 0, _FIRST_ROWS
    while begin < len(code):
        is_new = (firsts < 0)[code[begin:end]]
        if is_new.any():
            new = begin + np.flatnonzero(is_new)[::-1]
            firsts[code[new]] = new  # NumPy assigns repeated positions in order: the last one stays
        begin, end = end, _FIRST_ROWS * end
    return firsts


def kernel_numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a column in bytes: `UNLIMITED_BYTES` where no limit is set, NA where the value is not known."""
    if name not in LIMITS:
        return table[name]
    return table[name].mask(table[LIMITS[name]].eq(False).fillna(False), UNLIMITED_BYTES)


def limit_of(row: Mapping[str, Any] | pd.Series, name: str = "limit_bytes") -> int | None:
    """Return a limit of one row, in bytes; `UNLIMITED_BYTES` if it is not set, None if it is not known."""
    flag = row[LIMITS[name]]
    if flag is pd.NA or (type(flag) is not bool and pd.isna(flag)):
        return None
    return int(row[name]) if flag else UNLIMITED_BYTES


def swap_room_of(
    row: Mapping[str, Any] | pd.Series, cgroup_version: int | None, *, of: str = "effective_swap_limit_bytes"
) -> int | None:
    """Return the swap that the cgroup of a sample may use beside its limit, in bytes.

    `UNLIMITED_BYTES` if no limit is set, None if it is not known. It is the least limit of the cgroup and its
    ancestors; in older traces, or with `of` "swap_limit_bytes", the limit of the cgroup alone. On v1
    memory.memsw.limit_in_bytes bounds memory and swap together; the part above the limit of memory is for
    swap.
    """
    limit = limit_of(row, of)
    if limit is None:
        limit = limit_of(row, "swap_limit_bytes")
    if limit is None or limit >= UNLIMITED_BYTES or cgroup_version != 1:
        return limit
    return max(limit - (limit_of(row) or 0), 0)
