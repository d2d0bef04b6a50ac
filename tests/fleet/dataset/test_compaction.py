"""Compaction of small files: the rows stay the same, wherever it is interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.recorded import NAMES, TRACES
from support.storing.dataset_rows import rows_of
from support.storing.object_store import ObjectStore

from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TracerError
from tracer.fleet.dataset import compaction
from tracer.fleet.dataset.appending import Appender
from tracer.fleet.dataset.compaction import compact
from tracer.fleet.dataset.host_ranges import host_ranges, read
from tracer.fleet.dataset.listing import TRACE_IDS, committed_ids, files_of
from tracer.fleet.dataset.store import Store
from tracer.fleet.summary.summaries import SUMMARIES

FLEET = "memory://fleet"

pytestmark = pytest.mark.usefixtures("once", "few_tables")


class StoppedError(BaseException):
    """The process ended here: it is not tried again."""


def make(address: str, *, is_raw: bool = False, count: int = len(NAMES)) -> Store:
    store = Store(address)
    appender = Appender(store, is_raw=is_raw)
    for name in NAMES[:count]:
        appender.append(AnalysedTrace(TRACES / name))
    return store


def raw_rows(store: Store) -> list[str]:
    found = []
    for file in files_of(store, "raw/oom").held:
        with store.open(file.path) as content:
            found += [str(row) for row in compaction.only(pq.read_table(content), file).to_pylist()]
    return sorted(found)


def test_a_day_is_one_file_of_each_table_and_the_rows_are_the_same(tmp_path: Path) -> None:
    store = make(str(tmp_path / "fleet"), is_raw=True)
    before, raw = rows_of(str(tmp_path / "fleet")), raw_rows(store)
    assert compact(store) > 50
    assert rows_of(str(tmp_path / "fleet")) == before
    assert raw_rows(store) == raw
    # None of these traces has a SIGKILL of others.
    for table in (*(SUMMARIES.keys() - {"sigkills"}), "raw/charge", "raw/tasks"):
        paths = list((tmp_path / "fleet" / table).glob("**/*.parquet"))
        days = {path.parent.parent.name for path in paths}
        assert len(paths) == len(days) == 2
        for path in paths:
            rows = pq.read_table(path)
            named = json.loads(pq.read_schema(path).metadata[TRACE_IDS])
            assert {*named} >= {*rows["trace_id"].to_pylist()}
            assert {f"date={day}" for day in rows["date"].to_pylist()} == {path.parent.parent.name}
            assert path.stat().st_mode & 0o777 == 0o600
    assert compact(store) == 0


def test_what_is_appended_later_is_compacted_with_the_rest(memory: type[ObjectStore]) -> None:
    store = make(FLEET, count=6)
    assert compact(store) > 0
    make(FLEET)
    before = rows_of(FLEET)
    assert compact(store) > 0
    assert rows_of(FLEET) == before
    assert len(files_of(store, "sources").held) == 2
    assert Appender(store, is_raw=False).append(AnalysedTrace(TRACES / NAMES[0])).kills is None
    assert memory.objects()


def test_compaction_that_stops_anywhere_loses_and_doubles_nothing(memory: type[ObjectStore]) -> None:
    make(FLEET, count=2)
    compact(Store(FLEET))
    make(FLEET, count=4)
    stored, before = dict(memory.store), rows_of(FLEET)
    step, stopped = 0, True
    while stopped:
        memory.store.clear()
        memory.store.update(stored)
        step, left, stopped = step + 1, step + 1, False

        def stop(operation: str, _path: str) -> None:
            nonlocal left, stopped
            if operation in ("put", "remove"):
                left -= 1
                if left == 0:
                    stopped = True
                    raise StoppedError

        memory.before = staticmethod(stop)
        try:
            compact(Store(FLEET))
        except StoppedError:
            assert stopped
        memory.before = staticmethod(lambda operation, path: None)
        assert rows_of(FLEET) == before
        compact(Store(FLEET))
        assert rows_of(FLEET) == before
        assert all(len(files_of(Store(FLEET), table).held) <= 2 for table in SUMMARIES)
        assert not any(files_of(Store(FLEET), table).leftovers for table in SUMMARIES)
    assert step > 10


def test_two_compactions_at_the_same_time_double_nothing(memory: type[ObjectStore]) -> None:
    """Each writes other traces together: what both have is read from one of them."""
    store = make(FLEET, count=9)
    before, stored = rows_of(FLEET), dict(memory.store)
    written: dict[str, object] = {}
    for left_out in (0, 8):
        memory.store.clear()
        memory.store.update(stored)
        trace_id = sorted(committed_ids(store))[left_out]
        for path in [path for path in memory.store if trace_id in path]:
            del memory.store[path]
        compact(store)
        written |= {path: file for path, file in memory.store.items() if "/many-" in path}
    memory.store.clear()
    memory.store.update(stored | written)
    assert rows_of(FLEET) == before
    compact(store)
    assert rows_of(FLEET) == before


def test_traces_that_are_not_there_yet_stay_as_they_are(memory: type[ObjectStore]) -> None:
    store = make(FLEET, count=5)
    (of_one,) = [path for path in memory.store if "/sources/" in path][:1]
    trace_id = of_one.rpartition("/")[2].removesuffix(".parquet")
    held = memory.store.pop(of_one)
    compact(store)
    assert trace_id not in committed_ids(store)
    assert sum(trace_id in path for path in memory.store) >= 2
    memory.store[of_one] = held
    assert trace_id in committed_ids(store)


def test_files_of_other_versions_and_large_ones_stay_apart(
    memory: type[ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(FLEET, count=5)
    path = next(path for path in memory.store if "/lives/" in path)
    with store.open(path.removeprefix("/fleet/")) as content:
        older = pq.read_table(content).drop_columns(["image"])
    with memory().open(path, "wb") as file:
        pq.write_table(older, file)
    before = rows_of(FLEET)
    compact(store)
    assert rows_of(FLEET) == before
    assert path in memory.store
    monkeypatch.setattr(compaction, "LARGEST_BYTES", 1)
    make(FLEET, count=8)
    stored = {*memory.store}
    assert compact(store) == 0
    assert {*memory.store} == stored


def test_file_that_vanishes_after_opening_is_a_plain_error(memory: type[ObjectStore]) -> None:
    store = make(FLEET, count=4)
    (part,) = host_ranges(FLEET, ["kills"])
    compact(store)
    with pytest.raises(TracerError, match="open the dataset again"):
        read(part)
    path = next(path for path in memory.store if "/many-" in path)
    memory.store[path].seek(0)
    memory.store[path].truncate(10)
    with pytest.raises(TracerError, match="restore it"):
        host_ranges(FLEET, ["kills"])


def test_rows_of_some_hosts_are_read_from_few_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "SUMMARY_ROWS_TOGETHER", 2)
    fleet = str(tmp_path / "fleet")
    store = make(fleet)
    before = rows_of(fleet)
    compact(store)
    assert rows_of(fleet, part_bytes=1) == before
    (path,) = (tmp_path / "fleet/kills/date=2026-11-25").glob("*/many-*.parquet")
    file = pq.ParquetFile(path)
    assert file.num_row_groups > 2
    hosts = file.read(["host"])["host"].to_pylist()
    assert hosts == sorted(hosts)
