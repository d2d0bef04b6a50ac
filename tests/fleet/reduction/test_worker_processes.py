"""Processes behind pipes: results, errors, and deaths at each end of a call."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from support.parallel.own_children import OwnChildren
from synthetic.fleets import cut_short, waiting_calls

from tracer.errors import TracerError
from tracer.fleet.reduction.worker_processes import ProcessDiedError, WorkerProcesses


@pytest.fixture
def two() -> Iterator[WorkerProcesses]:
    children = OwnChildren()
    with WorkerProcesses(2, os.getpid) as processes:
        yield processes
    assert children.new() == []


def test_argument_that_is_a_result_reaches_the_function_unpickled(two: WorkerProcesses) -> None:
    number = two.call(int, "17")
    assert pickle.loads(number) == 17
    assert pickle.loads(two.call(pow, number, 2)) == 289


def test_idle_process_computes_the_next_call(two: WorkerProcesses) -> None:
    assert pickle.loads(two.call(os.getpid)) == pickle.loads(two.call(os.getpid)) != os.getpid()


def test_error_is_raised_with_the_place_where_it_happened(two: WorkerProcesses) -> None:
    with pytest.raises(ValueError, match="invalid literal") as raised:
        two.call(int, "seventeen")
    assert "in _serve" in "".join(raised.value.__notes__)
    assert pickle.loads(two.call(int, "17")) == 17


def test_result_of_a_killed_process_is_computed_again(two: WorkerProcesses, tmp_path: Path) -> None:
    two.call(cut_short.die_at_first, tmp_path / "at once")
    two.call(cut_short.die_in_next_result, tmp_path / "result")
    two.call(cut_short.die_in_next_call, tmp_path / "call")
    assert pickle.loads(two.call(pow, 17, 2)) == 289
    assert len(list(tmp_path.iterdir())) == 3


def test_idle_process_that_is_killed_costs_nothing(two: WorkerProcesses) -> None:
    os.kill(pickle.loads(two.call(os.getpid)), signal.SIGKILL)
    assert pickle.loads(two.call(pow, 17, 2)) == 289


def test_call_that_kills_each_process_is_given_up(two: WorkerProcesses) -> None:
    with pytest.raises(ProcessDiedError):
        two.call(os.abort)
    assert pickle.loads(two.call(pow, 17, 2)) == 289


def test_second_try_waits_until_other_calls_have_returned(two: WorkerProcesses, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        watching = threads.submit(two.call, waiting_calls.sees_a_second_try, tmp_path, 2)
        threads.submit(two.call, waiting_calls.die_then_try_again, tmp_path).result()
    assert (tmp_path / "second").exists()
    assert not pickle.loads(watching.result())


def test_process_that_is_killed_when_it_starts_is_replaced(tmp_path: Path) -> None:
    once = tmp_path / "once"
    with WorkerProcesses(1, partial(cut_short.die_at_first, once)) as processes:
        assert pickle.loads(processes.call(pow, 17, 2)) == 289
    assert once.exists()


def test_processes_that_cannot_start_are_an_error() -> None:
    children = OwnChildren()
    with WorkerProcesses(1, os.abort) as processes, pytest.raises(TracerError, match="cannot start"):
        processes.call(pow, 17, 2)
    assert children.new() == []


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere"])
def test_interpreter_that_does_not_run_is_an_error(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", program)
    with WorkerProcesses(1, os.getpid) as processes, pytest.raises(TracerError, match="cannot start"):
        processes.call(pow, 17, 2)


def test_call_ends_with_the_block(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        with WorkerProcesses(1, os.getpid) as processes:
            waiting = threads.submit(processes.call, waiting_calls.sees_a_second_try, tmp_path, 3600)
            while not (tmp_path / "is-watching").exists():
                time.sleep(0.01)
        with pytest.raises(ProcessDiedError):
            waiting.result()
