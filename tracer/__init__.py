"""memcg-tracer: why does a container at its memory limit not die, and when it dies, why then?

`tracer.open(path)` returns a trace as pandas DataFrames, and `tracer.fleet.open(url)` returns a dataset of
many traces as Dask DataFrames. Only these calls import pandas: the recorder also imports this package, and
must not pay for pandas.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tracer import fleet
from tracer.errors import TraceError, TracerError, UsageError
from tracer.version import VERSION

if TYPE_CHECKING:
    from tracer.render.plot.opened_trace import OpenedTrace

__version__ = VERSION

__all__ = ["VERSION", "TraceError", "TracerError", "UsageError", "__version__", "fleet", "open"]


def __dir__() -> list[str]:
    """Return the names that users may rely on."""
    return sorted(__all__)


def open(path: str | Path) -> OpenedTrace:
    """Open the trace in a directory; its recording may have been interrupted.

        t = tracer.open("traces/page-cache")
        t.kills()

    `help(t)` lists the tables with their columns. Raises TraceError if there is no trace.
    """
    from tracer.render.plot.opened_trace import OpenedTrace  # noqa: PLC0415  the recorder must not load pandas

    return OpenedTrace(path)
