"""The class of the object that `tracer.open` returns: a trace with its analyses, and its pictures."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tracer.analysis.trace import AnalysedTrace
from tracer.extras import from_extra

if TYPE_CHECKING:
    from tracer.render.plot.pictures import Pictures


class PlottedTrace(AnalysedTrace):
    __doc__ = f"{AnalysedTrace.__doc__}"

    @cached_property
    def plot(self) -> Pictures:
        """Return the pictures: `tracer.render.plot.pictures.Pictures`.

        The first use imports matplotlib. Raises TracerError if it is not installed (extra `plot`).
        """
        with from_extra("plot", "a picture"):
            from tracer.render.plot.pictures import Pictures  # noqa: PLC0415  most users of a trace draw nothing

        return Pictures(self)
