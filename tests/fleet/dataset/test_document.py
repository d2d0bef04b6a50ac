"""docs/dataset.md: its tables are those of the schemas, and its queries and its Python print what it shows.

To write what they print into the document again: `python tests/fleet/dataset/test_document.py`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from support.recorded import NAMES, TRACES
from support.storing.documented_tables import declared_columns, documented_columns
from synthetic.fleets.summary_rows import at, table

from tracer.analysis.trace import AnalysedTrace
from tracer.fleet.dataset.appending import Appender
from tracer.fleet.dataset.compaction import compact
from tracer.fleet.dataset.host_ranges import host_ranges, read
from tracer.fleet.dataset.store import Store
from tracer.fleet.summary.summaries import SUMMARIES

TOP = Path(__file__).parents[3]
DOCUMENT = TOP / "docs/dataset.md"
QUERY = re.compile(r"```sql\n(.*?)```\n(?:\n```\n(.*?)```\n)?", re.DOTALL)
PYTHON = re.compile(r"```python\n([^`]*)```\n\n```\n(.*?)```\n", re.DOTALL)


def test_documented_columns_are_those_of_the_summaries() -> None:
    text = DOCUMENT.read_text().replace("### In every table", "### `every`")
    found = documented_columns(text)
    every = found.pop("every")
    assert {table: every | columns for table, columns in found.items()} == {
        table: declared_columns(schema) for table, schema in SUMMARIES.items()
    }


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("is_compacted", [False, True])
def test_queries_print_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_compacted: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    make()
    if is_compacted:
        compact(Store("fleet"))
    connection = duckdb.connect()
    shown = QUERY.findall(DOCUMENT.read_text())
    assert len(shown) >= 5
    for query, expected in shown:
        assert answer(connection, query) == expected


@pytest.mark.usefixtures("once")
def test_query_of_kills_counts_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the merged rows do: no two of the recorded examples overlap."""
    monkeypatch.chdir(tmp_path)
    make()
    (query, _), *_ = QUERY.findall(DOCUMENT.read_text())
    connection = duckdb.connect()
    answer(connection, query)
    counted = connection.sql("select count(*) from kills").fetchall()
    merged = sum(read(part)["kills"].num_rows for part in host_ranges("fleet", ["kills"]))
    assert counted == [(merged,)]


def test_query_of_kills_works_without_starts_and_boots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills of older versions, of machines without a boot id, and of the kernel log alone."""
    monkeypatch.chdir(tmp_path)
    rows: list[dict[str, Any]] = [
        *({"ktime_ns": ktime_ns, "trace_id": f"{ktime_ns}"} for ktime_ns in (1, 1, 2)),
        *({"time": at(minute), "kmsg": "only"} for minute in (1, 2)),
        *({"ktime_ns": 1, "boot_id": None, "trace_id": trace_id} for trace_id in "45"),
    ]
    kills = table("kills", rows)
    folder = tmp_path / "fleet/kills/date=2026-11-20/host=node-1"
    folder.mkdir(parents=True)
    (query, _), *_ = QUERY.findall(DOCUMENT.read_text())
    for written, asked in (
        (kills, query),
        (kills.drop_columns(["victim_start_ns"]), query.replace("victim_start_ns, ", "")),
    ):
        pq.write_table(written, folder / "many.parquet")
        connection = duckdb.connect()
        answer(connection, asked)
        assert connection.sql("select count(*) from kills").fetchall() == [(6,)]


@pytest.mark.usefixtures("once")
def test_python_prints_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make()
    shown = PYTHON.findall(DOCUMENT.read_text())
    assert len(shown) >= 3
    names: dict[str, Any] = {}
    for code, expected in shown:
        assert printed(code, names) == expected


def make() -> None:
    appender = Appender(Store("fleet"), is_raw=False)
    for name in NAMES:
        appender.append(AnalysedTrace(TRACES / name))


def answer(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    """Return what DuckDB prints for the last of these statements."""
    *first, last = filter(str.strip, text.split(";"))
    for statement in first:
        connection.execute(statement)
    return str(connection.sql(last)).rstrip("\n") + "\n"


def printed(code: str, names: dict[str, Any]) -> str:
    """Return what the code prints, which works with these names and adds to them."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, names)
    return out.getvalue()


def write() -> None:
    """Write the answers into the document."""
    connection = duckdb.connect()
    names: dict[str, Any] = {}

    def with_answer(found: re.Match[str]) -> str:
        return f"```sql\n{found[1]}```\n\n```\n{answer(connection, found[1])}```\n"

    def with_output(found: re.Match[str]) -> str:
        return f"```python\n{found[1]}```\n\n```\n{printed(found[1], names)}```\n"

    text = PYTHON.sub(with_output, DOCUMENT.read_text())
    DOCUMENT.write_text(QUERY.sub(with_answer, text))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make()
        write()
