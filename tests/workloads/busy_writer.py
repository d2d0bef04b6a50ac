"""A trace writer that a test kills: writes numbered rows, and prints each number once its rows are flushed.

Usage: busy_writer.py DIR. Number n stands for 50 rows of `charge`, one row of `loss`, and one of task n % 5.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import NoReturn, TextIO

import numpy as np
import pyarrow as pa

from tracer.schema import TABLES
from tracer.trace.meta import begin
from tracer.trace.write.writer import TraceWriter

CHARGES = 50


def numbered(table: str, numbers: np.ndarray[tuple[int], np.dtype[np.int64]], **known: int) -> pa.RecordBatch:
    """Return rows whose columns all hold the row's number, except for the `known` ones."""
    columns = []
    for field in TABLES[table]:
        values = np.full_like(numbers, known[field.name]) if field.name in known else numbers
        textual = pa.types.is_dictionary(field.type) or pa.types.is_string(field.type)
        columns.append(pa.array(values).cast(pa.string() if textual else field.type))
    return pa.RecordBatch.from_arrays(columns, names=TABLES[table].names)


def write(path: Path, told: TextIO) -> NoReturn:
    """Write a trace until the process is killed; `told` gets the numbers."""
    meta = begin(command_line=sys.argv, cgroup_version=1, filters={}, probes={})
    writer = TraceWriter(path, meta, force=False, part_rows=7 * CHARGES)
    for number in itertools.count():
        writer.append("charge", numbered("charge", np.arange(number * CHARGES, (number + 1) * CHARGES)))
        writer.append("loss", numbered("loss", np.array([number])))
        writer.append("tasks", numbered("tasks", np.array([number]), tgid=number % 5, start_ns=0))
        writer.flush()
        print(number, file=told, flush=True)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.stdout)
