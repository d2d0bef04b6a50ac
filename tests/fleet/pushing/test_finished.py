"""Which traces of a spool can be copied, and which are left for later or refused."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest
from support.storing.spooled_trace import FILES, write_spooled

from tracer.errors import TraceError, TracerError
from tracer.fleet.pushing.finished import FinishedTrace, UnfinishedTrace, examine, trace_paths


def names(spool: Path) -> list[tuple[str, ...]]:
    return [name for _, name in trace_paths(spool, pytest.fail)]


def test_traces_at_any_depth_are_found_without_hidden_and_linked_ones(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    for name in ("b", "a/x", "a/y/z", ".unfinished-c", "b/inside"):
        write_spooled(spool / name)
    outside = write_spooled(tmp_path / "outside")
    (spool / "link").symlink_to(outside)
    (spool / "file").write_text("meta.json")
    assert names(spool) == [("a", "x"), ("a", "y", "z"), ("b",)]


def test_trace_itself_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = write_spooled(tmp_path / "web")
    monkeypatch.chdir(trace)
    assert names(trace) == names(Path()) == [("web",)]


def test_directory_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TracerError, match="No such file"):
        trace_paths(tmp_path / "no", pytest.fail)


def test_finished_trace_has_its_files_and_identity(tmp_path: Path) -> None:
    (tmp_path / "spool/odd").mkdir(parents=True)
    trace = examine(write_spooled(tmp_path / "t", ended="now", age_s=0), ("t",))
    assert isinstance(trace, FinishedTrace)
    assert trace.files == {name: len(content) for name, content in FILES.items()}
    other = examine(write_spooled(tmp_path / "u", start_ns=2), ("u",))
    assert isinstance(other, FinishedTrace)
    assert len({trace.identity, other.identity, ""}) == 3
    assert trace.is_unchanged()
    (trace.path / "charge.parquet").write_bytes(b"")
    assert not trace.is_unchanged()


def test_foreign_files_are_left_out(tmp_path: Path) -> None:
    odd = {"notes.txt": b"1", "meta.json.tmp": b"2", "journal/a.1.tmp": b"3", "x.parquet": b"4"}
    trace = examine(write_spooled(tmp_path / "t", files=odd), ("t",))
    assert isinstance(trace, FinishedTrace)
    assert set(trace.files) == {"x.parquet"}


def test_locked_trace_is_left_for_later(tmp_path: Path) -> None:
    path = write_spooled(tmp_path / "t")
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    found = examine(path, ("t",))
    assert isinstance(found, UnfinishedTrace)
    assert found.why == "it is being written"
    os.close(descriptor)
    assert isinstance(examine(path, ("t",)), FinishedTrace)


@pytest.mark.parametrize("files", [FILES, {"journal/charge.1.arrows": b"j"}])
@pytest.mark.parametrize("ended", [None, "then"])
def test_interrupted_trace_is_left_until_it_has_settled(
    tmp_path: Path, files: dict[str, bytes], ended: str | None
) -> None:
    fresh = examine(write_spooled(tmp_path / "f", files=files, ended=ended, age_s=10), ("f",))
    settled = examine(write_spooled(tmp_path / "s", files=files, ended=ended, age_s=100), ("s",))
    is_complete = files == FILES and ended is not None
    assert isinstance(fresh, FinishedTrace) == is_complete
    assert isinstance(settled, FinishedTrace)
    assert set(settled.files) == set(files)


@pytest.mark.parametrize("name", ["charge.parquet", "pagecache/000001.parquet", "meta.json"])
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_file_that_is_not_regular_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    path = write_spooled(tmp_path / "t")
    (path / name).unlink()
    if kind == "link":
        (tmp_path / "secret").write_text(json.dumps({"format": "memcg-tracer trace"}))
        (path / name).symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(path / name)
    with pytest.raises(TraceError, match=r"not a regular file"):
        examine(path, ("t",))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": "x"}', b'{"format": "memcg-tracer trace", "clock": 1}', b"\xff" * 9],
)
def test_damaged_meta_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = write_spooled(tmp_path / "t")
    (path / "meta.json").write_bytes(content)
    with pytest.raises(TraceError, match=r"not that of a trace"):
        examine(path, ("t",))
