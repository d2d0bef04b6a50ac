"""The SIGKILLs of a trace that ended processes and were not the OOM killer's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import integers
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.sigkill import Sigkill, from_row
from tracer.schema import UNLIMITED_BYTES


def sigkills(trace: TraceTables, cgroup: str | int | None = None) -> list[Sigkill]:
    """Return a `Sigkill` for each row of `sigkills`, by time. With `cgroup`, only those of processes in the
    cgroups that it names, or below them."""
    rows = trace.sigkills
    if cgroup is not None:
        members = naming.members_of(trace, naming.select(trace, cgroup))
        rows = rows[np.isin(integers(rows["cgroup_id"]), members)]
    known = trace.cgroups.set_index("cgroup_id")[["path", "container"]]
    names = {
        int(number): (path, None if pd.isna(container) else container)
        for number, path, container in known.itertuples(name=None)
    }
    dicts: list[Any] = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return [
        from_row(row, names, unlimited_bytes=UNLIMITED_BYTES, time=time)
        for time, row in zip(rows.index, dicts, strict=True)
    ]
