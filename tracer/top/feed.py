"""The feed: the kernel's decisions about cgroups, the newest last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from tracer.render.words.escape import visible
from tracer.units import count

KILL: Final = "kill"
LIMIT: Final = "limit"
SOON: Final = "soon"
NOTHING: Final = "nothing"
NOTE: Final = "note"
"""The kinds: an OOM kill or its verdict, a limit that was hit, a kill that is near, reclaim that freed
nothing, a message about the view."""

MOST: Final = 200
_GOES_ON_NS: Final = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the feed. `time_ns` is CLOCK_REALTIME.

    `name` (of a cgroup) and `sentence` are not escaped, and may be hostile. `attempts` counts the attempts to
    reclaim since `begin_ns` that freed nothing.
    """

    time_ns: int
    kind: str
    name: str
    sentence: str = ""
    attempts: int = 0
    begin_ns: int = 0

    def words(self) -> str:
        """Return the line without its time, safe to print."""
        said = visible(self.sentence)
        if self.kind == NOTHING:
            attempts = (
                "1 reclaim attempt" if self.attempts == 1 else f"{count(self.attempts)} reclaim attempts"
            )
            lasted_s = (self.time_ns - self.begin_ns) / 1e9
            said = f"{attempts} freed nothing" + (f" in {lasted_s:.0f} s" if lasted_s >= 1 else "")
        return f"{visible(self.name)}: {said}" if self.name else said

    def clock(self) -> str:
        """Return the UTC time of the line as `12:00:01`."""
        return datetime.fromtimestamp(self.time_ns // 1_000_000_000, UTC).strftime("%H:%M:%S")


def with_decision(feed: tuple[Decision, ...], new: Decision) -> tuple[Decision, ...]:
    """Return the feed with a new decision at its end. While reclaim of a cgroup keeps freeing nothing, its
    decisions are merged into one line."""
    if new.kind == NOTHING:
        for at in range(len(feed) - 1, -1, -1):
            old = feed[at]
            if new.time_ns - old.time_ns > _GOES_ON_NS:
                break
            if (old.kind, old.name) == (NOTHING, new.name):
                joined = replace(new, attempts=old.attempts + new.attempts, begin_ns=old.begin_ns)
                return (*feed[:at], *feed[at + 1 :], joined)
    return (*feed, new)[-MOST:]
