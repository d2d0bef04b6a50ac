"""Two pushers at the same time, in any order of their operations, and a reader that looks after each."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.storing.object_store import ObjectStore
from support.storing.spooled_trace import contents, write_spooled

from tracer.fleet.pushing import upload
from tracer.fleet.pushing.finished import FinishedTrace, examine
from tracer.fleet.pushing.target import Target

Operation = Callable[[str, str], None]


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


class InMemory:
    """The object store as a target, and how a reader sees it."""

    url = "memory://bucket/traces"

    def __init__(self, kind: type[ObjectStore]) -> None:
        self._kind = kind
        kind.store.clear()

    @contextmanager
    def hooked(self, before: Operation) -> Iterator[None]:
        """Have `before` called at the beginning of each operation."""
        self._kind.before = staticmethod(before)
        try:
            yield
        finally:
            self._kind.before = staticmethod(lambda what, path: None)

    def look(self, place: str) -> dict[str, bytes]:
        """Return the files at a place."""
        prefix = f"/bucket/traces/{place}/"
        objects = self._kind.objects().items()
        return {path.removeprefix(prefix): content for path, content in objects if path.startswith(prefix)}


class OnDisk:
    """A directory as a target, where files are renamed into place."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.url = f"file://{root}"

    @contextmanager
    def hooked(self, before: Operation) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("find", "open", "makedirs", "mv", "rm_file"):
                patch.setattr(LocalFileSystem, name, self._hooked(name, before))
            yield

    @staticmethod
    def _hooked(name: str, before: Operation) -> Callable[..., Any]:
        original = getattr(LocalFileSystem, name)

        def operation(system: Any, path: str, *arguments: Any, **options: Any) -> Any:
            before(name, path)
            return original(system, path, *arguments, **options)

        return operation

    def look(self, place: str) -> dict[str, bytes]:
        return contents(self._root / place)


def push_two(target: InMemory | OnDisk, traces: dict[bool, FinishedTrace], order: list[bool]) -> None:
    """Push two traces at the same time; a reader looks after each operation."""
    turns = Turns(order)
    names = threading.local()
    expected = {trace.meta: contents(trace.path) for trace in traces.values()}
    places = {"web", *(f"web-{trace.identity}" for trace in traces.values())}
    errors: list[BaseException] = []

    def before(what: str, path: str) -> None:
        turns.take(names.who)
        for place in places:
            found = target.look(place)
            if "meta.json" in found:
                whole = expected[found["meta.json"]]
                assert {file: found.get(file) for file in whole} == whole
                assert {file for file in found if file.endswith(".parquet")} <= set(whole)

    def push(who: bool) -> None:
        names.who = who
        try:
            upload.copy(Target(target.url, wait=lambda _: None), traces[who])
        except BaseException as error:
            errors.append(error)
        finally:
            turns.end(who)

    with target.hooked(before):
        threads = [threading.Thread(target=push, args=(who,)) for who in traces]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


ORDERS = st.lists(st.booleans(), max_size=90)
EXAMPLES = settings(max_examples=75, suppress_health_check=[HealthCheck.function_scoped_fixture])
KINDS = pytest.mark.parametrize("kind", ["object store", "directory"])


@pytest.fixture
def new_target(tmp_path: Path, store: type[ObjectStore]) -> Callable[[str], InMemory | OnDisk]:
    """Return `new_target(kind)`, which returns an empty target."""
    roots = (tmp_path / f"at-{number}" for number in itertools.count())
    return lambda kind: InMemory(store) if kind == "object store" else OnDisk(next(roots))


def trace_at(path: Path, **options: Any) -> FinishedTrace:
    """Return the trace that `write_spooled` writes, unless it is there."""
    found = examine(path if path.exists() else write_spooled(path, **options), ("web",))
    assert isinstance(found, FinishedTrace)
    return found


@KINDS
@given(order=ORDERS)
@EXAMPLES
def test_two_pushers_of_different_traces_of_one_name_store_both(
    tmp_path: Path, new_target: Callable[[str], InMemory | OnDisk], kind: str, order: list[bool]
) -> None:
    target = new_target(kind)
    traces = {
        False: trace_at(tmp_path / "a", start_ns=1, files={"charge.parquet": b"one"}),
        True: trace_at(tmp_path / "b", start_ns=2, files={"charge.parquet": b"two", "oom.parquet": b"2"}),
    }
    push_two(target, traces, order)
    for trace in traces.values():
        place = upload.place_of(Target(target.url), trace)
        assert place is not None
        assert target.look(place) == contents(trace.path)


@KINDS
@given(order=ORDERS)
@EXAMPLES
def test_two_pushers_of_one_trace_store_it_once(
    tmp_path: Path, new_target: Callable[[str], InMemory | OnDisk], kind: str, order: list[bool]
) -> None:
    target = new_target(kind)
    trace = trace_at(tmp_path / "a")
    push_two(target, {False: trace, True: trace}, order)
    assert target.look("web") == contents(trace.path)
    assert target.look(f"web-{trace.identity}") == {}
