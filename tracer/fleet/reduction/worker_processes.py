"""Worker processes, each at the other end of its own pipe.

When a process is killed, its end of its pipe is closed, and its caller sees that. The processes share
nothing. Those of `concurrent.futures` and of `multiprocessing.Pool` share queues: if a sender is killed in
the middle of a message, the receiver waits for the rest forever.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import Any, Final, Self

from tracer.errors import TracerError
from tracer.kernel.process.children import start_module

MOST_DEATHS: Final = 3
"""The number of processes that may die during one call, or when they start."""

_MODULE: Final = "tracer.fleet.reduction.worker"


class ProcessDiedError(Exception):
    """Each of `MOST_DEATHS` processes died during one call."""


@dataclass(frozen=True, slots=True, eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection


class WorkerProcesses:
    """At most `most` processes, which call `prepare` first and end with the block.

    A call whose process died is repeated alone, without any other call or process: it may need all the
    memory.
    """

    def __init__(self, most: int, prepare: Callable[[], object]) -> None:
        self._most, self._prepare = most, prepare
        self._places = threading.Semaphore(most)
        self._gate = threading.Lock()  # for callers that wait for places
        self._lock = threading.Lock()  # for the attributes below
        self._started: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._has_ended = False

    def call(self, function: Callable[..., Any], *arguments: Any) -> bytes:
        """Return the pickled result of a function. An argument of type `bytes` is such a result.

        Threads may call at the same time. Raises what the function raises, ProcessDiedError, and TracerError
        if processes cannot start.
        """
        for deaths in range(MOST_DEATHS):
            with self._turn(is_alone=deaths > 0):
                worker = self._idle_or_new()
                try:
                    worker.connection.send((function, arguments))
                    error, result = worker.connection.recv()
                except (EOFError, OSError):
                    self._end([worker])
                    continue
                with self._lock:
                    self._idle.append(worker)
            if error is not None:
                raise error
            returned: bytes = result
            return returned
        raise ProcessDiedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Kill and reap the processes; calls that have not returned raise ProcessDiedError."""
        with self._lock:
            self._has_ended = True
            for worker in self._started:
                worker.process.kill()
            for worker in self._started:
                worker.process.wait()  # the thread that reads from the process closes the connection
            idle = list(self._idle)
        self._end(idle)

    @contextmanager
    def _turn(self, *, is_alone: bool) -> Iterator[None]:
        places = self._most if is_alone else 1
        with self._gate:
            for _ in range(places):
                self._places.acquire()
        try:
            if is_alone:
                self._end(list(self._idle))
            yield
        finally:
            self._places.release(places)

    def _idle_or_new(self) -> _Worker:
        with self._lock:
            if self._idle and not self._has_ended:
                return self._idle.pop()
        for _ in range(MOST_DEATHS):
            worker = self._new()
            try:
                worker.connection.send(sys.path)
                worker.connection.send(self._prepare)
                worker.connection.recv()
            except (EOFError, OSError):
                self._end([worker])
            else:
                return worker
        raise TracerError("worker processes cannot start: free some memory")

    def _new(self) -> _Worker:
        with self._lock:
            if self._has_ended:
                raise ProcessDiedError
            ours, theirs = Pipe()
            # Ctrl-C reaches the process too, but while it imports modules it would print a traceback.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                process = start_module(
                    _MODULE, str(theirs.fileno()), stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                )
            except OSError as error:
                raise TracerError(f"worker processes cannot start: {error.strerror}") from error
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()  # now only the process has this end, so its death is an end of file
            worker = _Worker(process, ours)
            self._started.add(worker)
            return worker

    def _end(self, workers: list[_Worker]) -> None:
        with self._lock:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()
                worker.connection.close()
                self._started.discard(worker)
            self._idle = [worker for worker in self._idle if worker in self._started]
