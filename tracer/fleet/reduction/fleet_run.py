"""From paths and URLs to the answer."""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tracer.errors import TraceError, TracerError
from tracer.extras import from_extra
from tracer.fleet.dataset.host_ranges import host_ranges
from tracer.fleet.reduction import cluster, embedded, inputs, partial_state
from tracer.fleet.reduction.embedded import Progress, cpus
from tracer.fleet.reduction.fetched_trace import meta_of
from tracer.fleet.reduction.fleet_answer import Fleet, answer
from tracer.fleet.reduction.inputs import Inputs, Place
from tracer.fleet.reduction.partial_state import Broken
from tracer.fleet.reduction.piece_reader import DatasetPiece, Piece, TracePiece
from tracer.fleet.reduction.work_tree import together, tree
from tracer.fleet.summary.time_window import ALWAYS, TimeWindow, time_ns
from tracer.trace.meta import trace_id

_NOTHING: Final = "there is no trace in it, and no dataset with one"
_NO_END_NS: Final = 1 << 63


def fleet(
    paths: Iterable[str],
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    window: TimeWindow = ALWAYS,
    limits: Sequence[int] = (),
    progress: Progress = lambda _read, _all: None,
) -> Fleet:
    """Return the answer for all traces and datasets at or below the paths and URLs.

    `scheduler` is the address of a scheduler of Dask; without one, `workers` processes of this machine do the
    work, by default one for each CPU. Inputs that cannot be read are in `broken`. Traces recorded entirely
    outside of the window are left out, and are not opened if meta.json shows that. The runs of each workload
    are replayed at `limits`, in bytes, as well. Raises TraceError if
    nothing can be read, and TracerError if Dask is not installed or its cluster fails.
    """
    _require_dask(scheduler)
    found = inputs.find(paths)
    pieces, broken = _pieces(found, window)
    given = len(found.traces) + len(found.datasets)
    if not pieces and not broken and not (given and window != ALWAYS):
        raise TraceError(_nothing_in(found))
    work = tree(together(pieces), window)
    state = (
        embedded.compute(work, workers or cpus(), progress)
        if scheduler is None
        else cluster.compute(work, scheduler, progress)
    )
    are_outside = window != ALWAYS and len(state.broken) + len(broken) < given
    broken += [Broken(path, why) for path, why in found.unreadable]
    broken += [Broken(path, _NOTHING) for path in found.empty]
    state = replace(state, broken=(*state.broken, *broken))
    if not state.sources.num_rows and not are_outside:
        first = min(state.broken, key=lambda one: one.path)
        more = f" (and {len(state.broken) - 1:,} more)" if len(state.broken) > 1 else ""
        raise TraceError(f"no trace can be read: {first.path}: {first.why}{more}")
    return answer(state, window, limits)


def _require_dask(scheduler: str | None) -> None:
    with from_extra("fleet", "fleet"):
        for package in ("dask", "distributed")[: 1 if scheduler is None else 2]:
            importlib.import_module(package)


def _pieces(found: Inputs, window: TimeWindow) -> tuple[dict[Piece, list[Hashable]], list[Broken]]:
    """Return each piece with its boots, and the datasets and files that cannot be read."""
    pieces: dict[Piece, list[Hashable]] = {}
    broken: list[Broken] = []

    def leave_out(dataset: Place, path: str, error: TracerError) -> None:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error  # a compaction has replaced it meanwhile
        broken.append(Broken(f"{dataset.shown}/{path}", str(error)))

    for place in found.datasets:
        try:
            parts = host_ranges(
                place.address, partial_state.READ, leave_out=partial(leave_out, place), window=window
            )
            pieces |= {DatasetPiece(part): [*part.boots] for part in parts}
        except TracerError as error:
            broken.append(Broken(place.shown, str(error).removeprefix(f"{place.shown} ")))
    for place in found.traces:
        meta = meta_of(place)
        if _is_outside(meta, window):
            continue
        pieces[TracePiece(place, window)] = _boot_of(meta)
    return pieces, broken


def _boot_of(meta: Mapping[str, Any]) -> list[Hashable]:
    """Return the boot id of a trace, or else the id of the trace, which its copies share; [] if it is
    damaged."""
    with suppress(KeyError, TypeError):
        return [meta["boot_id"] if isinstance(meta["boot_id"], str) else trace_id(meta)]
    return []


def _is_outside(meta: Mapping[str, Any], window: TimeWindow) -> bool:
    """Return whether a trace was recorded entirely outside of the window; False if that is not known."""
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        ended = meta["ended"]
        return not window.overlaps(time_ns(meta["started"]), _NO_END_NS if ended is None else time_ns(ended))
    return False


def _nothing_in(found: Inputs) -> str:
    if found.unreadable:
        path, why = found.unreadable[0]
        return f"cannot read {path}: {why}"
    named = [*found.empty, *(place.shown for place in found.datasets)]
    more = f" (and {len(named) - 1:,} more)" if len(named) > 1 else ""
    return f"{named[0]}: {_NOTHING}{more}"
