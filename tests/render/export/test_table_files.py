"""Tables as CSV and Parquet, with any names: read by the standard library and by Arrow."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.render.export.table_files import write_csv, write_parquet
from tracer.render.words.escape import visible

SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("ns", tz="UTC")),
        pa.field("bytes", pa.int64()),
        pa.field("is_limited", pa.bool_()),
        pa.field("name", pa.string()),
        pa.field("file", pa.dictionary(pa.int32(), pa.string())),
        pa.field("stack", pa.list_(pa.string())),
    ]
)
HOSTILE = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "＝1",
    "'=1",
    'a"b',
    "a,b",
    "\n",
    "\x1b[31m",
    "",
    " =1",
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(HOSTILE)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    empty = dict.fromkeys(SCHEMA.names)
    return pa.Table.from_pylist([empty | row for row in rows], schema=SCHEMA)


def written(rows: list[dict[str, Any]]) -> str:
    file = io.BytesIO()
    write_csv(file, SCHEMA, [table(rows[:1]), table(rows[1:])])
    return file.getvalue().decode()


def cells(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written(rows), newline="")))


@given(st.lists(st.tuples(TEXTS, TEXTS, st.lists(TEXTS, max_size=3)), min_size=1, max_size=5))
def test_any_names_stay_in_their_cells_and_are_no_formula(
    rows: list[tuple[str, str, list[str]]],
) -> None:
    read = cells([{"name": name, "file": file, "stack": stack} for name, file, stack in rows])
    assert len(read) == len(rows)
    for cell, (name, file, stack) in zip(read, rows, strict=True):
        for shown, text in ((cell["name"], name), (cell["file"], file)):
            assert not re.match(r"[=+\-@\t\r\n＝＋－＠]", shown)
            assert shown.removeprefix("'") == visible(text).removeprefix("'") or shown == f"'{visible(text)}"
            assert (shown[1:] if shown.startswith("'") else shown) == visible(text)
            assert visible(shown) == shown
        if stack:
            assert len(cell["stack"].split(";")) == len(stack)


def test_numbers_times_and_flags_are_plain_and_a_null_is_no_empty_text() -> None:
    time_ns = 1_764_000_000_000_000_001
    text = written(
        [{"time": time_ns, "bytes": -5, "is_limited": False, "name": "", "file": "=1"}, {"bytes": 1 << 62}]
    )
    assert text.splitlines() == [
        '"time","bytes","is_limited","name","file","stack"',
        '2025-11-24 16:00:00.000000001Z,-5,false,"","\'=1",',
        f"{',' + str(1 << 62)},,,,",
    ]


@given(st.lists(st.tuples(TEXTS, st.integers(-(1 << 63), (1 << 63) - 1)), max_size=5))
def test_parquet_has_the_rows_as_they_are(rows: list[tuple[str, int]]) -> None:
    file = io.BytesIO()
    parts = [table([{"file": text, "bytes": number, "stack": [text]}]) for text, number in rows]
    write_parquet(file, SCHEMA, parts)
    read = pq.read_table(io.BytesIO(file.getvalue()))
    assert read.schema.equals(SCHEMA)
    assert [(row["file"], row["bytes"]) for row in read.to_pylist()] == rows


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_table_without_rows_has_its_columns(write: Any) -> None:
    file = io.BytesIO()
    write(file, SCHEMA, [])
    assert b"is_limited" in file.getvalue()
