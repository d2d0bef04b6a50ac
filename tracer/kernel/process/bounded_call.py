"""Calls that are given up if they do not return in time.

A file system whose server does not answer (FUSE, NFS) blocks whoever asks for a file there, for ever. A
process can be such a server, and can also hold the lock of its memory, without which its mappings cannot be
read.

The calls are made in a thread that is kept, and that has the priority of its caller: a recorder with
real-time scheduling must not wait for a thread of normal priority.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from tracer.kernel.process.priority import Priority

T = TypeVar("T")

_RETURNS_WITHIN_S: Final = 1.0
_RETURNS_SOON_S: Final = 0.1
"""The bound while another process or path does not answer: many may not, and their caller has other work."""
_RUNS_WITHIN_S: Final = 10.0
"""The bound for a call that computes, or waits for a CPU: nobody keeps it from its answer."""
_MOST_SILENT: Final = 64
_SILENT_FOR_S: Final = 60.0
"""Who has answered too late is not asked again for so long: each time would cost as much."""


class _Worker:
    """A thread that makes one call after the other. One that is blocked ends with this process."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
        self._priority: Priority | None = None
        self._thread = threading.Thread(target=self._work, name="bounded-calls", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OSError("no thread can be started") from error  # pids.max
        self.is_alive = self._thread.is_alive
        self.join = self._thread.join

    def answer(self, call: Callable[[], Any], within_s: float) -> tuple[Any, Exception | None] | None:
        """Return what a call returns and raises; None if that is not known in time."""
        if (priority := Priority.of_this_thread()) != self._priority:
            priority.give(self._thread.native_id or 0)
            self._priority = priority
        self._calls.put(call)
        last_s = time.monotonic() + _RUNS_WITHIN_S
        while True:
            with suppress(Empty):
                return self._answers.get(timeout=within_s)
            if time.monotonic() >= last_s or not self._is_running():
                with suppress(Empty):  # it sleeps again if it has answered since
                    return self._answers.get_nowait()
                return None

    def _is_running(self) -> bool:
        """Return whether the thread is on a CPU or waits for one (proc_pid_stat(5))."""
        with suppress(OSError):
            status = Path(f"/proc/self/task/{self._thread.native_id}/stat").read_bytes()
            return status.rpartition(b") ")[2].startswith(b"R")
        return False

    def end(self) -> None:
        """End the thread once its call has returned."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                self._answers.put((call(), None))
            except Exception as error:
                self._answers.put((None, error))
            del call  # not kept until the next


_idle: list[_Worker] = []
_silent: dict[str, tuple[_Worker, float]] = {}
"""Who has not answered in time, by the worker that asked, and the end of `_SILENT_FOR_S`."""
_first_silent: list[str] = []


def bounded(asked: str, call: Callable[..., T], *arguments: Any) -> T:
    """Call a function in another thread, and return its result.

    `asked` is the process or the path that may not answer. Raises what the function does, and OSError if no
    thread can be started, if the call sleeps for longer than a second, or a tenth of one while others do not
    answer, if `asked` has not answered in time within a minute, or if 64 others have not.
    """
    now_s = time.monotonic()
    for name in [one for one, (worker, end_s) in _silent.items() if end_s < now_s and not worker.is_alive()]:
        del _silent[name]
    if asked in _silent or len(_silent) >= _MOST_SILENT:
        raise TimeoutError("earlier calls have not returned in time")
    within_s = _RETURNS_SOON_S if _silent else _RETURNS_WITHIN_S
    worker, answer = _take_worker(), None
    try:
        answer = worker.answer(partial(call, *arguments), within_s)
    finally:
        if answer is None:
            worker.end()
        else:
            _idle.append(worker)
    if answer is None:
        _silent[asked] = worker, time.monotonic() + _SILENT_FOR_S
        _first_silent[:] = _first_silent or [asked]
        raise TimeoutError(f"no answer within {within_s:g} s")
    result, error = answer
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def make_ready() -> None:
    """Start the thread for the calls, if there is none and one can be started.

    A thread starts with normal priority, and whoever starts it waits for it: 300 ms under a load of 30.
    """
    with suppress(OSError):
        _idle.append(_take_worker())


def first_silent() -> str | None:
    """Return the process or path that was the first not to answer in time, since this process began."""
    return _first_silent[0] if _first_silent else None


def _take_worker() -> _Worker:
    with suppress(IndexError):
        while True:
            worker = _idle.pop()
            if worker.is_alive():  # no thread survives a fork
                return worker
    return _Worker()
