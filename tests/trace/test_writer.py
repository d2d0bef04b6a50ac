from __future__ import annotations

import errno
import resource
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.journal import Journal
from tracer.trace.reader import Trace
from tracer.trace.writer import TraceWriter

RowsOf = Callable[[str, range], pa.RecordBatch]
OpenWriter = Callable[..., TraceWriter]


def lost_of(path: Path) -> list[int]:
    numbers: list[int] = Trace(path).table("loss", ["lost"])["lost"].to_pylist()
    return numbers


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """Writes beyond this length fail with EFBIG (Python ignores SIGXFSZ), as on a full disk with ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_only_the_owner_may_read(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer("new/deep/trace", part_rows=1)
    for number in range(3):
        writer.append("loss", rows_of("loss", range(number, number + 1)))
    for _ in range(2):
        modes = set()
        for path in [writer.path, *writer.path.rglob("*")]:
            with suppress(FileNotFoundError):  # a journal, which a part takes the place of meanwhile
                modes.add(path.stat().st_mode)
        assert modes == {stat.S_IFDIR | 0o700, stat.S_IFREG | 0o600}
        writer.close("done")


def test_full_parts_become_a_folder_of_parquet(open_writer: OpenWriter, rows_of: RowsOf) -> None:
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


def test_closing_twice_changes_no_row(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer(part_rows=2)
    for table in ("loss", "tasks", "charge"):
        for start in (0, 2):
            writer.append(table, rows_of(table, range(start, start + 2)))
    writer.close("done")
    rows = Trace(writer.path).meta["rows"]
    writer.close("done again")
    assert Trace(writer.path).meta["rows"] == rows
    assert lost_of(writer.path) == [0, 1, 2, 3]


def test_a_fixed_dictionary_is_written_once_and_a_growing_one_as_it_grows(
    open_writer: OpenWriter, rows_of: RowsOf
) -> None:
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
        size = layout.journal_path(writer.path, "loss", 1).stat().st_size
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


def test_a_path_that_is_taken_is_left_alone(open_writer: OpenWriter, tmp_path: Path) -> None:
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


def test_an_empty_directory_is_taken_and_made_private(open_writer: OpenWriter, tmp_path: Path) -> None:
    (tmp_path / "trace").mkdir(mode=0o755)
    assert open_writer().path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("ended", [True, False])
def test_force_overwrites_a_trace_and_nothing_beside_it(
    ended: bool, open_writer: OpenWriter, rows_of: RowsOf, tmp_path: Path
) -> None:
    old = open_writer(part_rows=1)
    for number in range(3):
        old.append("loss", rows_of("loss", range(number, number + 1)))
        old.append("tasks", rows_of("tasks", range(number, number + 1)))
    old.flush()
    if ended:
        old.close("done")
    deadline = time.monotonic() + 30
    while any(layout.journal_path(old.path, "loss", number).exists() for number in (1, 2)):
        assert time.monotonic() < deadline, "full parts stay journals"
        time.sleep(0.01)  # a recorder that was killed makes no parts any more
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "000001.parquet").touch()
    (old.path / "charge").symlink_to(elsewhere)
    (old.path / "report.html").write_text("mine")

    with pytest.raises(TraceError, match="overwrite it with -f"):
        open_writer()
    assert Trace(old.path).rows("loss") == 3
    writer = open_writer(force=True)
    assert lost_of(writer.path) == []
    assert Trace(writer.path).rows("tasks") == 0
    assert (writer.path / "report.html").read_text() == "mine"
    writer.append("charge", rows_of("charge", range(3)))
    writer.close("done")
    assert Trace(writer.path).rows("charge") == 3
    assert [(path.name, path.stat().st_size) for path in elsewhere.iterdir()] == [("000001.parquet", 0)]


def test_a_disk_that_fills_keeps_what_was_flushed(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer()
    flushed = 0
    with files_limited_to(30_000):
        with pytest.raises(TraceError, match="File too large") as raised:
            for start in range(0, 10**6, 100):
                writer.append("loss", rows_of("loss", range(start, start + 100)))
                writer.flush()
                flushed = start + 100
        assert "\n" not in str(raised.value)
        assert str(writer.path) in str(raised.value)
        assert lost_of(writer.path) == list(range(flushed))
        assert writer.rows["loss"] == flushed > 0

    writer.append("loss", rows_of("loss", range(flushed, flushed + 5)))
    writer.append("tasks", rows_of("tasks", range(1)))
    writer.close("done")
    assert lost_of(writer.path) == list(range(flushed + 5))


def test_a_big_append_to_a_full_disk_gives_up_only_what_was_not_flushed(
    open_writer: OpenWriter, rows_of: RowsOf
) -> None:
    writer = open_writer()
    writer.append("loss", rows_of("loss", range(10)))
    writer.append("tasks", rows_of("tasks", range(10)))
    writer.flush()
    writer.append("loss", rows_of("loss", range(10, 20)))
    with files_limited_to(30_000), pytest.raises(TraceError):
        writer.append("loss", rows_of("loss", range(20, 30_000)))
    assert writer.rows["loss"] == 10
    assert lost_of(writer.path) == list(range(10))
    writer.append("loss", rows_of("loss", range(10, 12)))
    writer.close("done")
    assert lost_of(writer.path) == list(range(12))


def test_no_room_for_parquet_leaves_the_journals(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    writer = open_writer()
    noise = np.random.default_rng(1).integers(0, 2**48, 20_000)
    batch = rows_of("loss", range(20_000))
    columns = [pa.array(noise) if name == "lost" else batch.column(name) for name in batch.schema.names]
    writer.append("loss", pa.RecordBatch.from_arrays(columns, names=batch.schema.names))
    writer.append("charge", rows_of("charge", range(3)))
    writer.flush()
    with files_limited_to(50_000), pytest.raises(TraceError, match="File too large"):
        writer.close("disk full")
    trace = Trace(writer.path)
    assert trace.meta["end_reason"] == "disk full"
    assert trace.meta["rows"] == dict.fromkeys(TABLES, 0) | {"loss": 20_000, "charge": 3}
    assert trace.table("loss")["lost"].to_pylist() == noise.tolist()
    assert [path.name for path in (writer.path / "journal").iterdir()] == ["loss.1.arrows"]
    assert (writer.path / "charge.parquet").exists()


def test_no_space_left_on_device_is_an_error_of_the_journal(rows_of: RowsOf) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full here")
    journal = Journal(Path("/dev/full"), TABLES["loss"])
    with pytest.raises(OSError, match="No space left") as raised:
        journal.append(pa.RecordBatch.from_arrays(rows_of("loss", range(3)).columns, schema=TABLES["loss"]))
        journal.flush()
    assert raised.value.errno == errno.ENOSPC
    assert journal.abandon() == 3
    assert journal.rows == 0
