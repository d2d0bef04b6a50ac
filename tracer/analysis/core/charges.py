"""The charge ledger of a trace as arrays: the columns that an analysis reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from tracer.analysis.core.columns import Bools, Int64s, Integers
from tracer.analysis.core.rows import Batched, OwnedRows, Rows, rows_of
from tracer.enumerations import CATEGORY

NOT_READ: Final = np.iinfo(np.int64).min
"""The value of a reading of the page counter that is null."""

_WIDE: Final = ("time", "usage_bytes", "limit_bytes")
_SMALL: Final = ("cgroup_id", "tgid", "category", "bytes")


@dataclass(frozen=True)
class Charges(OwnedRows):
    """Rows of `charge`.

    `category` is a position in `CATEGORY.names`; any other word is -1. A null `tgid` is `columns.NO_ID`, a
    null reading of the page counter `NOT_READ`. A limit that is not set is `UNLIMITED_BYTES`, as in the
    kernel. All columns but times and readings have the smallest type that holds their values.
    """

    tgid: Integers
    category: Integers
    bytes: Integers
    usage_bytes: Int64s
    limit_bytes: Int64s

    @classmethod
    def from_trace(cls, trace: Batched) -> Charges:
        """Read the ledger of a trace."""
        return cls.from_batches([*map(_columns, rows_of(trace, "charge", [*_WIDE, *_SMALL]))])

    def weighted(self, weights: Mapping[str, int]) -> tuple[Bools, Int64s]:
        """Return (mask of the rows of these categories, the weighted change of each row in bytes)."""
        counts = np.array([*(name in weights for name in CATEGORY.names), False])
        factor = np.array([*(weights.get(name, 0) for name in CATEGORY.names), 0])
        return counts[self.category], self.bytes * factor[self.category]

    def is_of(self, category: str) -> Bools:
        """Return a mask of the rows of a category."""
        return np.asarray(self.category == CATEGORY.number(category))

    def values_of(self, reading: str) -> Int64s:
        """Return `usage_bytes` or `limit_bytes`."""
        return {"usage_bytes": self.usage_bytes, "limit_bytes": self.limit_bytes}[reading]

    def is_read(self, reading: str) -> Bools:
        """Return a mask of the rows in which `usage_bytes` or `limit_bytes` is not null."""
        return np.asarray(self.values_of(reading) != NOT_READ)


_SIGNED: Final = tuple(np.iinfo(kind) for kind in ("int8", "int16", "int32", "int64"))


def _columns(rows: Rows) -> dict[str, Integers]:
    small = {name: rows.integers(name) for name in _SMALL if name != "category"}
    small["category"] = rows.codes("category", CATEGORY.names)
    wide = {name: rows.integers(name, missing=NOT_READ) for name in _WIDE}
    return {**wide, **{name: _smallest(column) for name, column in small.items()}}


def _smallest(values: Int64s) -> Integers:
    """Return numbers in the smallest signed type that holds them."""
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    return values.astype(next(kind.dtype for kind in _SIGNED if kind.min <= least and most <= kind.max))
