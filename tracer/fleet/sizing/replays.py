"""The recorded lives of a workload at another limit: how many would have died."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tracer.fleet.sizing.needs import column


@dataclass(frozen=True, slots=True)
class Replayed:
    """The lives at a limit. The `killed`, the `survived` and the `unknown` are all of them; `undisturbed` of
    the `survived` are known to read (nearly) nothing again."""

    limit_bytes: int
    killed: int
    survived: int
    unknown: int
    undisturbed: int

    @property
    def lives(self) -> int:
        """Return the number of lives."""
        return self.killed + self.survived + self.unknown


def replayed(lives: pd.DataFrame, limit_bytes: int) -> Replayed:
    """Return what the traces of these rows of `lives` say about a limit (`explain.sizing.replayed_run`).

    A life of an older summary, which has no such columns, is unknown.
    """
    is_killed = limit_bytes < column(lives, "killed_below_bytes")  # NaN: False
    survives = limit_bytes >= column(lives, "survives_from_bytes")
    undisturbed = survives & (limit_bytes >= column(lives, "reads_nothing_from_bytes"))
    killed, survived = int(is_killed.sum()), int((survives & ~is_killed).sum())
    return Replayed(
        limit_bytes=limit_bytes,
        killed=killed,
        survived=survived,
        unknown=len(lives) - killed - survived,
        undisturbed=int(np.sum(undisturbed & ~is_killed)),
    )
