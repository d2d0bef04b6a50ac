"""Processes of this machine: the same answer as in one process, also if some of them die."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.parallel.own_children import OwnChildren
from support.recorded import copy_examples
from synthetic.fleets import cut_short
from synthetic.fleets.cut_short import CutShortPiece
from synthetic.fleets.deadly_piece import DeadlyPiece

from tracer.errors import TracerError
from tracer.fleet.reduction import embedded
from tracer.fleet.reduction.inputs import find
from tracer.fleet.reduction.piece_reader import TracePiece
from tracer.fleet.reduction.work_tree import tree

from .conftest import NAMES, document, work_of


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_examples(tmp_path_factory.mktemp("embedded") / "traces", NAMES)


@pytest.fixture(scope="module")
def answer_of_one(traces: Path) -> dict[str, Any]:
    """Return the answer of one process."""
    return document(embedded.compute(work_of(traces), 1, lambda *_: None))


def test_processes_give_the_answer_of_one_process(traces: Path, answer_of_one: dict[str, Any]) -> None:
    children = OwnChildren()
    calls: list[tuple[int, int]] = []
    assert answer_of_one["traces"] == len(NAMES)
    together_ = embedded.compute(work_of(traces), 2, lambda *numbers: calls.append(numbers))
    assert document(together_) == answer_of_one
    assert calls == [(read, len(NAMES)) for read in range(1, len(NAMES) + 1)]
    assert children.new() == []


def test_quota_of_a_container_bounds_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod sees all CPUs of its node, and its limit of memory is for fewer processes."""
    monkeypatch.setattr("dask.system._try_extract_cgroup_cpu_quota", lambda: (50_000, 100_000))
    assert embedded.cpus() == 1
    monkeypatch.setattr("dask.system._try_extract_cgroup_cpu_quota", lambda: (None, None))
    assert embedded.cpus() == len(os.sched_getaffinity(0))


@pytest.mark.usefixtures("forked_workers")
def test_process_that_is_killed_in_the_middle_changes_nothing(
    traces: Path, answer_of_one: dict[str, Any]
) -> None:
    children = OwnChildren()
    killed: list[int] = []

    def kill_one(_read: int, _all: int) -> None:
        if not killed:
            killed.append(children.new()[0])
            os.kill(killed[0], signal.SIGKILL)

    found = embedded.compute(work_of(traces), 2, kill_one)
    assert len(killed) == 1
    assert document(found) == answer_of_one


@pytest.mark.usefixtures("forked_workers")
def test_process_that_is_killed_in_the_middle_of_a_message_changes_nothing(
    traces: Path, answer_of_one: dict[str, Any], tmp_path: Path
) -> None:
    """Of a result; test_worker_processes.py has the other moments."""
    end = cut_short.die_in_next_result
    places = find([str(traces)]).traces
    pieces: list[Any] = [CutShortPiece(TracePiece(place), end, tmp_path / "once") for place in places]
    found = embedded.compute(tree([[piece] for piece in pieces]), 2, lambda *_: None)
    assert (tmp_path / "once").exists()
    assert document(found) == answer_of_one


@pytest.mark.usefixtures("forked_workers")
def test_piece_that_kills_its_process_each_time_is_left_out(traces: Path) -> None:
    trace = traces / NAMES[0]
    found = embedded.compute(work_of(trace, DeadlyPiece("/deadly", os.getpid())), 2, lambda *_: None)
    (broken,) = found.broken
    assert (broken.path, "died 3 times" in broken.why) == ("/deadly", True)
    expected = embedded.compute(work_of(trace), 1, lambda *_: None)
    assert document(found) | {"broken": []} == document(expected)


@pytest.mark.usefixtures("forked_workers")
def test_processes_end_when_the_work_is_interrupted(traces: Path) -> None:
    children = OwnChildren()

    def interrupt(_read: int, _all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedded.compute(work_of(traces), 2, interrupt)
    assert children.new() == []


def test_processes_that_cannot_start_are_an_error(traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "prepare", os.abort)
    with pytest.raises(TracerError, match="cannot start"):
        embedded.compute(work_of(traces), 2, lambda *_: None)
