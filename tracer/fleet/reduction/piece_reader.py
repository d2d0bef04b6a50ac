"""The partial state of one piece of work: a trace, or some hosts of a dataset.

A damaged piece raises no exception: it is left out, and the state gives the reason.
"""

from __future__ import annotations

import threading
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow as pa

from tracer.analysis.trace import AnalysedTrace
from tracer.errors import Defects, TracerError, bug
from tracer.fleet.dataset import host_ranges
from tracer.fleet.dataset.host_ranges import HostRange
from tracer.fleet.reduction import partial_state
from tracer.fleet.reduction.fetched_trace import local_trace
from tracer.fleet.reduction.inputs import Place
from tracer.fleet.reduction.partial_state import Broken, Partial
from tracer.fleet.summary.summarize import summarize
from tracer.fleet.summary.time_window import ALWAYS, TimeWindow
from tracer.urls import shown_url

_ONE_AT_A_TIME: Final = threading.Lock()
"""A worker of a cluster may have several threads, but only memory for one trace."""


@dataclass(frozen=True, slots=True)
class TracePiece:
    """A trace to summarize. It does not count if it was recorded entirely outside of the window."""

    place: Place
    window: TimeWindow = ALWAYS

    @property
    def shown(self) -> str:
        """Return its path for messages."""
        return self.place.shown


@dataclass(frozen=True, slots=True, eq=False)
class DatasetPiece:
    """The summaries of some hosts of a dataset."""

    part: HostRange

    @property
    def shown(self) -> str:
        """Return its path for messages."""
        return f"{shown_url(self.part.address)} (hosts from {self.part.first} to {self.part.last})"


Piece = TracePiece | DatasetPiece


def read(piece: Piece) -> Partial:
    """Return the state of a piece; its boots are not closed.

    Raises TracerError only if a dataset was compacted meanwhile.
    """
    with _ONE_AT_A_TIME:
        return _dataset(piece) if isinstance(piece, DatasetPiece) else _trace(piece)


def _trace(piece: TracePiece) -> Partial:
    path = Path(piece.shown)
    debug: tuple[str, ...] = ()
    try:
        with local_trace(piece.place) as path:
            summary = summarize(AnalysedTrace(path))
        if piece.window.overlapping(summary.tables["sources"]).num_rows == 0:
            return partial_state.nothing()
        return replace(partial_state.of_tables(summary.tables), broken=_not_explained(piece, summary.defects))
    except TracerError as error:
        why = str(error).replace(f"{path}/", "")
    except MemoryError:
        why = "not enough memory"
    except (OSError, pa.ArrowException) as error:
        why = getattr(error, "strerror", None) or str(error)
    except Exception as error:  # one damaged trace of thousands must not cost the answer
        why, debug = bug(error), (traceback.format_exc(),)
    return partial_state.nothing(Broken(piece.shown, _in_one_line(why), debug=debug))


def _not_explained(piece: TracePiece, defects: Defects) -> tuple[Broken, ...]:
    if not defects:
        return ()
    why = _in_one_line("; ".join(defects.sentences()))
    return (Broken(piece.shown, why, is_partial=True, debug=tuple(defects.tracebacks())),)


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _dataset(piece: DatasetPiece) -> Partial:
    try:
        return _hosts(piece.part)
    except (TracerError, MemoryError):
        raise
    except Exception as error:  # rows that no memcg-tracer wrote, such as lives without an end
        debug = (traceback.format_exc(),)
        return partial_state.nothing(Broken(piece.shown, _in_one_line(bug(error)), debug=debug))


def _hosts(part: HostRange) -> Partial:
    """Return the rows of a part of a dataset, each kill and life once, without files that are damaged."""
    try:
        return partial_state.of_tables(host_ranges.read(part, partial_state.UNMERGED))
    except TracerError as error:
        _require_all_files(error)
    tables, broken = {name: [schema.empty_table()] for name, schema in partial_state.SCHEMAS.items()}, []
    for name, files in part.files.items():
        for file in files:
            alone = replace(part, files={name: (file,)})
            try:
                tables[name].append(host_ranges.read(alone, partial_state.UNMERGED)[name])
            except TracerError as error:
                _require_all_files(error)
                broken.append(Broken(f"{shown_url(part.address)}/{file.path}", _in_one_line(str(error))))
    found = {name: pa.concat_tables(rows, promote_options="default") for name, rows in tables.items()}
    return partial_state.once(
        partial_state.union([partial_state.of_tables(found), partial_state.nothing(*broken)])
    )


def _require_all_files(error: TracerError) -> None:
    """Raise the error if it is about a vanished file: the file's rows are now in another one."""
    if isinstance(error.__cause__, FileNotFoundError):
        raise error
