"""Traces that are made to harm their reader."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace.meta import Meta, begin, read_meta
from tracer.trace.read import reader
from tracer.trace.read.reader import Budget, Trace
from tracer.trace.write.writer import TraceWriter

RowsOf = Callable[[str, range], pa.RecordBatch]
OpenWriter = Callable[..., TraceWriter]


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_beside(path: Path) -> None:
    path.symlink_to(path.with_name("kept"))


def make_folder(path: Path) -> None:
    path.mkdir()


@pytest.fixture
def ended(open_writer: OpenWriter, rows_of: RowsOf) -> Path:
    writer = open_writer()
    writer.append("oom", rows_of("oom", range(3)))
    writer.close("done")
    return writer.path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("replace", [make_fifo, link_to_zero, link_beside, make_folder])
@pytest.mark.parametrize("name", ["oom.parquet", "meta.json", "journal"])
def test_irregular_file_is_refused_unopened(ended: Path, name: str, replace: Callable[[Path], None]) -> None:
    path = ended / name
    if path.exists():
        path.rename(ended / "kept")
    replace(path)
    if name == "journal" and replace is make_folder:
        assert Trace(ended).rows("oom") == 3
        return
    for read in (Trace.table, Trace.rows):
        with pytest.raises(TraceError) as raised:
            read(Trace(ended), "oom")
        assert str(raised.value).startswith(f"{path} is a link, a pipe, a device or the like")


def test_folder_of_parts_as_link_is_refused(ended: Path) -> None:
    (ended / "charge.parquet").unlink()
    (ended / "charge").symlink_to("/etc")
    with pytest.raises(TraceError, match="charge is a link"):
        Trace(ended).table("charge")


def test_trace_named_by_link_is_read(ended: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(ended)
    assert Trace(tmp_path / "latest").rows("oom") == 3


def bomb(path: Path, table: str, rows: int) -> None:
    """Write equal rows with an even step in time: a few bytes for thousands of rows."""
    schema, block = TABLES[table], 1 << 20
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, rows, block):
            count = min(block, rows - first)
            columns = []
            for field in schema:
                if pa.types.is_timestamp(field.type):
                    column = pa.array(np.arange(first, first + count)).cast(field.type)
                elif pa.types.is_dictionary(field.type):
                    column = pa.DictionaryArray.from_arrays(
                        pa.repeat(pa.scalar(0, pa.int32()), count), ["read"]
                    )
                elif pa.types.is_integer(field.type):
                    column = pa.repeat(pa.scalar(7, field.type), count)
                else:
                    column = pa.repeat(pa.scalar("x", field.type), count)
                columns.append(column)
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def used_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def first_batch(trace: Trace, table: str) -> pa.RecordBatch:
    return next(trace.batches(table, ["time"]))


@pytest.mark.parametrize(("table", "rows"), [("pagecache", 4_000_000), ("loss", 2_000_000)])
def test_bomb_is_refused_before_it_is_in_memory(
    ended: Path, table: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that any table may have are fewer here, since a bomb of more takes seconds to write."""
    monkeypatch.setattr(reader, "FREE_BYTES", reader.FREE_BYTES // 8)
    path = ended / f"{table}.parquet"
    bomb(path, table, rows)
    before, begin_s = used_bytes(), time.process_time()
    for read in (Trace.table, Trace.rows, first_batch):
        with pytest.raises(TraceError, match=f"{rows:,} rows of {table}") as raised:
            read(Trace(ended), table)
        assert str(path) in str(raised.value)
    assert used_bytes() - before < 64 << 20
    assert time.process_time() - begin_s < 5


def test_budget_of_recorded_trace_is_not_exceeded() -> None:
    """20 million page-cache events of 7 bytes each on disk are accepted."""
    Budget.from_schema("pagecache", TABLES["pagecache"]).take(
        Path("pagecache.parquet"), rows=20_000_000, stored_bytes=140_000_000
    )


def test_budget_counts_parts_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "meminfo_bytes", lambda: {"MemAvailable": 1 << 40})
    budget = Budget.from_schema("pagecache", TABLES["pagecache"])
    budget.take(Path("000001.parquet"), rows=10_000_000, stored_bytes=1000)
    with pytest.raises(TraceError, match=r"000002\.parquet: 20,000,000 rows of pagecache in 2,000 bytes"):
        budget.take(Path("000002.parquet"), rows=10_000_000, stored_bytes=1000)


def test_budget_beyond_available_memory_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "meminfo_bytes", lambda: {"MemAvailable": 1 << 29})
    with pytest.raises(TraceError, match=r"GiB of memory, and 0\.5 GiB are available"):
        Budget.from_schema("pagecache", TABLES["pagecache"]).take(
            Path("x"), rows=10_000_000, stored_bytes=100_000_000
        )


