"""The directories that a new trace may use, the files that it removes, and those that it never removes."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tracer.errors import TraceError
from tracer.kernel.process.children import forked
from tracer.trace.meta import begin
from tracer.trace.write.writer import TraceWriter

RowsOf = Callable[[str, range], pa.RecordBatch]
OpenWriter = Callable[..., TraceWriter]

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Return a file outside of any trace, which a link leads to."""
    file = tmp_path / "precious"
    file.write_text("mine")
    return file


@pytest.fixture
def old(open_writer: OpenWriter, rows_of: RowsOf) -> Path:
    """Return an old trace."""
    writer = open_writer(part_rows=1)
    for number in range(3):
        writer.append("loss", rows_of("loss", range(number, number + 1)))
    writer.close("done")
    return writer.path


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@as_root
@pytest.mark.parametrize("planted", ["meta.json.tmp", "meta.json", "journal", "charge.parquet"])
@pytest.mark.parametrize("force", [False, True])
def test_claim_directory_of_other_user_raises(
    open_writer: OpenWriter, tmp_path: Path, precious: Path, planted: str, force: bool
) -> None:
    (tmp_path / "trace").mkdir()
    (tmp_path / "trace" / planted).symlink_to(precious)
    os.chown(tmp_path / "trace", NOBODY, NOBODY)
    with pytest.raises(TraceError, match=f"belongs to user {NOBODY}, .*: choose another place") as raised:
        open_writer(force=force)
    assert "\n" not in str(raised.value)
    assert precious.read_text() == "mine"
    assert (tmp_path / "trace" / planted).is_symlink()


@pytest.mark.parametrize("force", [False, True])
def test_claim_link_to_trace_raises(open_writer: OpenWriter, old: Path, force: bool) -> None:
    link = old.with_name("link")
    link.symlink_to(old)
    before = contents(old)
    with pytest.raises(TraceError, match=f"{link} is a symbolic link, .*: name the directory itself"):
        open_writer("link", force=force)
    assert contents(old) == before


@pytest.mark.parametrize(
    "planted",
    ["meta.json.tmp", "charge.parquet", "charge", "journal", "journal/loss.1.arrows", "loss/000009.parquet"],
)
def test_claim_old_trace_with_links_raises(
    open_writer: OpenWriter, old: Path, precious: Path, planted: str
) -> None:
    (old / planted).parent.mkdir(exist_ok=True)
    (old / planted).unlink(missing_ok=True)
    (old / planted).symlink_to(precious)
    before = contents(old)
    with pytest.raises(TraceError, match=f"holds '{planted}', which is no part of a trace: move it away"):
        open_writer(force=True)
    assert contents(old) == before
    assert precious.read_text() == "mine"


@pytest.mark.parametrize(
    ("odd", "make"),
    [
        ("report.html", Path.touch),
        ("charge.parquet.bak", Path.touch),
        ("loss/notes", Path.touch),
        ("journal/loss.1.arrows.old", Path.touch),
        ("meta.json.tmp", Path.mkdir),
        ("samples.parquet", os.mkfifo),
        ("journal/x.1.arrows", os.mkfifo),
        ("other", Path.mkdir),
    ],
)
def test_claim_old_trace_with_other_entries_raises(
    open_writer: OpenWriter, old: Path, odd: str, make: Callable[[Path], Any]
) -> None:
    (old / odd).parent.mkdir(exist_ok=True)
    (old / odd).unlink(missing_ok=True)
    make(old / odd)
    before = contents(old)
    with pytest.raises(TraceError, match=f"holds '{odd}', which is no part of a trace"):
        open_writer(force=True)
    assert contents(old) == before
    assert os.path.lexists(old / odd)


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["fifo", "device"]
)
def test_claim_irregular_meta_json_is_not_read(
    open_writer: OpenWriter, tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    (tmp_path / "trace").mkdir()
    make(tmp_path / "trace" / "meta.json")
    with pytest.raises(TraceError, match="is not a trace and will not be overwritten"):
        open_writer(force=True)
    with pytest.raises(TraceError, match=r"exists and is not empty: choose another place$"):
        open_writer()  # -f would not help


@as_root
def test_writer_directory_exchanged_for_link_writes_nowhere_else(
    open_writer: OpenWriter, rows_of: RowsOf, tmp_path: Path
) -> None:
    """The directory is exchanged for a link while it is written."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "meta.json").write_text("mine")
    (tmp_path / "parent").mkdir()
    os.chown(tmp_path / "parent", NOBODY, NOBODY)
    writer = open_writer("parent/trace", part_rows=1)
    writer.path.rename(tmp_path / "parent/moved")
    writer.path.symlink_to(elsewhere)
    for number in range(3):
        writer.append("loss", rows_of("loss", range(number, number + 1)))
    writer.flush()
    writer.close("done")
    assert contents(elsewhere) == {"meta.json": b"mine"}
    assert set(contents(tmp_path / "parent/moved")) > {"meta.json", "loss/000003.parquet"}


def test_claim_trace_being_written_raises(open_writer: OpenWriter, rows_of: RowsOf) -> None:
    live = open_writer()
    live.append("loss", rows_of("loss", range(3)))
    live.flush()
    before = contents(live.path)
    for force in (False, True):
        with pytest.raises(
            TraceError, match=f"written by the recorder with pid {os.getpid()}: stop that one"
        ):
            open_writer(force=force)
    assert contents(live.path) == before
    live.close("done")
    open_writer(force=True).close("done")


@pytest.mark.parametrize("is_there", [False, True])
def test_claim_by_two_recorders_at_once_succeeds_for_one(tmp_path: Path, old: Path, is_there: bool) -> None:
    path = old if is_there else tmp_path / "new"
    meta = begin(command_line=[], cgroup_version=1, filters={}, probes={})

    def claim(side: socket.socket) -> None:
        side.send(b"here")
        side.recv(1)
        try:
            writer = TraceWriter(path, meta, force=True)
        except TraceError as error:
            side.send(str(error).encode())
        else:
            side.send(b"won")
            side.recv(1)
            assert writer.path == path

    def answer_of(side: socket.socket) -> str:
        side.send(b"x")
        return side.recv(1000).decode()

    sides, recorders = [], []
    for _ in range(4):
        ours, theirs = socket.socketpair()
        recorders.append(forked(partial(claim, theirs)))
        theirs.close()
        sides.append(ours)
    assert [side.recv(4) for side in sides] == [b"here"] * 4
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(answer_of, sides))
    for side, recorder in zip(sides, recorders, strict=True):
        with suppress(OSError):  # one that lost has ended
            side.send(b"x")
        side.close()
        assert os.waitpid(recorder, 0)[1] == 0
    assert answers.count("won") == 1, answers
    assert sum("is being written by" in answer for answer in answers) == 3, answers


def test_claim_own_directory_becomes_private(open_writer: OpenWriter, tmp_path: Path) -> None:
    (tmp_path / "trace").mkdir()
    (tmp_path / "trace").chmod(0o777)
    assert stat.S_IMODE(open_writer().path.stat().st_mode) == 0o700
