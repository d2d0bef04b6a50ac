"""One trace to its place: whole or not there, whatever fails, and whoever else is at work."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.storing.object_store import ObjectStore
from support.storing.spooled_trace import contents, write_spooled

from tracer.fleet.pushing import upload
from tracer.fleet.pushing.finished import FinishedTrace, examine
from tracer.fleet.pushing.target import Target, TargetError, private_files

URL = "memory://bucket/traces"
_HALF = 1500


def trace_at(path: Path, name: str = "web") -> FinishedTrace:
    found = examine(path, (name,))
    assert isinstance(found, FinishedTrace)
    return found


def never_wait(_: float) -> None:
    return


def stored(store: type[ObjectStore], place: str = "web") -> dict[str, bytes]:
    prefix = f"/bucket/traces/{place}/"
    return {
        path.removeprefix(prefix): content
        for path, content in store.objects().items()
        if path.startswith(prefix)
    }


def test_trace_is_copied_with_meta_last_and_then_is_there(tmp_path: Path, store: type[ObjectStore]) -> None:
    trace = trace_at(write_spooled(tmp_path / "web"))
    put = []
    store.before = staticmethod(lambda what, path: put.append(path) if what == "put" else None)
    target = Target(URL)
    copied = upload.copy(target, trace)
    assert stored(store) == contents(trace.path)
    assert put[-1].endswith("/meta.json")
    assert (copied.place, copied.sent_bytes, copied.sent_files) == ("web", trace.size_bytes, 5)
    put.clear()
    assert upload.copy(target, trace).was_there
    assert put == []
    assert upload.is_equal(target, trace, "web")
    store.store["/bucket/traces/web/charge.parquet"].seek(0)
    store.store["/bucket/traces/web/charge.parquet"].write(b"X")
    assert not upload.is_equal(target, trace, "web")


def test_file_target_is_private_and_equal(tmp_path: Path) -> None:
    trace = trace_at(write_spooled(tmp_path / "web"))
    with private_files():
        upload.copy(Target(f"file://{tmp_path}/at/traces"), trace)
    place = tmp_path / "at/traces/web"
    assert contents(place) == contents(trace.path)
    modes = {path.stat().st_mode & 0o7777 for path in [tmp_path / "at", *(tmp_path / "at").rglob("*")]}
    assert modes == {0o700, 0o600}


def test_damaged_copy_is_repaired(tmp_path: Path, store: type[ObjectStore]) -> None:
    trace = trace_at(write_spooled(tmp_path / "web"))
    upload.copy(Target(URL), trace)
    del store.store["/bucket/traces/web/charge.parquet"]
    assert not upload.copy(Target(URL), trace).was_there
    assert stored(store) == contents(trace.path)


def test_other_trace_of_the_name_is_kept_and_ours_is_beside_it(
    tmp_path: Path, store: type[ObjectStore]
) -> None:
    first = trace_at(write_spooled(tmp_path / "a/web"))
    second = trace_at(write_spooled(tmp_path / "b/web", start_ns=2, files={"oom.parquet": b"other"}))
    target = Target(URL)
    assert upload.copy(target, first).place == "web"
    own = upload.copy(target, second).place
    assert own == f"web-{second.identity}"
    assert upload.copy(target, second) == upload.Copied(own, 0, 0)
    assert stored(store) == contents(first.path)
    assert stored(store, own) == contents(second.path)


def test_trace_that_was_completed_since_is_there(tmp_path: Path, store: type[ObjectStore]) -> None:
    interrupted = write_spooled(tmp_path / "web", files={"journal/oom.1.arrows": b"rows"})
    upload.copy(Target(URL), trace_at(interrupted))
    (interrupted / "journal/oom.1.arrows").rename(interrupted / "oom.parquet")
    meta = (interrupted / "meta.json").read_bytes()
    (interrupted / "meta.json").write_bytes(meta.replace(b'"rows": null', b'"rows": {"oom": 1}'))
    completed = trace_at(interrupted)
    assert completed.meta != meta
    assert upload.copy(Target(URL), completed).was_there
    assert not upload.is_equal(Target(URL), completed, "web")


def test_what_is_not_of_the_trace_is_removed_before_it_is_there(
    tmp_path: Path, store: type[ObjectStore]
) -> None:
    """A table that an interrupted copy of an earlier state left would be read as one of the trace."""
    trace = trace_at(write_spooled(tmp_path / "web"))
    target = Target(URL)
    target.put("web/stalls.parquet", 1, lambda: [b"x"])
    target.put("web/notes.txt", 1, lambda: [b"x"])
    upload.copy(target, trace)
    assert set(stored(store)) == {*contents(trace.path), "notes.txt"}


def test_interrupted_copy_goes_on_file_by_file(tmp_path: Path, store: type[ObjectStore]) -> None:
    trace = trace_at(write_spooled(tmp_path / "web"))

    def fail(what: str, path: str) -> None:
        if what == "put" and path.endswith("000002.parquet"):
            raise PermissionError("refused")

    store.before = staticmethod(fail)
    with pytest.raises(TargetError, match=r"cannot use memory://bucket/traces/web/pagecache.*refused"):
        upload.copy(Target(URL), trace)
    assert "meta.json" not in stored(store)
    store.before = staticmethod(lambda what, path: None)
    copied = upload.copy(Target(URL), trace)
    assert copied.sent_files == 2
    assert stored(store) == contents(trace.path)


def test_interrupted_copy_does_not_go_on_with_a_file_of_an_earlier_state(
    tmp_path: Path, store: type[ObjectStore]
) -> None:
    path = write_spooled(tmp_path / "web")

    def fail(what: str, path: str) -> None:
        if what == "put" and path.endswith("meta.json"):
            raise PermissionError("refused")

    store.before = staticmethod(fail)
    with pytest.raises(TargetError):
        upload.copy(Target(URL), trace_at(path))
    store.before = staticmethod(lambda what, path: None)
    (path / "charge.parquet").write_bytes(b"d" * 3001)
    assert upload.copy(Target(URL), trace_at(path)).sent_files == 2
    assert stored(store) == contents(path)


def test_failures_that_pass_are_tried_again(tmp_path: Path, store: type[ObjectStore]) -> None:
    trace = trace_at(write_spooled(tmp_path / "web"))
    failed: set[tuple[str, str]] = set()
    waited: list[float] = []

    def fail_once(what: str, path: str) -> None:
        if (what, path) not in failed:
            failed.add((what, path))
            raise ConnectionResetError("Connection reset by peer")

    store.before = staticmethod(fail_once)
    upload.copy(Target(URL, wait=waited.append), trace)
    assert stored(store) == contents(trace.path)
    assert len(waited) == len(failed) > 10


def test_failure_that_does_not_pass_is_reported_after_some_attempts(
    tmp_path: Path, store: type[ObjectStore]
) -> None:
    trace = trace_at(write_spooled(tmp_path / "web"))

    def fail(what: str, path: str) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    store.before = staticmethod(fail)
    waited: list[float] = []
    with pytest.raises(TargetError, match=r"^cannot use memory://bucket/traces/web: Connection reset"):
        upload.copy(Target(URL, wait=waited.append), trace)
    assert waited == [0.5, 1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("change", ["write", "remove"])
def test_trace_that_changes_meanwhile_is_left_for_later(
    tmp_path: Path, store: type[ObjectStore], change: str
) -> None:
    trace = trace_at(write_spooled(tmp_path / "web"))

    def alter(what: str, path: str) -> None:
        if what == "put" and path.endswith("000001.parquet"):
            if change == "write":
                (trace.path / "charge.parquet").write_bytes(b"c" * 3001)
            else:
                (trace.path / "oom.parquet").unlink(missing_ok=True)

    store.before = staticmethod(alter)
    with pytest.raises(upload.ChangedError):
        upload.copy(Target(URL), trace)
    assert "meta.json" not in stored(store)


def test_taken_away_trace_is_not_there_from_the_first_step_on(
    tmp_path: Path, store: type[ObjectStore]
) -> None:
    trace = trace_at(write_spooled(tmp_path / "web"))
    upload.copy(Target(URL), trace)
    removed = []
    store.before = staticmethod(lambda what, path: removed.append(path) if what == "remove" else None)
    upload.take_away(Target(URL), "web")
    assert removed[0].endswith("meta.json")
    assert stored(store) == {}
