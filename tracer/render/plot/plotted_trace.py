"""The class of the object that `tracer.open` returns: a trace with its analyses and pictures, for people.

Verbs and their documents have the names of the JSON. Here, what was evicted and read again has the name that
people see as well, and `dir()` and completion list only what is meant to be used: the other attributes are
the analyses' own, and change without notice.
"""

from __future__ import annotations

import inspect
import textwrap
from functools import cached_property
from typing import TYPE_CHECKING, Final

import pandas as pd

from tracer import meanings
from tracer.analysis.trace import AnalysedTrace
from tracer.extras import from_extra
from tracer.schema import TABLES

if TYPE_CHECKING:
    from tracer.render.plot.pictures import Pictures

READ_AGAIN: Final = "read_again_bytes"

PUBLIC: Final = (
    *TABLES,
    *("path", "meta", "interrupted", "size_bytes", "rows", "table", "batches", "with_names"),
    *("explain", "kills", "kill_window", "held", "sigkilled", "timeline", "evictions", "refaults", "thrash"),
    *("miss_curve", "whatif", "lost_time", "waits", "waits_by_process", "code", "charged_stacks", "plot"),
)
"""The names that users may rely on."""


def _answers() -> str:
    """Return a paragraph for each public name that is no table: how it is called, and what it returns."""
    return "\n\n".join(_answer(name) for name in PUBLIC[PUBLIC.index("with_names") : PUBLIC.index("plot")])


def _answer(name: str) -> str:
    attribute = inspect.getattr_static(AnalysedTrace, name)
    called = "()" if inspect.isfunction(attribute) else ""
    returned = (inspect.getdoc(attribute) or "").split("\n\n")[0].removeprefix("Return ")
    return f"t.{name}{called}\n{textwrap.indent(returned, '  ')}"


class PlottedTrace(AnalysedTrace):
    __doc__ = f"""A trace: its tables as pandas DataFrames, and what follows from them.

A table is read at first use and kept. A column `time` is its index, sorted, in UTC. Names contain the units:
`_bytes`, `_pages`, `_ns`, `_us`; a page has `t.meta["page_size"]` bytes. NA is "not known", 0 is zero. A
limit that is not set is NA as well, and the flag beside it is then false.

What follows from the tables, each with an example in its own help, such as `help(t.kills)`:

{_answers()}

The tables:

{meanings.documentation()}
"""

    def __dir__(self) -> list[str]:
        """Return the names that users may rely on."""
        return [*PUBLIC, *(name for name in super().__dir__() if name.startswith("__"))]

    def timeline(
        self,
        cgroup: str | int | None = None,
        every: str = "100ms",
        begin: str | float | None = None,
        end: str | float | None = None,
        *,
        run: int | None = None,
    ) -> pd.DataFrame:
        rows = super().timeline(cgroup, every, begin, end, run=run)
        rows[READ_AGAIN] = rows["cache_refaulted_bytes"]
        return rows

    timeline.__doc__ = AnalysedTrace.timeline.__doc__

    def evictions(self, by: str = "file", cgroup: str | int | None = None) -> pd.DataFrame:
        rows = super().evictions(by, cgroup)
        rows[READ_AGAIN] = rows["returned_bytes"]
        return rows

    evictions.__doc__ = AnalysedTrace.evictions.__doc__

    def held(self, cgroup: str | int | None = None) -> pd.DataFrame:
        rows = super().held(cgroup)
        rows[READ_AGAIN] = rows["refaulted_bytes"]
        return rows

    held.__doc__ = AnalysedTrace.held.__doc__

    @cached_property
    def plot(self) -> Pictures:
        """Return the pictures, such as `t.plot.timeline()`: each returns matplotlib Axes, with the kills
        marked. `tracer.render.plot.pictures.Pictures`.

        The first use imports matplotlib. Raises TracerError if it is not installed (extra `plot`).
        """
        with from_extra("plot", "a picture"):
            from tracer.render.plot.pictures import Pictures  # noqa: PLC0415  most users of a trace draw nothing

        return Pictures(self)
