"""A real cluster of Dask: the answer of one process, also if a worker dies in the middle."""

from __future__ import annotations

import os
from pathlib import Path

import distributed
import pytest
from support.clusters.dask_cluster import cluster
from synthetic.fleets.deadly_piece import DeadlyPiece

from tracer.errors import TracerError
from tracer.fleet.reduction import cluster as on_a_cluster
from tracer.fleet.reduction import embedded
from tracer.fleet.reduction.work_tree import tree

from .conftest import NAMES, CopyTraces, document, work_of


def test_worker_that_is_killed_in_the_middle_changes_nothing(copy_traces: CopyTraces, tmp_path: Path) -> None:
    traces = copy_traces(*NAMES)
    calls = []
    with cluster(tmp_path, workers=2) as started:

        def kill_one(read: int, whole: int) -> None:
            calls.append((read, whole))
            if read == 1:
                started.workers[0].kill()

        found = on_a_cluster.compute(work_of(traces), started.address, kill_one)
        assert started.workers[0].wait(30) == -9
    assert calls[-1] == (len(NAMES), len(NAMES))
    assert document(found) == document(embedded.compute(work_of(traces), 1, lambda *_: None))


def test_piece_that_kills_workers_is_left_out(copy_traces: CopyTraces, tmp_path: Path) -> None:
    traces = copy_traces(*NAMES[:2])
    with cluster(tmp_path, workers=3, allowed_failures=0) as started:
        work = work_of(traces, DeadlyPiece("/deadly", os.getpid()))
        found = on_a_cluster.compute(work, started.address, lambda *_: None)
    (broken,) = found.broken
    assert (broken.path, "died" in broken.why) == ("/deadly", True)
    assert found.sources.num_rows == 2


def test_cluster_without_workers_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_a_cluster, "_PATIENCE_S", 1)
    with cluster(tmp_path, workers=0) as started, pytest.raises(TracerError, match="has no worker"):
        on_a_cluster.compute(tree([]), started.address, lambda *_: None)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1:1"])
def test_address_without_a_scheduler_is_an_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_a_cluster, "_PATIENCE_S", 1)
    with pytest.raises(TracerError, match=f"no scheduler of Dask answers at {address}"):
        on_a_cluster.compute(tree([]), address, lambda *_: None)


@pytest.mark.parametrize("address", ["nonsense://x", "127.0.0.1:x", ""])
def test_malformed_address_leaves_no_open_client(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its finalizer and the start of the next client can wait for each other."""
    monkeypatch.setattr(distributed, "Client", lambda *_, **__: pytest.fail("a client was made"))
    with pytest.raises(TracerError, match=f"no scheduler of Dask answers at {address}"):
        on_a_cluster.compute(tree([]), address, lambda *_: None)
