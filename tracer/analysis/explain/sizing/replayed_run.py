"""The recorded run of a cgroup at any other limit.

It is the one source of `whatif`, of the ranges of `explain`, and of what `fleet` says about lives.

A run is known by what it needs (`sizing.demand`) and by what it reads again (`sizing.read_again`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.sizing import demand
from tracer.analysis.explain.sizing.demand import Demand
from tracer.analysis.explain.sizing.read_again import Rereads
from tracer.analysis.explain.sizing.unreclaimable import swap_room_bytes
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.outcome import AtLimit, BytesRange, Outcome
from tracer.analysis.results.survivor import Progress

_WITH_LESS_SWAP: Final = "what was in swap needs room as well, with less swap"
_WITH_MORE_SWAP: Final = "how much of its memory would go to more swap than it had is not known"


@dataclass(frozen=True)
class Replay:
    """A recorded run. `going`: whether its work went on. `swap_bytes`: the swap beside each limit; None: not
    known. `is_followed`: the whole run is in the trace, with the same swap."""

    subtree: Subtree
    needs: Demand
    going: Progress
    swap_bytes: int | None
    is_followed: bool

    @classmethod
    def of(
        cls, subtree: Subtree, kills: Sequence[OomReport], going: Progress, swap_bytes: int | None = None
    ) -> Self:
        """Return the run of a cgroup. `kills` concern it, by time; `going` is whether its work went on;
        `swap_bytes`: None: as in the recording."""
        recorded_bytes = swap_room_bytes(subtree)
        room_bytes = recorded_bytes if swap_bytes is None else swap_bytes
        if not kills:
            needs = demand.of_life(subtree, room_bytes, going.state)
        elif swap_bytes is not None and swap_bytes > (recorded_bytes or 0):
            needs = demand.unknown(_WITH_MORE_SWAP)
        else:
            needs = demand.of_kills(subtree, kills, _WITH_LESS_SWAP if room_bytes != recorded_bytes else None)
        is_followed = not kills and room_bytes == recorded_bytes
        return cls(subtree, needs, going, room_bytes, is_followed)

    @cached_property
    def rereads(self) -> Rereads:
        """Return what the run read again. Finding it takes a while, and after a kill, few ask for it."""
        return Rereads.of(self.subtree, self.going)

    def at(self, limit_bytes: int) -> AtLimit:
        """Return the outcome at a limit."""
        outcome, why = self.needs.at(limit_bytes)
        if outcome == "killed" or not self.is_followed:
            return AtLimit(limit_bytes, self.swap_bytes, outcome, why)
        again = self.rereads.at(limit_bytes)
        if outcome == "survives":
            outcome, why = self._speed(limit_bytes, again, why)
        if (wide := self.rereads.why_wide(limit_bytes, again)) is not None:
            why = f"{why}; how much it reads again is not known more closely: {wide}"
        lost = self.rereads.lost_share_at(limit_bytes, again)
        return AtLimit(limit_bytes, self.swap_bytes, outcome, why, again, lost)

    def _speed(self, limit_bytes: int, again: BytesRange, fits: str) -> tuple[Outcome, str]:
        """Return the outcome at a limit at which nothing is killed, and its reason."""
        if self.going.state == "throttled":
            if self.rereads.is_as_recorded(limit_bytes):
                return "survives", f"{fits}, and memory.high slows it as in the trace"
            return (
                "unknown",
                f"{fits}, but memory.high slowed its tasks, and nothing shows how far they would get",
            )
        thrashes = self.rereads.is_thrashing_at(limit_bytes, again)
        if thrashes:
            return "thrashes", f"{fits}, but a third of its time or more is lost to what it reads again"
        if thrashes is None:
            return "unknown", f"{fits}, but its tasks were thrashing, and may still be"
        if again[1] is None:
            return "survives", f"{fits}, but not all of its page cache: it may be slower"
        return "survives", fits
