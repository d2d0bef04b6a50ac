from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.errors import TraceError
from tracer.schema import TABLES, value_range
from tracer.trace import arrow_columns, layout
from tracer.trace.arrow_columns import IDENTITY_KEYS, MERGED
from tracer.trace.meta import begin
from tracer.trace.read.reader import Trace
from tracer.trace.write.writer import TraceWriter

RECORDED = Path(__file__).parents[3] / "traces" / "page-cache"


def test_trace_older_than_images_has_null_for_each() -> None:
    trace = Trace(RECORDED)
    images = trace.table("cgroups", ["image"]).column("image")
    assert len(images) == images.null_count == trace.table("cgroups").num_rows > 0


RowsOf = Callable[[str, range], pa.RecordBatch]
OpenWriter = Callable[..., TraceWriter]

TEXT = st.text(st.characters(codec="utf-8"), max_size=5)


def values_of(table: str, field: pa.Field) -> st.SearchStrategy[Any]:
    kind = field.type
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_list(kind):
        return st.lists(TEXT, max_size=3)
    if pa.types.is_string(kind) or pa.types.is_dictionary(kind):
        return TEXT
    low, high = value_range(table, field) or (0, 2**64 - 1)
    high = min(high, 2 ** (kind.bit_width - 1) - 1) if kind != pa.uint64() else high
    if (table, field.name) == ("loss", "lost"):
        high //= 16  # meta.json has their sum, with the same bound; three batches have 9 rows
    return st.sampled_from([low, 0, high]) | st.integers(low, high)


@cache
def batches(table: str) -> st.SearchStrategy[pa.RecordBatch]:
    """Return batches of up to three rows. A strategy is made once: that takes as long as to write a trace."""
    schema = TABLES[table]
    values = [values_of(table, field) for field in schema]
    row = st.tuples(
        *(st.none() | its if field.nullable else its for field, its in zip(schema, values, strict=True))
    )

    def batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(
            [array_of(field.type, [row[at] for row in rows]) for at, field in enumerate(schema)],
            schema=schema,
        )

    return st.lists(row, max_size=3).map(batch)


def array_of(kind: pa.DataType, values: list[Any]) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)


def last_of_each_key(data: pa.Table, keys: tuple[str, ...], *, merged: bool) -> pa.Table:
    """Return the last row of each key, in order; if `merged`, with earlier values in place of its nulls."""
    rows = list(zip(*(data[key].to_pylist() for key in keys), strict=True))
    places = sorted({key: place for place, key in enumerate(rows)}.values())

    def source(column: pa.ChunkedArray, place: int) -> int:
        same = (at for at in range(place, -1, -1) if rows[at] == rows[place])
        return next((at for at in same if not merged or column[at].is_valid), place)

    columns = [
        column.take(pa.array([source(column, place) for place in places], pa.int64()))
        for column in data.columns
    ]
    return pa.Table.from_arrays(columns, schema=data.schema)


@pytest.mark.parametrize("few_runs", [0, 100])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_that_are_kept_do_not_depend_on_how_they_are_cut_out(
    few_runs: int, data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow_columns, "_FEW_RUNS", few_runs)
    for table, keys in IDENTITY_KEYS.items():
        batch = pa.Table.from_batches(data.draw(st.lists(batches(table), max_size=3)), TABLES[table])
        rows = batch.unify_dictionaries()
        kept = arrow_columns.keep_last(rows, table)
        kept.validate(full=True)
        assert kept.equals(last_of_each_key(rows, keys, merged=table in MERGED))


SOME_TABLES = [tuple(TABLES)[number::8] for number in range(8)]
"""All tables, three in a trace: to end a trace takes as long, however many of its tables have rows."""


