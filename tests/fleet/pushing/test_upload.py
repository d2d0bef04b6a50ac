"""One trace to its place: whole or not there, whatever fails, and whoever else is at work."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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


def in_child(act: Callable[[], object]) -> int:
    """Run a function in a forked child; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def push_and_die(url: str, trace: FinishedTrace, at: int) -> None:
    """Copy a trace, and die by SIGKILL at the operation of this number; of a write, half is done."""
    from fsspec.implementations import local

    count = 0

    def counted(kind: Any, name: str) -> None:
        original = getattr(kind, name)

        def operation(self: Any, *args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                if name == "write":
                    original(self, args[0][: len(args[0]) // 2])
                    self.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *args, **options)

        setattr(kind, name, operation)

    for name in ("find", "open", "makedirs", "mv", "rm_file"):
        counted(local.LocalFileSystem, name)
    counted(local.LocalFileOpener, "write")
    upload.copy(Target(url), trace)


def test_copy_that_is_killed_at_any_operation_is_not_there_and_goes_on(tmp_path: Path) -> None:
    trace = trace_at(write_spooled(tmp_path / "web"))
    expected = contents(trace.path)
    at = resumed = 0
    while True:
        at += 1
        root = tmp_path / f"at{at}"
        status = in_child(lambda root=root, at=at: push_and_die(f"file://{root}", trace, at))  # type: ignore[misc]
        place = root / "web"
        if (place / "meta.json").exists():
            found = contents(place)
            assert expected.items() <= found.items()
        copied = upload.copy(Target(f"file://{root}"), trace)
        assert contents(place) == expected
        resumed += 0 < copied.sent_files < 5
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert at > 30
    assert resumed > 10


class Turns:
    """Has threads do their operations one at a time, in a given order: deterministic, whatever the
    scheduler does."""

    def __init__(self, order: list[bool]) -> None:
        self._order = iter(order)
        self._condition = threading.Condition()
        self._waiting: set[bool] = set()
        self._running = {False, True}
        self._turn: bool | None = None

    def take(self, who: bool) -> None:
        with self._condition:
            self._waiting.add(who)
            self._give()
            while self._turn is not who:
                self._condition.wait()
            self._turn = None
            self._waiting.discard(who)

    def end(self, who: bool) -> None:
        with self._condition:
            self._running.discard(who)
            self._give()

    def _give(self) -> None:
        """Give the turn when all that run are waiting for it."""
        if self._turn is None and self._waiting and self._waiting == self._running:
            wanted = next(self._order, min(self._waiting))
            self._turn = wanted if wanted in self._waiting else min(self._waiting)
            self._condition.notify_all()


def push_two(store: type[ObjectStore], traces: dict[bool, FinishedTrace], order: list[bool]) -> None:
    """Push two traces at the same time; a reader looks after each operation."""
    turns = Turns(order)
    names = threading.local()
    expected = [contents(trace.path) for trace in traces.values()]
    places = {"web", *(f"web-{trace.identity}" for trace in traces.values())}
    errors: list[BaseException] = []

    def before(what: str, path: str) -> None:
        turns.take(names.who)
        for place in places:
            found = stored(store, place)
            if "meta.json" in found:
                assert any(one.items() <= found.items() for one in expected), place
                assert not {file for file in found if file.endswith(".parquet")} - set(
                    next(one for one in expected if one["meta.json"] == found["meta.json"])
                )

    def push(who: bool) -> None:
        names.who = who
        try:
            upload.copy(Target(URL, wait=never_wait), traces[who])
        except BaseException as error:
            errors.append(error)
        finally:
            turns.end(who)

    store.before = staticmethod(before)
    threads = [threading.Thread(target=push, args=(who,)) for who in traces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.before = staticmethod(lambda what, path: None)
    assert errors == []


ORDERS = st.lists(st.booleans(), max_size=60)


@given(order=ORDERS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_pushers_of_different_traces_of_one_name_store_both(
    tmp_path: Path, store: type[ObjectStore], order: list[bool]
) -> None:
    store.store.clear()
    traces = {}
    for who, files in (
        (False, {"charge.parquet": b"one"}),
        (True, {"charge.parquet": b"two", "oom.parquet": b"2"}),
    ):
        path = tmp_path / str(who) / "web"
        traces[who] = trace_at(path if path.exists() else write_spooled(path, start_ns=who + 1, files=files))
    push_two(store, traces, order)
    for trace in traces.values():
        place = upload.place_of(Target(URL), trace)
        assert place is not None
        assert stored(store, place) == contents(trace.path)


@given(order=ORDERS)
@settings(max_examples=75, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_pushers_of_one_trace_store_it_once(
    tmp_path: Path, store: type[ObjectStore], order: list[bool]
) -> None:
    store.store.clear()
    path = tmp_path / "web"
    trace = trace_at(path if path.exists() else write_spooled(path))
    push_two(store, {False: trace, True: trace}, order)
    assert stored(store) == contents(path)
    assert {path.split("/")[3] for path in store.objects()} == {"web"}
