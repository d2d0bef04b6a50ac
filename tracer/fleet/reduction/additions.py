"""Add many traces to a dataset with processes of this machine, each of which adds a trace at a time.

One process adds traces of one id, such as copies of one recording, in their order. So the dataset is the same
with any number of processes.
"""

from __future__ import annotations

import gc
import pickle
import tempfile
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Final

import pyarrow as pa

from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TracerError, bug
from tracer.fleet.dataset.appending import Appended, Appender
from tracer.fleet.pushing.target import TargetError
from tracer.fleet.reduction.embedded import DIED, Progress, prepare
from tracer.fleet.reduction.fetched_trace import local_trace, meta_of
from tracer.fleet.reduction.inputs import Place
from tracer.fleet.reduction.worker_processes import ProcessDiedError, WorkerProcesses
from tracer.trace.meta import trace_id

Outcome = Appended | str
"""The outcome for a trace: it is in the dataset, or the reason why it is not."""

_AT_ONCE: Final = 8
"""The number of meta.json files at a URL that are read at the same time."""
_appenders: Final[list[Appender]] = []
"""The appender of this process, in a process that adds traces."""


def add_all(
    appender: Appender,
    traces: Sequence[Place],
    workers: int,
    *,
    report: Callable[[Place, Outcome], None],
    progress: Progress = lambda _added, _all: None,
) -> None:
    """Add traces to a dataset; `report` is called with the outcome for each, in their order.

    For a trace that the dataset has, only meta.json is read. With one worker, or if all traces have one id,
    this process does the work. Raises TargetError if the dataset cannot be used, and TracerError if processes
    cannot start.
    """
    outcomes: dict[int, Outcome] = {}
    reported = 0

    def take(answers: Mapping[int, Outcome]) -> None:
        nonlocal reported
        outcomes.update(answers)
        progress(reported + len(outcomes), len(traces))
        while reported in outcomes:
            report(traces[reported], outcomes.pop(reported))
            reported += 1

    ids = _ids(traces)
    there = {
        number: Appended(name, None, 0) for number, name in enumerate(ids) if name and appender.has(name)
    }
    take(there)
    groups = _groups(ids, there)
    workers = min(workers, len(groups))
    if workers <= 1:
        for number in sorted(number for group in groups for number in group):
            take({number: _added(appender, traces[number])})
        return
    with (
        tempfile.TemporaryDirectory(prefix="memcg-tracer-") as scratch,
        ThreadPoolExecutor(workers) as threads,
        WorkerProcesses(workers, partial(_prepare, appender, scratch, gc.get_threshold())) as processes,
    ):
        waiting = {
            threads.submit(_call, processes, [traces[number] for number in group]): group for group in groups
        }
        for future in as_completed(waiting):
            take(dict(zip(waiting[future], future.result(), strict=True)))


def _ids(traces: Sequence[Place]) -> list[str | None]:
    """Return the id of each trace; None: it is damaged, and reading it will report that."""
    if all(place.target is None for place in traces):
        return [_id(place) for place in traces]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(_id, traces))


def _id(place: Place) -> str | None:
    try:
        return trace_id(meta_of(place))
    except (KeyError, TypeError):
        return None


def _groups(ids: Sequence[str | None], left_out: Container[int]) -> list[list[int]]:
    """Return the positions of the traces in groups of one id each."""
    found: dict[Hashable, list[int]] = {}
    for number, name in enumerate(ids):
        if number not in left_out:
            found.setdefault(number if name is None else name, []).append(number)
    return list(found.values())


def _call(processes: WorkerProcesses, places: list[Place]) -> list[Outcome]:
    """Add traces in one of the processes, and return their outcomes."""
    try:
        outcomes: list[Outcome] = pickle.loads(processes.call(_add, places))
    except ProcessDiedError:
        return [f"{place.shown}: {DIED}" for place in places]
    return outcomes


def _prepare(appender: Appender, scratch: str, garbage: tuple[int, int, int]) -> None:
    """Prepare a process. Its temporary files are below `scratch`, since it may be killed before it removes
    them."""
    prepare()
    gc.set_threshold(*garbage)
    tempfile.tempdir = scratch
    _appenders[:] = [appender]


def _add(places: list[Place]) -> list[Outcome]:
    (appender,) = _appenders
    return [_added(appender, place) for place in places]


def _added(appender: Appender, place: Place) -> Outcome:
    """Add a trace; raises TargetError if the dataset cannot be used."""
    path = None
    try:
        with local_trace(place) as path:
            return appender.append(AnalysedTrace(path))
    except TargetError:
        raise
    except TracerError as error:
        return str(error) if path is None else str(error).replace(str(path), place.shown)
    except MemoryError:
        return f"{place.shown}: not enough memory"
    except (OSError, pa.ArrowException) as error:
        return f"{place.shown}: {getattr(error, 'strerror', None) or error}"
    except Exception as error:  # one damaged trace of thousands must not cost the others
        return f"{place.shown}: {bug(error)}"
