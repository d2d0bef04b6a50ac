"""Calls that are given up if they do not return in time.

A file system whose server does not answer (FUSE, NFS) blocks whoever asks for a file there, for ever. A
process can be such a server, and can also hold the lock of its memory, without which its mappings cannot be
read.

The calls are made in a thread that is kept, and that has the priority of its caller: a recorder with
real-time scheduling must not wait for a thread of normal priority.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from tracer.kernel.process.priority import Priority

T = TypeVar("T")

_RETURNS_WITHIN_S: Final = 1.0
_MOST_SILENT: Final = 8


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

    def answer(self, call: Callable[[], Any]) -> tuple[Any, Exception | None] | None:
        """Return what a call returns and raises; None if that is not known in time."""
        if (priority := Priority.of_this_thread()) != self._priority:
            priority.give(self._thread.native_id or 0)
            self._priority = priority
        self._calls.put(call)
        with suppress(Empty):
            return self._answers.get(timeout=_RETURNS_WITHIN_S)
        return None

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
_silent: dict[str, _Worker] = {}
_first_silent: list[str] = []


def bounded(asked: str, call: Callable[..., T], *arguments: Any) -> T:
    """Call a function in another thread, and return its result.

    `asked` is the process or the path that may not answer. Raises what the function does, and OSError if no
    thread can be started, if the call takes longer than a second, or if an earlier call has not returned yet:
    one to the same, or eight to others.
    """
    for name in [name for name, worker in _silent.items() if not worker.is_alive()]:
        del _silent[name]
    if asked in _silent or len(_silent) >= _MOST_SILENT:
        raise TimeoutError("earlier calls have not returned")
    worker, answer = _take_worker(), None
    try:
        answer = worker.answer(partial(call, *arguments))
    finally:
        if answer is None:
            worker.end()
        else:
            _idle.append(worker)
    if answer is None:
        _silent[asked] = worker
        _first_silent[:] = _first_silent or [asked]
        raise TimeoutError(f"no answer within {_RETURNS_WITHIN_S:g} s")
    result, error = answer
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


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
