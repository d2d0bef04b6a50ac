"""When the code that grows is sampled: while memory grows, and else not at all.

The programs that sample cost time at each page fault, so they are attached only while a traced cgroup grows
beyond what it had before in a kind of memory. A program that fills the same memory again and again does not
grow. A leak that is slow stays sampled: the programs are detached after twice the time in which the memory
last grew by a few samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Records
from tracer.capture.rows.decode import limit_bytes
from tracer.categories import CATEGORIES
from tracer.errors import TracerError
from tracer.schema import UNLIMITED_BYTES

KINDS: Final = ("anon", "shmem", "file", "kernel")
"""The kinds of memory that are armed each on their own. `file` has no shared memory; `kernel` has sockets."""

_SAMPLES: Final = np.array([4, 4, 16, 4])
"""For each kind, the growth that arms, in samples: page cache gives way, and comes in large numbers."""

_LEAST_HOLD_S: Final = 10.0
_MOST_HOLD_S: Final = 600.0
_ROW_INTERVAL_S: Final = 1.0


@dataclass
class _Growth:
    """Growth of one cgroup, by kind. `above` is its level relative to the level at which it last armed, or to
    its first one: bytes. `since_s`: when that was. `is_falling`: since a kill, that level follows the least
    one, until memory grows again."""

    above: npt.NDArray[np.int64]
    since_s: npt.NDArray[np.float64]
    is_falling: bool = False


class Arming:
    """Attaches the programs that sample growing code, and detaches them.

    `sample_bytes` is the growth for which a sample stands. `needs_limit`: only cgroups count that have a
    limit, or are below one. `warn` gets a line for each kind that the kernel refuses to sample.
    """

    def __init__(
        self, programs: Programs, sample_bytes: int, warn: Callable[[str], None], *, needs_limit: bool
    ) -> None:
        self._programs = programs
        self._least = _SAMPLES * sample_bytes
        self._warn = warn
        self._needs_limit = needs_limit
        self._limited: set[int] = set()
        self._growth: dict[int, _Growth] = {}
        self._until_s = np.zeros(len(KINDS))
        self._begun_s: dict[str, float] = {}  # kind that is armed -> the end of its last row
        self._refused: set[str] = set()
        self._rows: list[dict[str, Any]] = []

    def expect(self) -> None:
        """Arm for some seconds, for programs that are about to start in new cgroups: their first bytes are
        growth. Among all cgroups of a machine, some always are new."""
        if self._needs_limit:
            return
        self._hold(KINDS.index("anon"), _LEAST_HOLD_S, time.monotonic())

    def take_samples(self, samples: Records) -> None:
        """Note which cgroups have a limit, from records of `sample`."""
        if self._needs_limit and len(samples):
            is_limited = limit_bytes(samples["effective_limit_pages"]) < UNLIMITED_BYTES
            self._limited.update(samples["cgroup_id"][is_limited].tolist())
            self._limited.difference_update(samples["cgroup_id"][~is_limited].tolist())

    def forget(self, cgroup_id: int) -> None:
        """Forget a cgroup whose account is closed."""
        self._growth.pop(cgroup_id, None)
        self._limited.discard(cgroup_id)

    def take(self, charges: Records) -> None:
        """Arm for the growth in records of `charge`."""
        now_s = time.monotonic()
        if len(charges):
            ids, which = np.unique(charges["cgroup_id"], return_inverse=True)
            grown = np.zeros((len(ids), len(KINDS)), np.int64)
            np.add.at(grown, which, _by_kind(charges["delta_bytes"]))
            for cgroup_id, delta in zip(ids.tolist(), grown, strict=True):
                if not self._needs_limit or cgroup_id in self._limited:
                    self._add(cgroup_id, delta, now_s)

    def killed(self, cgroup_ids: Iterable[int]) -> None:
        """Note that an OOM kill freed memory of these cgroups: what they had is no measure any more."""
        for cgroup_id in cgroup_ids:
            if growth := self._growth.get(cgroup_id):
                growth.is_falling = True
                growth.since_s[:] = time.monotonic()

    def expire(self) -> None:
        """Disarm what has not grown for long enough."""
        now_s = time.monotonic()
        for number, kind in enumerate(KINDS):
            if kind in self._begun_s and now_s >= self._until_s[number]:
                self._end_row(kind, now_s)
                self._programs.disarm(kind)
                del self._begun_s[kind]

    def take_rows(self, clock_offset_ns: int, *, is_last: bool = False) -> list[dict[str, Any]]:
        """Return the rows of `armed` since the last call; the offset is that of CLOCK_REALTIME."""
        now_s = time.monotonic()
        for kind, begun_s in self._begun_s.items():
            if is_last or now_s - begun_s >= _ROW_INTERVAL_S:
                self._end_row(kind, now_s)
        rows, self._rows = self._rows, []
        return [
            row | {name: round(row[name] * 1e9) + clock_offset_ns for name in ("begin", "time")}
            for row in rows
        ]

    def _add(self, cgroup_id: int, delta: npt.NDArray[np.int64], now_s: float) -> None:
        growth = self._growth.get(cgroup_id)
        if growth is None:
            nothing = np.zeros(len(KINDS), np.int64)
            growth = self._growth[cgroup_id] = _Growth(nothing, np.full(len(KINDS), now_s))
        growth.above += delta
        if growth.is_falling:
            growth.above = np.maximum(growth.above, 0)
        for number in np.flatnonzero(growth.above >= self._least).tolist():
            took_s = now_s - growth.since_s[number]
            self._hold(number, min(max(2 * took_s, _LEAST_HOLD_S), _MOST_HOLD_S), now_s)
            growth.above[number], growth.since_s[number] = 0, now_s
            growth.is_falling = False

    def _hold(self, number: int, hold_s: float, now_s: float) -> None:
        """Arm for a kind until `hold_s` from now, at least."""
        kind = KINDS[number]
        self._until_s[number] = max(self._until_s[number], now_s + hold_s)
        if kind in self._begun_s or kind in self._refused:
            return
        try:
            self._programs.arm(kind)
        except TracerError as error:
            self._refused.add(kind)
            self._warn(f"the code that makes {kind} grow is not sampled: {error}")
        else:
            self._begun_s[kind] = now_s

    def _end_row(self, kind: str, now_s: float) -> None:
        self._rows.append({"begin": self._begun_s[kind], "time": now_s, "kind": kind})
        self._begun_s[kind] = now_s


_ADDED: Final[Mapping[str, Mapping[str, int]]] = {
    "anon": {"anon": 1},
    "shmem": {"shmem": 1},
    "file": {"file": 1, "shmem": -1},  # the kernel counts shared memory as page cache
    "kernel": {"kernel": 1, "sock": 1},
}
_KIND_OF_CATEGORY: Final = np.array(
    [[_ADDED[kind].get(category.name, 0) for kind in KINDS] for category in CATEGORIES]
)


def _by_kind(delta_bytes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the columns of `KINDS` from those of all categories."""
    of_kinds: npt.NDArray[np.int64] = delta_bytes @ _KIND_OF_CATEGORY
    return of_kinds
