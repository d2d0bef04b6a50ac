"""What was lost, as rows of the table `loss`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any


class Losses:
    """How many records each stream has lost, by the last look; the first row's interval begins here."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._seen_ns = time.monotonic_ns()

    def rows(self, counts: Mapping[str, int], clock_offset_ns: int) -> list[dict[str, Any]]:
        """Return a row for each stream whose count is higher than at the last look.

        `counts`: stream -> records lost since the begin. `clock_offset_ns`: CLOCK_REALTIME minus
        CLOCK_MONOTONIC.
        """
        now_ns = time.monotonic_ns()
        interval = {"time": now_ns + clock_offset_ns, "begin": self._seen_ns + clock_offset_ns}
        self._seen_ns = now_ns
        lost = {stream: count - self.counts[stream] for stream, count in counts.items()}
        self.counts = Counter(counts)
        return [interval | {"stream": stream, "lost": count} for stream, count in lost.items() if count > 0]
