"""The state of a trace that cannot be written for now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

_FIRST_RETRY_S: Final = 0.25
_LONGEST_RETRY_S: Final = 4.0


@dataclass
class Failure:
    """The reason why rows wait in memory, and the time of the next attempt to write them
    (CLOCK_MONOTONIC)."""

    reason: str
    began_s: float
    retry_s: float = 0.0  # the interval between attempts
    due_s: float = 0.0
    is_reported: bool = False

    def put_off(self, reason: str) -> None:
        """Set the time of the next attempt; the interval grows with each failed attempt."""
        self.reason = reason
        self.retry_s = min(max(2 * self.retry_s, _FIRST_RETRY_S), _LONGEST_RETRY_S)
        self.due_s = time.monotonic() + self.retry_s

    def kept_and_lost(self, written: int, lost: int, *, is_removed: bool) -> str:
        """Return in words how many rows are written and how many are lost; `is_removed`: the trace was
        removed."""
        if is_removed:
            return f"nothing of it is left, and {lost:,} rows that came later are lost"
        since_s = time.monotonic() - self.began_s
        return (
            f"{written:,} rows, until {since_s:.1f} s before the end, are written, and what is there is "
            f"readable; {lost:,} rows are lost"
        )
