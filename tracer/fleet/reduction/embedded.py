"""The graph on processes of this machine: Dask's scheduler for threads, each of which waits for a process.

A local cluster of `distributed` would listen on a port of the loopback device instead, and run what any user
of the machine sends there.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tracer.errors import TracerError
from tracer.fleet.reduction import partial_state
from tracer.fleet.reduction.partial_state import Broken, Partial
from tracer.fleet.reduction.piece_reader import Piece
from tracer.fleet.reduction.work_tree import WorkTree
from tracer.fleet.reduction.worker_processes import MOST_DEATHS, ProcessDiedError, WorkerProcesses
from tracer.kernel.process.children import end_with_parent

Progress = Callable[[int, int], None]
"""Called with the number of pieces that have been read, and the total."""

DIED: Final = f"the process that read it died {MOST_DEATHS} times: it may need more memory than there is"


def compute(work: WorkTree, workers: int, progress: Progress) -> Partial:
    """Return the state of the whole, computed by `workers` processes, or by this one for one piece or one
    worker.

    Raises TracerError if processes die repeatedly while they unite states.
    """
    from dask.callbacks import Callback
    from dask.local import get_sync
    from dask.threaded import get

    read: set[str] = set()

    def count(key: str, *_: Any) -> None:
        if key in work.reads:
            read.add(key)
            progress(len(read), len(work.reads))

    workers = min(workers, len(work.reads))
    whole: Partial
    with Callback(posttask=count):  # type: ignore[no-untyped-call]
        if workers <= 1:
            whole = get_sync(dict(work.tasks), work.whole)
            return whole
        with ThreadPoolExecutor(workers) as threads, WorkerProcesses(workers, prepare) as processes:
            # Dask keeps results as the processes pickled them: this process has no use for them.
            steps = _Steps(processes)
            graph = {
                key: (steps.read if key in work.reads else steps.unite, *task)
                for key, task in work.tasks.items()
            }
            whole = pickle.loads(get(graph, work.whole, pool=threads))
    return whole


class _Steps:
    """The tasks of the graph: each is run by a thread of Dask, in a worker process."""

    def __init__(self, processes: WorkerProcesses) -> None:
        self._processes = processes

    def read(self, function: Callable[[Piece], Partial], piece: Piece) -> bytes:
        """Return the pickled state of a piece; it is in `broken` if processes die of it."""
        try:
            return self._processes.call(function, piece)
        except ProcessDiedError:
            return pickle.dumps(partial_state.nothing(Broken(piece.shown, DIED)))

    def unite(self, function: Callable[..., Partial], *states: bytes) -> bytes:
        """Return the pickled state that a function computes from pickled states."""
        try:
            return self._processes.call(function, *states)
        except ProcessDiedError as error:
            raise TracerError(
                "the processes of fleet died again and again: they may need more memory than there is"
            ) from error


def cpus() -> int:
    """Return how many CPUs this process may use, by its affinity and by the quota of its container: the
    default number of worker processes."""
    from dask.system import cpu_count

    return cpu_count()


def prepare() -> None:
    """Prepare a process: it ends with its parent, and uses one thread, as there is one process for each
    CPU."""
    import pyarrow as pa

    if sys.platform == "linux":
        end_with_parent()
    pa.set_cpu_count(1)
