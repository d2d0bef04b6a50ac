"""Calls that return, fail, or never return."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from threading import Event

import pytest

from tracer.kernel.process import bounded_call
from tracer.kernel.process.bounded_call import bounded, first_silent, make_ready


class Silence:
    """Calls that wait for `answer`. All others have a minute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer = Event()
        self._monkeypatch = monkeypatch

    def of(self, asked: str) -> None:
        """Make a call that is given up."""
        with self._monkeypatch.context() as patch, pytest.raises(TimeoutError):
            for name in ("_RETURNS_WITHIN_S", "_RETURNS_SOON_S"):
                patch.setattr(bounded_call, name, 0.01)
            bounded(asked, self.answer.wait)


@pytest.fixture(autouse=True)
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[Silence]:
    for name in ("_RETURNS_WITHIN_S", "_RETURNS_SOON_S"):
        monkeypatch.setattr(bounded_call, name, 60)
    for name, none in (("_idle", []), ("_silent", {}), ("_first_silent", [])):
        monkeypatch.setattr(bounded_call, name, none)
    made = Silence(monkeypatch)
    yield made
    made.answer.set()
    for worker in bounded_call._idle:
        worker.end()


def test_call_in_time_has_its_result_and_its_error() -> None:
    assert bounded("one", os.path.join, "a", "b") == "a/b"
    assert bounded("one", lambda: None) is None
    with pytest.raises(FileNotFoundError):
        bounded("one", os.lstat, "/nowhere/at/all")
    assert first_silent() is None


def test_calls_are_made_in_one_thread() -> None:
    threads = {bounded("one", threading.get_ident) for _ in range(5)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_thread_that_is_made_ready_makes_the_calls() -> None:
    make_ready()
    make_ready()
    (worker,) = bounded_call._idle
    assert bounded("one", threading.get_native_id) == worker._thread.native_id


def test_who_does_not_answer_is_not_asked_again_but_others_are(silence: Silence) -> None:
    silence.of("one")
    made: list[int] = []
    with pytest.raises(TimeoutError):
        bounded("one", made.append, 1)
    assert made == []
    assert bounded("other", os.path.join, "a", "b") == "a/b"
    silence.of("third")
    assert first_silent() == "one"


def test_who_answered_too_late_is_asked_again_after_a_minute(
    silence: Silence, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence.of("one")
    silence.answer.set()
    ((worker, end_s),) = bounded_call._silent.values()
    worker.join(60)
    with pytest.raises(TimeoutError):
        bounded("one", os.getpid)
    monkeypatch.setattr(time, "monotonic", lambda: end_s + 0.01)
    assert bounded("one", os.getpid) == os.getpid()
    assert bounded_call._silent == {}


def test_after_many_blocked_calls_no_other_is_made(silence: Silence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_call, "_MOST_SILENT", 3)
    for number in range(3):
        silence.of(f"process {number}")
    made: list[int] = []
    with pytest.raises(TimeoutError):
        bounded("other", made.append, 1)
    assert made == []


def test_call_that_computes_has_more_time_than_one_that_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_call, "_RETURNS_WITHIN_S", 0.01)

    def compute() -> int:
        end_s = time.thread_time() + 0.1
        while time.thread_time() < end_s:
            pass
        return 7

    assert bounded("one", compute) == 7


def test_answer_that_comes_while_its_thread_is_looked_at_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleeps_after_its_answer(worker: bounded_call._Worker) -> bool:
        while worker._answers.empty():
            time.sleep(0.001)
        return False

    monkeypatch.setattr(bounded_call, "_RETURNS_WITHIN_S", 0.001)
    monkeypatch.setattr(bounded_call._Worker, "_is_running", sleeps_after_its_answer)
    go_on = threading.Event()
    threading.Timer(0.05, go_on.set).start()
    assert bounded("one", go_on.wait)


def test_call_has_the_priority_of_its_caller() -> None:
    """Also if that has changed since the last call. A higher nice value is always permitted."""
    before, seen = os.getpriority(os.PRIO_PROCESS, 0), []
    higher = [min(19, before + 3), min(19, before + 6)]

    def caller() -> None:
        for nice in higher:
            os.setpriority(os.PRIO_PROCESS, 0, nice)  # of this thread
            seen.append(bounded("one", os.getpriority, os.PRIO_PROCESS, 0))

    thread = threading.Thread(target=caller)
    thread.start()
    thread.join()
    assert seen == higher


def test_call_without_a_thread_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="no thread"):
        bounded("one", os.getpid)


def test_child_process_makes_calls_of_its_own() -> None:
    """No thread survives a fork."""
    bounded("one", os.getpid)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if bounded("one", os.getpid) == os.getpid() else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
