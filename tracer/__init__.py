"""memcg-tracer: why does a container at its memory limit not die, and when it dies, why then?

`tracer.open(path)` gives a trace as pandas DataFrames. Nothing heavy is imported before it is called: the
recorder imports this package too, and must not pay for pandas.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tracer.errors import TraceError, TracerError, UsageError
from tracer.version import VERSION

if TYPE_CHECKING:
    from tracer.analysis.trace import AnalysedTrace

__version__ = VERSION

__all__ = ["VERSION", "TraceError", "TracerError", "UsageError", "__version__", "open"]


def open(path: str | Path) -> AnalysedTrace:
    """Open a trace, one that was interrupted included; raises TraceError for anything else."""
    from tracer.analysis.trace import AnalysedTrace  # noqa: PLC0415  pandas is no business of the recorder

    return AnalysedTrace(path)
