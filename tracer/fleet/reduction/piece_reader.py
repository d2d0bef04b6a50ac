"""The partial state of one piece of work: a trace, or some hosts of a dataset.

Nothing that is wrong with a piece is an exception: it is left out, and the state says why.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from tracer.analysis.trace import AnalysedTrace
from tracer.errors import TracerError
from tracer.fleet.reduction import partial_state
from tracer.fleet.reduction.fetched_trace import local_trace
from tracer.fleet.reduction.inputs import Place
from tracer.fleet.reduction.partial_state import Broken, Partial
from tracer.fleet.summary.summarize import summarize

_ONE_AT_A_TIME: Final = threading.Lock()
"""A worker of a cluster may have several threads, but only memory for one trace."""


@dataclass(frozen=True, slots=True)
class TracePiece:
    """A trace whose summary is to be made."""

    place: Place

    @property
    def shown(self) -> str:
        """Return its path for messages."""
        return self.place.shown


Piece = TracePiece


def read(piece: Piece) -> Partial:
    """Return the state of a piece; its boots are not closed."""
    with _ONE_AT_A_TIME:
        try:
            return _summary(piece.place)
        except TracerError as error:
            why = str(error)
        except MemoryError:
            why = "not enough memory"
        except (OSError, pa.ArrowException) as error:
            why = getattr(error, "strerror", None) or str(error)
        except Exception as error:  # one damaged trace of thousands must not cost the answer
            why = f"a bug in memcg-tracer ({type(error).__name__}: {error})"
    return partial_state.nothing(Broken(piece.shown, " ".join(why.split())))


def _summary(place: Place) -> Partial:
    with local_trace(place) as path:
        return partial_state.of_tables(summarize(AnalysedTrace(path)).tables)
