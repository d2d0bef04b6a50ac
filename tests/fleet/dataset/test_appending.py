"""A trace in a dataset is there or not, whatever happens while it is appended."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.recorded import NAMES, TRACES
from support.storing.dataset_rows import rows_of, rows_of_summaries
from support.storing.object_store import ObjectStore

from tracer.analysis import named_tables
from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TraceError, TracerError
from tracer.fleet.dataset.appending import Appender
from tracer.fleet.dataset.listing import committed_ids, folder_of, partition_of
from tracer.fleet.dataset.store import Store
from tracer.fleet.summary.origin import Origin
from tracer.fleet.summary.summarize import summarize
from tracer.kernel.process.children import forked
from tracer.schema import TABLES

TOP = Path(__file__).parents[3]


class StoppedError(BaseException):
    """The process ended here: it is not tried again."""


def appended(address: str, traces: Sequence[AnalysedTrace], *, is_raw: bool = False) -> list[int | None]:
    appender = Appender(Store(address), is_raw=is_raw)
    return [appender.append(trace).kills for trace in traces]


@pytest.mark.usefixtures("once")
def test_rows_are_those_of_the_summaries_at_any_place(
    tmp_path: Path, memory: type[ObjectStore], examples: list[AnalysedTrace]
) -> None:
    expected = rows_of_summaries(map(summarize, examples))
    for address in (str(tmp_path / "a"), f"file://{tmp_path}/b", "memory://fleet"):
        assert appended(address, examples) == [1, 3, 0]
        assert rows_of(address) == expected


@pytest.mark.usefixtures("once")
def test_appending_again_changes_nothing(tmp_path: Path, examples: list[AnalysedTrace]) -> None:
    address = str(tmp_path / "fleet")
    appended(address, examples)
    before = files(tmp_path)
    assert appended(address, examples) == [None] * 3
    assert files(tmp_path) == before


@pytest.mark.usefixtures("once")
def test_files_lie_by_table_day_and_host_and_are_private(
    tmp_path: Path, examples: list[AnalysedTrace]
) -> None:
    appended(str(tmp_path / "fleet"), examples[:1], is_raw=True)
    origin, day = Origin.from_trace(examples[0]), "2026-11-25"
    for table in ("sources", "kills", "raw/charge"):
        path = f"{table}/date={day}/host={origin.host}/{origin.trace_id}.parquet"
        assert pq.read_table(tmp_path / "fleet" / path)["trace_id"].unique().to_pylist() == [origin.trace_id]
    for entry in tmp_path.glob("fleet/**/*"):
        assert stat.S_IMODE(entry.stat().st_mode) == (0o700 if entry.is_dir() else 0o600), entry


@pytest.mark.usefixtures("once")
def test_raw_tables_have_all_rows_with_names_and_origin(
    tmp_path: Path, examples: list[AnalysedTrace]
) -> None:
    trace = examples[0]
    appended(str(tmp_path / "fleet"), [trace])
    appended(str(tmp_path / "fleet"), [trace], is_raw=True)
    assert appended(str(tmp_path / "fleet"), [trace], is_raw=True) == [None]
    first_day = row_of_source(trace)
    for table in TABLES:
        stored = [pq.read_table(path) for path in tmp_path.glob(f"fleet/raw/{table}/**/*.parquet")]
        expected = [row for rows in named_tables.batches(trace, table) for row in rows.to_pylist()]
        found = [row for rows in stored for row in rows.to_pylist()]
        assert {row.pop("host") for row in found} <= {trace.meta["host_name"]}
        for row in found:
            assert row.pop("date") == row.get("time", first_day).date()
            del row["boot_id"], row["trace"], row["trace_id"]
        assert sorted(map(str, found)) == sorted(map(str, expected))
    (meta,) = tmp_path.glob("fleet/raw/meta/**/*.json")
    assert json.loads(meta.read_text()) == trace.meta


def row_of_source(trace: AnalysedTrace) -> Any:
    return summarize(trace).tables["sources"]["time"][0].as_py()


@pytest.mark.usefixtures("once", "few_tables")
@pytest.mark.parametrize("is_raw", [False, True])
def test_append_that_stops_anywhere_is_all_or_nothing_and_can_be_repeated(
    memory: type[ObjectStore], examples: list[AnalysedTrace], *, is_raw: bool
) -> None:
    first, second = examples[:2]
    appended("memory://whole", [first, second], is_raw=is_raw)
    whole = {path.removeprefix("/whole"): content for path, content in memory.objects().items()}
    alone, both = rows_of_summaries([summarize(first)]), rows_of("memory://whole")
    step = stopped = 0
    while not step or stopped:
        memory.store.clear()
        appended("memory://fleet", [first], is_raw=is_raw)
        step, stopped = step + 1, 0
        left = step

        def stop(operation: str, _path: str) -> None:
            nonlocal left, stopped
            left -= operation == "put"
            if not left and operation == "put":
                stopped = 1
                raise StoppedError

        memory.before = staticmethod(stop)
        try:
            appended("memory://fleet", [second], is_raw=is_raw)
        except StoppedError:
            assert stopped
        memory.before = staticmethod(lambda operation, path: None)
        assert rows_of("memory://fleet") == (alone if stopped else both)
        appended("memory://fleet", [second], is_raw=is_raw)
        assert rows_of("memory://fleet") == both
        now = {path.removeprefix("/fleet"): content for path, content in memory.objects().items()}
        assert now == whole
    assert step > (8 if is_raw else 4)


@pytest.mark.timeout(120)
def test_killed_appender_leaves_whole_traces_and_the_next_one_completes_them(tmp_path: Path) -> None:
    paths = [TRACES / name for name in NAMES[:3]]
    summaries = [summarize(AnalysedTrace(path)) for path in paths]
    fleet = str(tmp_path / "fleet")

    def append_all(told: int) -> None:
        appender = Appender(Store(fleet), is_raw=True)
        for path in paths:
            appender.append(AnalysedTrace(path))
            os.write(told, b"x")

    for killed_after in (1, len(paths)):
        reader, writer = os.pipe()
        child = forked(partial(append_all, writer))
        os.close(writer)
        for _ in range(killed_after):
            assert os.read(reader, 1)
        if killed_after < len(paths):
            time.sleep(0.05 * killed_after)  # anywhere in the next trace
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        there = committed_ids(Store(fleet))
        assert len(there) >= killed_after
        assert rows_of(fleet) == rows_of_summaries(one for one in summaries if one.origin.trace_id in there)
    assert len(there) == len(paths)


@pytest.mark.usefixtures("once", "few_tables")
@pytest.mark.parametrize(
    "host", ["../../etc", "a/b", "..", "", "*?[x]", "date=1", "\x1b[31m\n", "é" * 120, "_many", "%2F", "a b"]
)
def test_hostile_host_is_one_folder_of_its_own(
    tmp_path: Path, memory: type[ObjectStore], examples: list[AnalysedTrace], host: str
) -> None:
    trace = examples[0]
    trace.meta["host_name"] = host
    trace_id = Origin.from_trace(trace).trace_id
    for address in (str(tmp_path / "fleet"), "memory://fleet"):
        appender = Appender(Store(address), is_raw=True)
        path = trace.path
        appender.append(trace)
        assert trace.path == path
    assert [path.name for path in tmp_path.iterdir()] == ["fleet"]
    for path in (tmp_path / "fleet").glob("raw/charge/**/*.parquet"):
        part = partition_of(path.relative_to(tmp_path / "fleet/raw/charge").as_posix())
        assert part is not None and part.trace_id == trace_id
        assert set(pq.read_table(path)["host"].to_pylist()) == {host}
    assert all(path.startswith("/fleet/") for path in memory.objects())


def test_folders_of_different_hosts_differ() -> None:
    day = row_of_source(AnalysedTrace(TOP / "traces/fork")).date()
    hosts = ["a", "A", "a/b", "a%2Fb", "é" * 60, "é" * 61, "x" * 151, "x" * 152, ""]
    assert len({folder_of("kills", day, host) for host in hosts}) == len(hosts)


def test_place_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(TracerError, match="other files"):
        Appender(Store(str(tmp_path)), is_raw=False)
    (tmp_path / "new").mkdir()
    marker = tmp_path / "new/dataset.json"
    marker.write_text('{"format": "memcg-tracer dataset", "version": 2}')
    with pytest.raises(TracerError, match="newer version"):
        Appender(Store(str(tmp_path / "new")), is_raw=False)
    marker.write_text('{"format": "another"}')
    with pytest.raises(TracerError, match="not that of a dataset"):
        Appender(Store(str(tmp_path / "new")), is_raw=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "new"]


def test_trace_that_is_being_recorded_is_refused(tmp_path: Path, examples: list[AnalysedTrace]) -> None:
    trace = examples[0]
    trace.path = tmp_path / "going-on"
    trace.path.mkdir()
    trace.meta["ended"] = None
    lock = os.open(trace.path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(TraceError, match="recorder"):
            Appender(Store(str(tmp_path / "fleet")), is_raw=False).append(trace)
    finally:
        os.close(lock)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("**/*.*")}
