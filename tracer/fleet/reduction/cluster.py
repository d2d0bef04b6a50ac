"""The graph on a cluster of Dask, which retries the work of a worker that died."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

from tracer.errors import TracerError
from tracer.fleet.reduction import partial_state
from tracer.fleet.reduction.embedded import Progress
from tracer.fleet.reduction.partial_state import Broken, Partial
from tracer.fleet.reduction.work_tree import WorkTree

_PATIENCE_S: Final = 30
_DIED: Final = "the workers that read it died: it may need more memory than a worker has"


def compute(work: WorkTree, address: str, progress: Progress) -> Partial:
    """Return the state of the whole, computed by the workers of the scheduler at `address`.

    Raises TracerError if no scheduler or worker answers, and if workers cannot import this package.
    """
    from distributed import Client
    from distributed.comm.addressing import resolve_address

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # errors are raised as well
    try:
        # Dask leaves a client of a malformed address open. If the thread of the next client happens to
        # finalize it, the two wait for each other.
        _untyped(resolve_address)(address)
        client: Any = _untyped(Client)(address, timeout=_PATIENCE_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise TracerError(
            f"no scheduler of Dask answers at {address}: start one (dask scheduler), or give its address"
        ) from error
    with closing(client):
        try:
            client.wait_for_workers(1, timeout=_PATIENCE_S)
        except TimeoutError as error:
            raise TracerError(f"the scheduler at {address} has no worker: start one (dask worker)") from error
        alone: dict[str, Partial] = {}
        while True:
            whole, died = _computed(client, work, alone, progress)
            if whole is not None:
                return whole
            alone |= {key: _read_alone(client, work, key) for key in died}


def _computed(
    client: Any, work: WorkTree, alone: Mapping[str, Partial], progress: Progress
) -> tuple[Partial | None, list[str]]:
    """Return (the state of the whole, the keys of pieces whose workers died repeatedly).

    `alone` has the states of pieces that were read alone. The state is None if the list is not empty.
    """
    from distributed import KilledWorker, as_completed

    keys = [key for key in work.reads if key not in alone]
    *reads, whole = client.get({**work.tasks, **alone}, [*keys, work.whole], sync=False)
    died = []
    ahead = _untyped(as_completed)(reads, loop=client.loop)
    del reads  # a future that is held keeps its result in a worker's memory
    for read, future in enumerate(ahead, len(alone) + 1):
        progress(read, len(work.reads))
        if future.status == "error":
            error = future.exception()
            if not isinstance(error, KilledWorker):
                raise _of_a_worker(error) from error
            died.append(str(future.key))
    if died:
        return None, died
    try:
        found: Partial = whole.result()
    except KilledWorker as error:
        raise TracerError("workers died while they united states: they may need more memory") from error
    return found, []


def _read_alone(client: Any, work: WorkTree, key: str) -> Partial:
    """Return the state of a piece that is read with nothing else; it is in `broken` if workers die of it.

    Dask suspects all work that a worker had when it died.
    """
    from distributed import KilledWorker

    new_key = f"alone-{key}"
    (future,) = client.get({new_key: work.tasks[key]}, [new_key], sync=False)
    try:
        found: Partial = future.result()
    except KilledWorker:
        return partial_state.nothing(Broken(work.reads[key].shown, _DIED))
    return found


def _untyped(function: Any) -> Any:
    """Return a function of Dask, which has no types."""
    return function


def _of_a_worker(error: BaseException) -> TracerError:
    if isinstance(error, TracerError):
        return error
    if isinstance(error, ImportError):
        return TracerError(
            f"workers lack memcg-tracer: install memcg-tracer[fleet] there, in this version ({error})"
        )
    return TracerError(f"the cluster failed: {type(error).__name__}: {error}")