def test_budget_of_batches_bounds_each_file_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "meminfo_bytes", lambda: {"MemAvailable": 1 << 29})
    budget = Budget.from_schema("pagecache", TABLES["pagecache"], is_kept=False)
    for _ in range(10):
        budget.take(Path("x"), rows=1_000_000, stored_bytes=100_000_000)
    with pytest.raises(TraceError, match=r"GiB of memory, and 0\.5 GiB are available"):
        budget.take(Path("x.arrows"), rows=0, stored_bytes=600_000_000)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_journal_is_refused(open_writer: OpenWriter, rows_of: RowsOf, compression: str) -> None:
    writer = open_writer()
    rows = pa.RecordBatch.from_arrays(
        [rows_of("inodes", range(3)).column(field.name) for field in TABLES["inodes"]],
        schema=TABLES["inodes"],
    )
    options = pa.ipc.IpcWriteOptions(compression=compression)
    path = writer.path / "journal" / "inodes.1.arrows"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, rows.schema, options=options) as stream:
        stream.write_batch(rows)
    with pytest.raises(TraceError, match=r"inodes\.1\.arrows cannot be read .*compressed"):
        Trace(writer.path).table("inodes")


def test_sparse_journal_is_refused_by_length(open_writer: OpenWriter) -> None:
    path = open_writer().path / "journal" / "loss.1.arrows"
    path.touch()
    os.truncate(path, 1 << 43)
    with pytest.raises(TraceError, match=r"loss\.1\.arrows"):
        Trace(path.parents[1]).table("loss")


def with_column(ended: Path, name: str, column: pa.Array) -> Path:
    path = ended / "oom.parquet"
    data = pq.read_table(path)
    pq.write_table(data.set_column(data.schema.get_field_index(name), name, column), path)
    return path


@pytest.mark.parametrize(
    ("name", "column", "says"),
    [
        ("pid", pa.array([1, None, 2], pa.int32()), "column pid has NULL"),
        ("pid", pa.array([1, -5, 2], pa.int32()), "column pid has -5"),
        ("pid", pa.array([1.0, 2.0, 3.0]), "column pid is of type double, not int32"),
        ("pid", pa.array([1, 2, 1 << 40]), "not in range"),
        (
            "time",
            pa.array([0, -(1 << 63), 0], pa.timestamp("ns", "UTC")),
            "column time has -9223372036854775808",
        ),
        ("time", pa.array([0, 1 << 50, 0], pa.timestamp("s", "UTC")), "out of bounds"),
        ("comm", pa.array(["a", "b", "c" * 200_000]), "a text of 200,000 bytes"),
        ("comm", pa.array([b"a", b"b", b"\xff"]).view(pa.string()), "UTF8"),
        ("order", pa.array([True, False, None]), "column order is of type bool"),
    ],
)
def test_column_not_allowed_by_schema_is_named(ended: Path, name: str, column: pa.Array, says: str) -> None:
    path = with_column(ended, name, column)
    with pytest.raises(TraceError) as raised:
        Trace(ended).table("oom")
    assert str(raised.value).startswith(f"{path} cannot be read as schema")
    assert says in str(raised.value)


def test_column_of_equivalent_type_is_read(ended: Path) -> None:
    with_column(ended, "pid", pa.array([1, 2, 3], pa.int64()))
    assert Trace(ended).oom["pid"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("page_size", 0),
        ("page_size", 4095),
        ("page_size", "4096"),
        ("page_size", None),
        ("page_size", True),
        ("cpus", -1),
        ("cpus", 2.5),
        ("cgroup_version", 3),
        ("clock", None),
        ("clock", {"monotonic_ns": 1}),
        ("clock", {"monotonic_ns": 1, "realtime_ns": -5}),
        ("started", "1677-01-01T00:00:00+00:00"),
        ("started", "2025-01-01T00:00:00"),
        ("ended", 5),
        ("filters", []),
        ("filters", {"cgroups": "x"}),
        ("probes", {"oom": 5}),
        ("rows", {"oom": -1}),
        ("lost", {"oom": float("nan")}),
        ("memory", {"swap_total_bytes": "1"}),
        ("command_line", [1]),
        ("cost", {"x_bytes": "many"}),
    ],
)
def test_value_out_of_range_is_named(tmp_path: Path, meta: Meta, key: str, value: Any) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({**meta, key: value}))
    with pytest.raises(TraceError, match=rf"meta\.json is damaged, no recording writes such {key}:"):
        read_meta(tmp_path)


def test_values_of_recording_are_in_range(tmp_path: Path) -> None:
    meta = begin(
        command_line=["x"],
        cgroup_version=2,
        filters={"asked": ["/a"], "cgroups": ["/a"], "limit_bytes": 1 << 63 - 1, "command": None},
        probes={"oom": {"hook": None, "meaning": "absent", "detail": "x"}, "old": "tp_btf/mark_victim"},
    )
    later = {
        **meta,
        "cost": {"startup_s": 1.5, "programs": {"a": {"runs": 3}}},
        "of_a_later_version": [1, {}],
    }
    (tmp_path / "meta.json").write_text(json.dumps(later))
    assert read_meta(tmp_path) == later