@pytest.mark.parametrize("tables", SOME_TABLES, ids="-".join)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_tables_from_journal_and_parquet_are_equal(
    tables: tuple[str, ...], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    given_batches = {table: data.draw(st.lists(batches(table), max_size=3)) for table in tables}
    expected = {table: pa.Table.from_batches(its, TABLES[table]) for table, its in given_batches.items()}
    for table in tables:
        if keys := IDENTITY_KEYS.get(table):
            expected[table] = last_of_each_key(expected[table], keys, merged=table in MERGED)

    path = tmp_path_factory.mktemp("round") / "trip"
    meta = begin(command_line=[], cgroup_version=2, filters={}, probes={})
    writer = TraceWriter(path, meta, force=False)
    for table, its in given_batches.items():
        for batch in its:
            writer.append(table, batch)
    writer.flush()
    for state in ("recording", "ended"):
        if state == "ended":
            writer.close("done")
        trace = Trace(path)
        for table in tables:
            found = trace.table(table)
            assert found.schema.equals(TABLES[table])
            assert found.equals(expected[table].unify_dictionaries())
            assert trace.rows(table) == expected[table].num_rows
            assert len(getattr(trace, table)) == expected[table].num_rows
    assert not list(path.glob("journal*"))


def test_ended_trace_has_plain_parquet_files(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer()
    writer.append("loss", pa.Table.from_batches([rows_of("loss", range(4)), rows_of("loss", range(4, 5))]))
    writer.append("tasks", rows_of("tasks", range(3)))
    writer.append("tasks", rows_of("tasks", range(1, 4)))
    writer.close("command ended", cost={"cpu_ms": 3})
    names = {path.name for path in writer.path.iterdir()}
    assert names == {"meta.json"} | {f"{table}.parquet" for table in TABLES}
    assert pq.read_table(writer.path / "oom.parquet").num_rows == 0
    assert pq.read_table(writer.path / "tasks.parquet")["tgid"].to_pylist() == [0, 1, 2, 3]

    trace = Trace(str(writer.path))
    assert not trace.interrupted
    assert trace.meta["end_reason"] == "command ended"
    assert trace.meta["cost"] == {"cpu_ms": 3}
    assert trace.meta["rows"] == dict.fromkeys(TABLES, 0) | {"loss": 5, "tasks": 4}
    assert trace.meta["lost"] == {"v0": 0 + 3, "v1": 1 + 4, "v2": 2}
    assert trace.size_bytes == sum(path.stat().st_size for path in writer.path.iterdir())


def test_table_without_rows_is_known_unless_the_trace_is_older(open_writer: OpenWriter) -> None:
    writer = open_writer()
    writer.open_journals()
    assert Trace(writer.path).has_table("file_waits"), "also in a recording that goes on"
    writer.close("command_ended")
    trace = Trace(writer.path)
    assert trace.has_table("file_waits")
    (writer.path / "file_waits.parquet").unlink()
    assert trace.has_table("file_waits"), "a table without rows may have no file"
    del trace.meta["rows"]["file_waits"]  # type: ignore[union-attr]
    assert not trace.has_table("file_waits")


def test_loss_counted_only_in_meta_is_added(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer()
    writer.append("loss", rows_of("loss", range(3)))  # of v0, v1 and v2
    writer.close("write_failed", lost={"v0": 0, "v1": 5, "pagecache": 7}, ended="2025-11-24T16:00:04+00:00")
    trace = Trace(writer.path)
    assert trace.loss.groupby("stream", observed=True)["lost"].sum().to_dict() == {
        "v0": 0,
        "v1": 5,
        "v2": 2,
        "pagecache": 7,
    }
    began = pd.Timestamp(trace.meta["clock"]["realtime_ns"], tz="UTC")
    ended = pd.Timestamp("2025-11-24T16:00:04Z")
    of_meta = trace.loss[trace.loss["stream"] == "pagecache"]
    assert [*of_meta["begin"]] == [began] and [*of_meta.index] == [max(began, ended)]


def test_loss_count_in_meta_beyond_range_raises(open_writer: OpenWriter) -> None:
    writer = open_writer()
    writer.close("done", lost={"charge": 2**63 - 1, "pagecache": 2**63 - 1})
    with pytest.raises(TraceError, match="no recording writes such lost"):
        Trace(writer.path)


def test_table_with_chosen_columns_keeps_last_rows(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer()
    writer.append("tasks", rows_of("tasks", range(3)))
    writer.append("tasks", rows_of("tasks", range(3)))
    writer.flush()
    trace = Trace(writer.path)
    assert trace.table("tasks", ["comm", "tgid"]).to_pydict() == {
        "comm": ["s0", "s1", "s2"],
        "tgid": [0, 1, 2],
    }
    assert trace.rows("tasks") == 3
    assert trace.table("charge", ["time"]).schema.names == ["time"]
    with pytest.raises(KeyError):
        trace.table("tasks", ["nonsense"])
    with pytest.raises(KeyError):
        trace.table("nonsense")


@pytest.mark.parametrize("filled", [True, False])
def test_frames_nullable_columns_have_nullable_types(
    filled: bool, open_writer: OpenWriter, rows_of: RowsOf
) -> None:
    writer = open_writer()
    for table, schema in TABLES.items():
        if filled:
            batch = rows_of(table, range(3))
            columns = [
                pa.nulls(3, field.type) if field.nullable else batch.column(field.name) for field in schema
            ]
            writer.append(table, pa.RecordBatch.from_arrays(columns, schema=schema))
    writer.close("done")
    for table, schema in TABLES.items():
        frame = getattr(Trace(writer.path), table)
        assert len(frame) == (3 if filled else 0), table
        for field in schema:
            if field.name == "time":
                assert frame.index.name == "time"
                assert str(frame.index.dtype) == "datetime64[ns, UTC]"
                continue
            assert_nullable(frame[field.name], field, filled=filled)


def assert_nullable(series: pd.Series, field: pa.Field, *, filled: bool) -> None:
    """Assert that a column has the type of its field, which has nulls if it may."""
    assert series.isna().all() if field.nullable else series.notna().all()
    if pa.types.is_integer(field.type):
        name = str(field.type)
        assert str(series.dtype) == (name.replace("ui", "UI").replace("i", "I") if field.nullable else name)
    if pa.types.is_timestamp(field.type):
        assert str(series.dtype) == "datetime64[ns, UTC]"
    if pa.types.is_dictionary(field.type):
        assert isinstance(series.dtype, pd.CategoricalDtype)
    if pa.types.is_boolean(field.type):
        assert series.dtype == ("boolean" if field.nullable else bool)
    if pa.types.is_list(field.type) and filled:
        assert series.tolist() == [["f0", "g"], ["f1", "g"], ["f2", "g"]]


def test_frames_nullable_integers_are_exact(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    batch = rows_of("samples", range(3))
    extremes = pa.array([2**63 - 1, None, 2**53 + 1])
    columns = [extremes if name == "pgfault" else batch.column(name) for name in batch.schema.names]
    writer = open_writer()
    writer.append("samples", pa.RecordBatch.from_arrays(columns, names=batch.schema.names))
    writer.close("done")
    assert Trace(writer.path).samples["pgfault"].tolist() == [2**63 - 1, pd.NA, 2**53 + 1]


def test_frames_are_sorted_by_time_stably(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer(part_rows=2)
    for number, time in enumerate([5, 3, 5, 3, 5, 4]):
        batch = rows_of("loss", range(number, number + 1))
        columns = [pa.array([time]), *batch.columns[1:]]
        writer.append("loss", pa.RecordBatch.from_arrays(columns, names=batch.schema.names))
    writer.close("done")
    frame = Trace(writer.path).loss
    assert frame["lost"].tolist() == [1, 3, 5, 0, 2, 4]
    assert frame.index.is_monotonic_increasing
    assert frame["stream"].tolist() == ["v1", "v0", "v2", "v0", "v2", "v1"]


def test_frames_are_read_once(open_writer: OpenWriter) -> None:
    trace = Trace(open_writer().path)
    assert trace.charge is trace.charge


def test_trace_being_recorded_is_interrupted(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer()
    writer.append("reclaim", rows_of("reclaim", range(7)))
    writer.flush()
    trace = Trace(writer.path)
    assert trace.interrupted
    assert trace.rows("reclaim") == trace.table("reclaim").num_rows == 7


def test_journal_torn_at_any_byte_has_complete_batches(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer()
    ends = []
    journal = writer.path / "journal" / layout.journal_name("loss", 1)
    for numbers in (range(1), range(1, 3), range(3, 7)):  # each batch has another dictionary
        writer.append("loss", rows_of("loss", numbers))
        writer.flush()
        ends.append((journal.stat().st_size, numbers.stop))
    whole = journal.read_bytes()
    trace = Trace(writer.path)
    for length in range(len(whole) + 1):
        journal.write_bytes(whole[:length])
        expected = max((rows for end, rows in ends if end <= length), default=0)
        assert trace.table("loss", ["lost"])["lost"].to_pylist() == list(range(expected)), length
        assert trace.rows("loss") == expected, length


def test_damaged_parquet_file_is_named(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer()
    writer.append("oom", rows_of("oom", range(9)))
    writer.close("done")
    path = writer.path / "oom.parquet"
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        for read in (Trace(writer.path).table, Trace(writer.path).rows):
            with pytest.raises(TraceError) as raised:
                read("oom")
            assert str(raised.value).startswith(f"{path} cannot be read")
            assert "\n" not in str(raised.value)
    path.write_bytes(whole[: len(whole) // 3] + bytes(64) + whole[len(whole) // 3 + 64 :])
    with pytest.raises(TraceError, match=r"oom\.parquet cannot be read"):
        Trace(writer.path).table("oom")
    assert Trace(writer.path).table("charge").num_rows == 0, "other tables can still be read"


@pytest.mark.parametrize(
    "other", [pa.table({"lost": [1]}), pa.table({name: ["x"] for name in TABLES["loss"].names})]
)
def test_parquet_with_other_columns_is_refused(other: pa.Table, open_writer: OpenWriter) -> None:
    writer = open_writer()
    writer.close("done")
    pq.write_table(other, writer.path / "loss.parquet")
    with pytest.raises(TraceError, match=r"loss\.parquet cannot be read as schema"):
        Trace(writer.path).table("loss")


def written_before(
    rows: pa.RecordBatch, table: str, ended: bool, open_writer: OpenWriter, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a trace that an older version wrote, whose `table` had only the columns of these rows."""
    before = pa.schema([field for field in TABLES[table] if field.name in rows.schema.names])
    with monkeypatch.context() as then:
        then.setitem(TABLES, table, before)
        writer = open_writer()
        writer.append(table, rows.select(before.names))
        writer.flush()
        if ended:
            writer.close("done")
    return writer.path


@pytest.mark.parametrize("ended", [False, True])
def test_runs_of_older_traces_are_one_folio_each(
    ended: bool, open_writer: OpenWriter, rows_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of("pagecache", range(7)).drop_columns(["duration_ns", "folios"])
    found = Trace(written_before(rows, "pagecache", ended, open_writer, monkeypatch)).table("pagecache")
    assert found["duration_ns"].to_pylist() == [0] * 7
    assert found["folios"].to_pylist() == [1] * 7
    assert [found[name].to_pylist() for name in rows.schema.names] == [
        rows.column(name).to_pylist() for name in rows.schema.names
    ]


@pytest.mark.parametrize("ended", [False, True])
def test_column_added_later_is_null(
    ended: bool, open_writer: OpenWriter, rows_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of("samples", range(7)).drop_columns(["oom_group", "swap_max_events"])
    path = written_before(rows, "samples", ended, open_writer, monkeypatch)
    table = Trace(path).table("samples")
    assert table.schema == TABLES["samples"]
    assert table.column("oom_group").null_count == table.column("swap_max_events").null_count == 7
    assert table.column("usage_bytes").to_pylist() == list(range(7))
    assert Trace(path).table("samples", ["oom_group"]).num_rows == 7


def test_journal_compacted_meanwhile_is_read_again(
    open_writer: OpenWriter, rows_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer()
    writer.append("loss", rows_of("loss", range(3)))
    writer.flush()
    listed = layout.parts(writer.path, "loss")
    writer.close("done")
    now = layout.parts

    answers = iter([listed])
    monkeypatch.setattr(layout, "parts", lambda *names: next(answers, None) or now(*names))
    assert Trace(writer.path).table("loss").num_rows == 3

    monkeypatch.setattr(layout, "parts", lambda *names: listed)
    with pytest.raises(TraceError, match=r"loss\.1\.arrows vanished"):
        Trace(writer.path).table("loss")


def test_pandas_is_not_imported_by_writer_and_tables(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from tracer.schema import TABLES
from tracer.trace.arrow_columns import rows_of
from tracer.trace.meta import begin
from tracer.trace.write.writer import TraceWriter

path = Path(sys.argv[1])
meta = begin(command_line=[], cgroup_version=1, filters={}, probes={})
writer = TraceWriter(path, meta, force=False, part_rows=1)
for table in ("charge", "loss", "tasks", "inodes"):
    kinds = {field.name: str(field.type) for field in TABLES[table]}
    row = {name: "4" if "string" in kind else 4 for name, kind in kinds.items()}
    for _ in range(2):
        writer.append(table, rows_of(table, [row, row]))
        writer.flush()
writer.close("done")
slow = {"pandas", "pyarrow.compute"} & {*sys.modules}
assert not slow, f"the writer imported {slow}"
from tracer.trace.read.reader import Trace
trace = Trace(path)
assert trace.meta["lost"] == {"4": 16} and trace.rows("tasks") == 1 and trace.table("charge").num_rows == 4
assert "pandas" not in sys.modules, "pandas was imported"
"""
    subprocess.run([sys.executable, "-c", program, tmp_path / "trace"], check=True)
