from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.full_disk import files_limited_to

from tracer.directory import Directory
from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.read.reader import Trace
from tracer.trace.write.claim import lock
from tracer.trace.write.journal import Journal
from tracer.trace.write.writer import TraceWriter

BUSY_WRITER = Path(__file__).parents[2] / "workloads/busy_writer.py"

RowsOf = Callable[[str, range], pa.RecordBatch]
OpenWriter = Callable[..., TraceWriter]


def lost_of(path: Path) -> list[int]:
    numbers: list[int] = Trace(path).table("loss", ["lost"])["lost"].to_pylist()
    return numbers


def test_trace_is_readable_by_owner_only(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer("new/deep/trace", part_rows=1)
    for number in range(3):
        writer.append("loss", rows_of("loss", range(number, number + 1)))
    for _ in range(2):
        modes = set()
        for path in [writer.path, *writer.path.rglob("*")]:
            with suppress(FileNotFoundError):  # a journal that a part replaces meanwhile
                modes.add(path.stat().st_mode)
        assert modes == {stat.S_IFDIR | 0o700, stat.S_IFREG | 0o600}
        writer.close("done")


def test_full_parts_become_parquet_files(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer(part_rows=10)
    for start in range(0, 36, 4):
        writer.append("loss", rows_of("loss", range(start, start + 4)))
        writer.append("tasks", rows_of("tasks", range(start, start + 4)))
    assert writer.rows == dict.fromkeys(TABLES, 0) | {"loss": 36, "tasks": 36}
    writer.close("done")
    folder = sorted(path.name for path in (writer.path / "loss").iterdir())
    assert folder == ["000001.parquet", "000002.parquet", "000003.parquet"]
    assert lost_of(writer.path) == list(range(36))
    assert (writer.path / "tasks.parquet").exists(), "identity tables stay whole"
    assert pa.parquet.read_table(writer.path / "loss").num_rows == 36


def test_close_twice_changes_nothing(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer(part_rows=2)
    for table in ("loss", "tasks", "charge"):
        for start in (0, 2):
            writer.append(table, rows_of(table, range(start, start + 2)))
    writer.close("done")
    rows = Trace(writer.path).meta["rows"]
    writer.close("done again")
    assert Trace(writer.path).meta["rows"] == rows
    assert lost_of(writer.path) == [0, 1, 2, 3]


def test_flush_touches_only_the_journals_with_new_rows(
    open_writer: OpenWriter, rows_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    flush = Journal.flush

    def note(journal: Journal) -> None:
        flushed.append(journal.name)
        flush(journal)

    monkeypatch.setattr(Journal, "flush", note)
    writer = open_writer()
    writer.open_journals()
    writer.flush()
    assert len(flushed) == len(TABLES)
    for number in range(2):
        flushed.clear()
        writer.append("loss", rows_of("loss", range(number, number + 1)))
        for _ in range(2):
            writer.flush()
        assert flushed == [layout.journal_name("loss", 1)]
    assert lost_of(writer.path) == [0, 1]


def test_journal_dictionary_is_written_when_it_changes(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    def stored_bytes(names: list[list[str]]) -> int:
        writer = open_writer(str(len(list(tmp.iterdir()))))
        for number, dictionary in enumerate(names):
            batch = rows_of("loss", range(number, number + 1))
            stream = pa.DictionaryArray.from_arrays(
                pa.array([len(dictionary) - 1], pa.int32()), pa.array(dictionary)
            )
            columns = [stream if name == "stream" else batch.column(name) for name in batch.schema.names]
            writer.append("loss", pa.RecordBatch.from_arrays(columns, names=batch.schema.names))
        writer.flush()
        assert Trace(writer.path).table("loss")["stream"].to_pylist() == [own[-1] for own in names]
        size = (writer.path / "journal" / layout.journal_name("loss", 1)).stat().st_size
        writer.close("done")
        assert Trace(writer.path).table("loss")["stream"].to_pylist() == [own[-1] for own in names]
        return size

    tmp = open_writer("first").path.parent
    long = [f"{number}" * 1000 for number in range(8)]
    fixed = stored_bytes([long] * 8)
    growing = stored_bytes([long[: number + 1] for number in range(8)])
    shrinking = stored_bytes([long[number:] for number in range(8)])
    assert 8_000 < fixed < 16_000
    assert growing > 36_000
    assert shrinking > 36_000


def test_writer_existing_path_raises(open_writer: OpenWriter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    for name in ("meta.json", "loss.parquet"):
        (tmp_path / "full" / name).write_text("{}")
    for force in (False, True):
        with pytest.raises(TraceError, match="choose another place"):
            open_writer("file", force=force)
        with pytest.raises(TraceError, match="choose another place"):
            open_writer("full", force=force)
    assert (tmp_path / "file").read_text() == "mine"
    assert {path.name for path in (tmp_path / "full").iterdir()} == {"meta.json", "loss.parquet"}
    with pytest.raises(TraceError, match=r"cannot create the trace .*/file/trace \(File exists: .*/file\)"):
        open_writer("file/trace")


def test_writer_empty_directory_becomes_private(open_writer: OpenWriter, tmp_path: Path) -> None:
    (tmp_path / "trace").mkdir(mode=0o755)
    assert open_writer().path.stat().st_mode & 0o777 == 0o700


def test_writer_force_overwrites_trace(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    old = open_writer(part_rows=1)
    for number in range(3):
        old.append("loss", rows_of("loss", range(number, number + 1)))
        old.append("tasks", rows_of("tasks", range(number, number + 1)))
    old.close("done")
    with pytest.raises(TraceError, match="overwrite it with -f"):
        open_writer()
    assert Trace(old.path).rows("loss") == 3
    writer = open_writer(force=True)
    assert lost_of(writer.path) == []
    assert Trace(writer.path).rows("tasks") == 0
    writer.append("charge", rows_of("charge", range(3)))
    writer.close("done")
    assert Trace(writer.path).rows("charge") == 3


def test_writer_force_overwrites_interrupted_trace(open_writer: OpenWriter, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, BUSY_WRITER, tmp_path / "trace"], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        for _ in range(30):
            assert child.stdout.readline(), "the writer ended early"
        with pytest.raises(TraceError, match=f"is being written by the recorder with pid {child.pid}: stop"):
            open_writer(force=True)
        assert child.stdout.readline(), "the first writer goes on"
        child.kill()
    assert Trace(tmp_path / "trace").rows("loss") >= 30
    writer = open_writer(force=True)
    assert Trace(writer.path).rows("loss") == 0
    writer.close("done")


def test_trace_that_cannot_be_begun_is_not_locked(open_writer: OpenWriter, tmp_path: Path) -> None:
    with files_limited_to(10), pytest.raises(TraceError, match="cannot create the trace"):
        open_writer("trace")
    with Directory.open(tmp_path / "trace") as trace:
        lock(trace)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a filesystem of 16 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounts a filesystem")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "none", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """Write a file that fills the disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def flush_until_written(writer: TraceWriter) -> None:
    deadline = time.monotonic() + 30
    while True:
        writer.flush()
        with suppress(TraceError):
            writer.require_written()
            return
        assert time.monotonic() < deadline, "the writer makes no attempt"
        time.sleep(0.01)


def test_full_disk_rows_wait_in_memory(open_writer: OpenWriter, rows_of: RowsOf, disk: Path) -> None:
    warnings: list[str] = []
    writer = open_writer("disk/trace", warn=warnings.append)
    writer.append("loss", rows_of("loss", range(10)))
    writer.append("tasks", rows_of("tasks", range(10)))
    writer.flush()
    filler = fill(disk)
    for start in range(10, 20_010, 2000):
        writer.append("loss", rows_of("loss", range(start, start + 2000)))
        writer.append("tasks", rows_of("tasks", range(start, start + 2000)))
        writer.flush()
    assert len(warnings) == 1, "one warning for all attempts"
    assert warnings[0].startswith(
        f"cannot write the trace {writer.path}: No space left on device; recording goes"
    )
    assert lost_of(writer.path) == list(range(10)), "flushed rows are readable"
    assert writer.rows["loss"] == writer.rows["tasks"] == 20_010

    filler.unlink()
    flush_until_written(writer)
    assert warnings[1:] == [f"the trace {writer.path} can be written again: no row was lost"]
    assert lost_of(writer.path) == list(range(20_010))
    writer.append("loss", rows_of("loss", range(20_010, 20_012)))
    writer.close("done")
    trace = Trace(writer.path)
    assert lost_of(writer.path) == list(range(20_012))
    assert trace.table("tasks", ["tgid"])["tgid"].to_pylist() == list(range(20_010))
    assert trace.meta["rows"] == dict.fromkeys(TABLES, 0) | {"loss": 20_012, "tasks": 20_010}
    assert trace.meta["end_reason"] == "done"


def test_full_disk_rows_beyond_bound_are_counted(
    open_writer: OpenWriter, rows_of: RowsOf, disk: Path
) -> None:
    writer = open_writer("disk/trace", held_bytes=6_800_000)
    filler = fill(disk)
    before_ns = time.monotonic_ns()
    for start in range(0, 10_000, 100):
        writer.append("pagecache", rows_of("pagecache", range(start, start + 100)))
        writer.append("charge", rows_of("charge", range(start, start + 100)))
        writer.append("oom", rows_of("oom", range(start // 100, start // 100 + 1)))
        writer.flush()
    lost = dict(writer.lost)
    assert set(lost) == {"charge", "pagecache"}, "no row of `oom` is lost"
    filler.unlink()
    flush_until_written(writer)
    after_ns = time.monotonic_ns()
    writer.close("done")

    trace = Trace(writer.path)
    assert trace.meta["lost"] == lost
    assert {row["stream"]: row["lost"] for row in trace.table("loss").to_pylist()} == lost
    pages = trace.table("pagecache", ["nr_pages"])["nr_pages"].to_pylist()
    assert pages == list(range(10_000 - lost["pagecache"])), "the oldest rows are kept"
    assert trace.rows("oom") == 100
    offset_ns = trace.meta["clock"]["realtime_ns"] - trace.meta["clock"]["monotonic_ns"]
    for row in trace.table("loss").to_pylist():
        times_ns = [
            row[name].value if hasattr(row[name], "value") else row[name] for name in ("begin", "time")
        ]
        assert before_ns + offset_ns <= times_ns[0] < times_ns[1] <= after_ns + offset_ns
    charge = trace.table("charge").to_pydict()
    assert sum(charge["pages"]) == sum(range(10_000)), "totals stay exact"
    sums = [row for row in trace.table("charge").to_pylist() if row["tgid"] is None]
    assert sum(row["updates"] for row in sums) == sum(range(10_000 - lost["charge"], 10_000))


def test_close_on_full_disk_reports_written_rows(
    open_writer: OpenWriter, rows_of: RowsOf, disk: Path
) -> None:
    writer = open_writer("disk/trace")
    writer.append("loss", rows_of("loss", range(10)))
    writer.flush()
    fill(disk)
    writer.append("loss", rows_of("loss", range(10, 5_010)))
    writer.flush()
    with pytest.raises(
        TraceError, match=r"No space left on device; 10 rows, until \d+\.\d s before .*; 5,000 rows"
    ):
        writer.close("done")
    assert lost_of(writer.path) == list(range(10))
    assert Trace(writer.path).interrupted


def test_removed_directory_fails_only_at_close(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    warnings: list[str] = []
    writer = open_writer(warn=warnings.append)
    writer.append("loss", rows_of("loss", range(10)))
    writer.flush()
    shutil.rmtree(writer.path)
    for start in range(10, 100, 10):
        writer.append("loss", rows_of("loss", range(start, start + 10)))
        writer.flush()
    assert [line.partition(";")[0] for line in warnings] == [
        f"cannot write the trace {writer.path}: its directory was removed"
    ]
    with pytest.raises(TraceError, match="its directory was removed; nothing of it is left, and 100 rows"):
        writer.close("done")
    assert not writer.path.exists()


def test_removed_journals_lose_only_their_rows(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer()
    writer.append("tasks", rows_of("tasks", range(10)))
    writer.append("charge", rows_of("charge", range(10)))
    writer.flush()
    shutil.rmtree(writer.path / "journal")
    writer.append("tasks", rows_of("tasks", range(10, 15)))
    writer.flush()
    writer.close("done")
    trace = Trace(writer.path)
    assert trace.table("tasks", ["tgid"])["tgid"].to_pylist() == list(range(10, 15))
    lost = {"task": 10, "charge": 10, "residue": 10}
    assert {row["stream"]: row["lost"] for row in trace.table("loss").to_pylist()} == lost
    assert trace.meta["lost"] == lost


def test_file_size_limit_begins_new_parts(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    warnings: list[str] = []
    writer = open_writer(warn=warnings.append)
    with files_limited_to(30_000):
        for start in range(0, 10_000, 100):
            writer.append("loss", rows_of("loss", range(start, start + 100)))
            writer.append("tasks", rows_of("tasks", range(start, start + 100)))
            writer.flush()
        assert len(list((writer.path / "journal").iterdir())) > 10
        assert lost_of(writer.path) == list(range(10_000))
        assert warnings == []
    writer.close("done")
    assert lost_of(writer.path) == list(range(10_000))
    assert Trace(writer.path).rows("tasks") == 10_000


def test_close_without_room_for_parquet_keeps_journals(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer()
    noise = np.random.default_rng(1).integers(0, 2**36, 20_000)  # their sum is a possible loss
    batch = rows_of("loss", range(20_000))
    columns = [pa.array(noise) if name == "lost" else batch.column(name) for name in batch.schema.names]
    writer.append("loss", pa.RecordBatch.from_arrays(columns, names=batch.schema.names))
    writer.append("charge", rows_of("charge", range(3)))
    writer.flush()
    with files_limited_to(50_000), pytest.raises(TraceError, match="File too large; all 20,003 rows are"):
        writer.close("disk full")
    trace = Trace(writer.path)
    assert trace.meta["end_reason"] == "disk full"
    assert trace.meta["rows"] == dict.fromkeys(TABLES, 0) | {"loss": 20_000, "charge": 3}
    assert trace.table("loss")["lost"].to_pylist() == noise.tolist()
    assert [path.name for path in (writer.path / "journal").iterdir()] == ["loss.1.arrows"]
    assert (writer.path / "charge.parquet").exists()


def test_journal_without_space_raises(
    rows_of: RowsOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(Directory, "create", lambda *_: Path("/dev/full").open("wb"))  # noqa: SIM115
    journal = Journal(Directory.open(tmp_path), "loss.1.arrows", TABLES["loss"])
    batch = pa.RecordBatch.from_arrays(rows_of("loss", range(3)).columns, schema=TABLES["loss"])
    with pytest.raises(OSError, match="No space left") as raised:
        journal.append(batch)
        journal.flush()
    assert raised.value.errno == errno.ENOSPC
    assert journal.abandon() == [batch]
    assert journal.rows == 0
