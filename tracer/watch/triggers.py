"""The moments at which `watch` writes a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KILL: Final = "kill"
REQUEST: Final = "request"
"""The reasons other than alarms: an OOM kill, and SIGUSR1."""


@dataclass(frozen=True)
class Trigger:
    """A moment at which `watch` writes a trace. `time_ns` is CLOCK_REALTIME by the clock pair of the history.

    `cgroup_id` is the cgroup whose limit is concerned; None: the machine, or no cgroup. `kills` are the ids
    of the OOM decisions. `sentence` describes an alarm, without the cgroup's name.
    """

    reason: str
    time_ns: int
    cgroup_id: int | None = None
    kills: frozenset[int] = frozenset()
    sentence: str | None = None
