"""Alarm: the reason to keep a trace although nothing was killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Alarm:
    """A cgroup hit its limit (`limit`), or is about to use up what is left below it (`soon`), or all its
    tasks waited for memory (`pressure`).

    `time_ns` is the `time` of the sample that showed it. `sentence` has the numbers, and not the name of the
    cgroup.
    """

    reason: Literal["limit", "soon", "pressure"]
    cgroup_id: int
    time_ns: int
    sentence: str
