"""Rows of `loss`: the number of records that each stream lost, and the interval of the loss."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any


class LossRows:
    """Sums the losses that several parties count, and makes rows of the new ones.

    Each of `counters` returns stream -> records lost since the recording began. The interval of the first row
    begins now. `counts` are the sums at the last call.
    """

    def __init__(self, *counters: Callable[[], Mapping[str, int]]) -> None:
        self.counts: Counter[str] = Counter()
        self._counters = counters
        self._seen_ns = time.monotonic_ns()

    def take(self, clock_offset_ns: int) -> list[dict[str, Any]]:
        """Return a row for each stream that lost records since the last call.

        `clock_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC.
        """
        now_ns = time.monotonic_ns()
        interval = {"time": now_ns + clock_offset_ns, "begin": self._seen_ns + clock_offset_ns}
        self._seen_ns = now_ns
        counts: Counter[str] = Counter()
        for counter in self._counters:
            counts.update(counter())
        lost = {stream: count - self.counts[stream] for stream, count in counts.items()}
        self.counts = counts
        return [interval | {"stream": stream, "lost": count} for stream, count in lost.items() if count > 0]
