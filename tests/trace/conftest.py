from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tracer.enumerations import CATEGORY
from tracer.schema import TABLES
from tracer.trace.meta import Meta, begin
from tracer.trace.write.writer import TraceWriter


@pytest.fixture
def meta() -> Meta:
    return begin(command_line=["memcg-tracer", "record"], cgroup_version=1, filters={}, probes={})


@pytest.fixture
def rows_of() -> Callable[[str, range], pa.RecordBatch]:
    """Return rows of any table; each value of a row is made from the row's number."""

    def column(field: pa.Field, numbers: np.ndarray[Any, Any]) -> pa.Array:
        if pa.types.is_boolean(field.type):
            return pa.array(numbers % 2 == 1)
        if pa.types.is_list(field.type):
            return pa.array([[f"f{number}", "g"] for number in numbers], field.type)
        if pa.types.is_dictionary(field.type):
            words = CATEGORY.names if field.name == "category" else ("v0", "v1", "v2")
            return pa.array([words[number % 3] for number in numbers], pa.string()).dictionary_encode()
        if pa.types.is_string(field.type):
            return pa.array([f"s{number}" for number in numbers], pa.string())
        return pa.array(numbers).cast(field.type)

    def build(table: str, numbers: range) -> pa.RecordBatch:
        values = np.array(numbers, dtype=np.int64)
        columns = [column(field, values) for field in TABLES[table]]
        return pa.RecordBatch.from_arrays(columns, names=TABLES[table].names)

    return build


@pytest.fixture
def open_writer(tmp_path: Path, meta: Meta) -> Callable[..., TraceWriter]:
    def create(name: str = "trace", *, force: bool = False, **options: Any) -> TraceWriter:
        return TraceWriter(tmp_path / name, meta, force=force, **options)

    return create
