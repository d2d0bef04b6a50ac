"""From paths and URLs to the answer."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Hashable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tracer.errors import TraceError, TracerError
from tracer.fleet.reduction import cluster, embedded, inputs
from tracer.fleet.reduction.embedded import Progress
from tracer.fleet.reduction.fleet_answer import Fleet, answer
from tracer.fleet.reduction.inputs import Inputs, Place
from tracer.fleet.reduction.partial_state import Broken
from tracer.fleet.reduction.piece_reader import Piece, TracePiece
from tracer.fleet.reduction.work_tree import together, tree
from tracer.trace.layout import META
from tracer.trace.meta_check import MOST_BYTES


def fleet(
    paths: Iterable[str],
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: Progress = lambda _read, _all: None,
) -> Fleet:
    """Return the answer for all traces and datasets at or below the paths and URLs.

    `scheduler` is the address of a scheduler of Dask; without one, `workers` processes of this machine do the
    work, one a CPU by default. What cannot be read is in `broken`. Raises TraceError if there is nothing that
    can be read, and TracerError if Dask is not installed or its cluster fails.
    """
    _require_dask(scheduler)
    found = inputs.find(paths)
    pieces = _pieces(found)
    if not pieces:
        raise TraceError(_nothing_in(found))
    work = tree(together(pieces))
    state = (
        embedded.compute(work, workers or _cpus(), progress)
        if scheduler is None
        else cluster.compute(work, scheduler, progress)
    )
    unreadable = tuple(Broken(path, why) for path, why in found.unreadable)
    state = replace(state, broken=(*state.broken, *unreadable))
    if not state.sources.num_rows:
        first = min(state.broken, key=lambda one: one.path)
        more = f" (and {len(state.broken) - 1:,} more)" if len(state.broken) > 1 else ""
        raise TraceError(f"no trace can be read: {first.path}: {first.why}{more}")
    return answer(state)


def _require_dask(scheduler: str | None) -> None:
    try:
        for package in ("dask", "distributed")[: 1 if scheduler is None else 2]:
            importlib.import_module(package)
    except ImportError as error:
        raise TracerError(f"fleet needs {error.name}: pip install 'memcg-tracer[fleet]'") from error


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pieces(found: Inputs) -> dict[Piece, list[Hashable]]:
    """Return each piece with the names of the boots in it."""
    return {TracePiece(place): _boots(place) for place in found.traces}


def _boots(place: Place) -> list[Hashable]:
    """Return the boot of a trace; none if meta.json is damaged, which reading the trace will report."""
    with suppress(OSError, ValueError, AttributeError):
        path = f"{place.path}/{META}"
        if place.filesystem is None:
            with Path(path).open("rb") as file:
                meta: Any = json.loads(file.read(MOST_BYTES))
        else:
            meta = json.loads(place.filesystem.cat_file(path, end=MOST_BYTES))
        if isinstance(boot := meta.get("boot_id"), str):
            return [boot]
    return []


def _nothing_in(found: Inputs) -> str:
    if found.unreadable:
        path, why = found.unreadable[0]
        return f"cannot read {path}: {why}"
    more = f" and {len(found.empty) - 1:,} more" if len(found.empty) > 1 else ""
    return f"no trace and no dataset below {found.empty[0]}{more}"
