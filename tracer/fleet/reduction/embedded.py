"""The graph on processes of this machine, by Dask's scheduler for them.

It talks to its processes through pipes. A local cluster of `distributed` would listen on a port of the
loopback device instead, and run what any user of the machine sends there.

If a process dies, Dask gives up. Then what is finished is kept, each piece that was being read is read once
more, alone, and the rest goes on in new processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Final

from tracer.errors import TracerError
from tracer.fleet.reduction import partial_state
from tracer.fleet.reduction.partial_state import Broken, Partial
from tracer.fleet.reduction.work_tree import WorkTree
from tracer.kernel.process.forked_child import end_with_parent

Progress = Callable[[int, int], None]
"""Called with the number of pieces that have been read, and the number of all."""

_MOST_DEATHS: Final = 3
_DIED: Final = f"the process that read it died {_MOST_DEATHS} times: it may need more memory than there is"


def compute(work: WorkTree, workers: int, progress: Progress) -> Partial:
    """Return the state of the whole with so many processes; with one piece, or one worker, in this process.

    Raises TracerError if processes die again and again while they unite states.
    """
    from dask.local import get_sync
    from dask.multiprocessing import get

    finished = _Finished(work, progress)
    workers = min(workers, len(work.reads))
    if workers <= 1:
        with finished.watching():
            whole: Partial = get_sync(dict(work.tasks), work.whole)
        return whole
    for _ in range(_MOST_DEATHS):
        try:
            with _processes(workers) as pool, finished.watching():
                found: Partial = get(
                    finished.rest(), work.whole, pool=pool, chunksize=1, optimize_graph=False
                )
                return found
        except BrokenProcessPool:
            for key in finished.interrupted_reads():
                finished.keep(key, _read_alone(work, key))
    raise TracerError("the processes of fleet died again and again: they may need more memory than there is")


class _Finished:
    """The results of the graph so far, without those that another result contains."""

    def __init__(self, work: WorkTree, progress: Progress) -> None:
        self._work, self._progress = work, progress
        self._results: dict[str, Partial] = {}
        self._started: set[str] = set()
        self._read = 0

    def watching(self) -> Any:
        """Return a context in which the results of Dask are kept, and progress is reported."""
        from dask.callbacks import Callback

        self._started.clear()
        return Callback(  # type: ignore[no-untyped-call]
            pretask=lambda key, _tasks, _state: self._started.add(key),
            posttask=lambda key, result, _tasks, _state, _worker: self.keep(key, result),
        )

    def keep(self, key: str, result: Partial) -> None:
        """Keep a result; it may be known already."""
        self._started.discard(key)
        if key in self._results:
            return
        self._results[key] = result
        if key in self._work.reads:
            self._read += 1
            self._progress(self._read, len(self._work.reads))
        else:
            for contained in self._work.tasks[key][1:]:
                self._results.pop(contained, None)

    def rest(self) -> dict[str, Any]:
        """Return the graph with results in place of what is finished."""
        return dict(self._work.tasks) | self._results

    def interrupted_reads(self) -> list[str]:
        """Return the keys of the pieces that were being read when a process died."""
        return sorted(self._started & set(self._work.reads) - set(self._results))


def _read_alone(work: WorkTree, key: str) -> Partial:
    """Return the state of a piece, read by a process of its own; broken if that dies as well."""
    from dask.multiprocessing import get

    for _ in range(_MOST_DEATHS - 1):  # it has died once
        try:
            with _processes(1) as pool:
                state: Partial = get({key: work.tasks[key]}, key, pool=pool, optimize_graph=False)
            return state
        except BrokenProcessPool:
            continue
    return partial_state.nothing(Broken(work.reads[key].shown, _DIED))


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose processes have started; they end with the block, at once if it fails."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_prepare)
    # Ctrl-C reaches them too, but a process that is importing modules would print a traceback.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        starts = [pool.submit(os.getpid) for _ in range(workers)]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        try:
            for start in starts:
                start.result()
        except BrokenProcessPool as error:
            raise TracerError("the processes of fleet cannot start: free some memory") from error
        yield pool
    except BaseException:
        results: Any = pool._result_queue
        pool.shutdown(wait=False, cancel_futures=True)
        children = multiprocessing.active_children()
        for child in children:
            child.kill()
        for child in children:
            child.join()
        # The pool's thread may wait for the rest of a result whose sender was killed, and this process for
        # that thread. An end of file ends it; Python has no public way to that (3.11 to 3.14).
        results._writer.close()
        raise
    pool.shutdown()


def _prepare() -> None:
    """Prepare a process: it ends with its parent, and computes with one thread, as there is one a CPU."""
    import pyarrow as pa

    if sys.platform == "linux":
        end_with_parent()
    pa.set_cpu_count(1)
