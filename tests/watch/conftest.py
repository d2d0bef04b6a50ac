from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.clusters.fake_api_server import FakeApiServer
from support.watcher import Watcher
from synthetic.unset import unset_row

from tracer.schema import TABLES
from tracer.trace.meta import begin
from tracer.trace.write.writer import TraceWriter
from tracer.watch.place import Place, name_of

MIB = 1 << 20
LIMIT = 100 * MIB
NOON_NS = 1_795_694_400_000_000_000  # 2026-11-26T12:00:00Z
START_NS = 1_764_000_000_000_000_000


def rows_of_a_kill(comm: str, cgroup: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of an anonymous growth to the limit of cgroup 7 that ends in a kill."""
    at = START_NS + 1_000_000_000
    return {
        "cgroups": [{"cgroup_id": 7, "path": cgroup, "container": "web", "created": START_NS}],
        "tasks": [{"tgid": 41, "start_ns": 5, "comm": comm, "first_seen": START_NS}],
        "charge": [
            {"time": START_NS + step * 10_000_000, "cgroup_id": 7, "tgid": 41, "category": "anon"}
            | {"bytes": MIB, "pages": MIB // 4096, "usage_bytes": step * MIB, "limit_bytes": LIMIT}
            for step in range(1, 100)
        ],
        "oom": [
            {"time": at, "ktime_ns": 777, "kill_id": 1, "constraint": "memcg", "limit_owner_cgroup_id": 7}
            | {"usage_bytes": LIMIT, "limit_bytes": LIMIT, "trigger_pid": 41, "trigger_tgid": 41}
            | {"trigger_comm": comm, "trigger_cgroup_id": 7, "pid": 41, "tgid": 41, "comm": comm}
            | {"cgroup_id": 7, "anon_rss_bytes": 98 * MIB}
        ],
    }


@pytest.fixture
def begin_trace() -> Callable[..., TraceWriter]:
    """Return `begin_trace(path)`: a writer with the flushed rows of a kill in its journals."""

    def write(
        path: Path,
        *,
        comm: str = "python3",
        cgroup: str = "/docker/4f2a",
        killed: bool = True,
        parts: int = 0,
    ) -> TraceWriter:
        meta = begin(
            command_line=["memcg-tracer", "watch"],
            cgroup_version=2,
            filters={"cgroups": [cgroup]},
            probes={"oom": "tp_btf/mark_victim"},
        )
        writer = TraceWriter(path, meta, force=False, part_rows=parts or 1_000_000)
        rows = rows_of_a_kill(comm, cgroup)
        if not killed:
            del rows["oom"]
        for table, listed in rows.items():
            complete = [unset_row(table) | row for row in listed]
            rows_each = 1 if parts else len(listed)  # a part ends where rows were appended
            for first in range(0, len(listed), rows_each):
                some = complete[first : first + rows_each]
                writer.append(table, pa.Table.from_pylist(some, schema=TABLES[table]))
        writer.flush()
        return writer

    return write


@pytest.fixture
def warnings() -> list[str]:
    """Return the lines that `open_place` was warned with."""
    return []


@pytest.fixture
def open_place(tmp_path: Path, warnings: list[str]) -> Callable[..., Place]:
    def create(
        path: Path = tmp_path / "traces", *, keep_traces: int | None = None, max_disk_bytes: int | None = None
    ) -> Place:
        return Place(path, keep_traces=keep_traces, max_disk_bytes=max_disk_bytes, warn=warnings.append)

    return create


@pytest.fixture
def publish(begin_trace: Callable[..., TraceWriter]) -> Callable[[Place, int], Path]:
    """Return `publish(place, seconds)`: a complete trace whose name says noon and some seconds."""

    def one(place: Place, seconds: int) -> Path:
        path = place.begin(name_of(NOON_NS + seconds * 1_000_000_000, "kill", "web"))
        begin_trace(path).close("quiet")
        return place.publish(path)

    return one


@pytest.fixture
def start_watcher(tmp_path: Path) -> Iterator[Callable[..., Watcher]]:
    """Return `start_watcher(*options, folder=None, **how)`, which returns once all probes are attached.

    `how` is as for Watcher. Each has a folder of its own, unless one is given. Those that still run at the
    end of the test are killed.
    """
    folders = (tmp_path / f"watch-{number}" for number in itertools.count())
    with ExitStack() as started:

        def start(*options: str, folder: Path | None = None, **how: Any) -> Watcher:
            folder = folder or next(folders)
            folder.mkdir(exist_ok=True)
            return started.enter_context(Watcher(folder, *options, **how)).wait_until_ready()

        yield start


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeApiServer]:
    """Return an API server of Kubernetes that runs, with an account for it."""
    try:
        with FakeApiServer(tmp_path) as started:
            yield started
    except FileNotFoundError:
        pytest.skip("there is no openssl here")
