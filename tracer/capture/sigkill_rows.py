"""SIGKILLs that ended processes, without those of the OOM killer, and when each is reported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tracer.capture.bpf.ring import Records
from tracer.capture.observer import Sigkilled
from tracer.capture.rows.decode import Decoder
from tracer.enumerations import KILL_WAY
from tracer.wire.dtypes import WIRE

_MARK_NS: Final = 2_000_000_000
"""The longest time from the OOM killer's SIGKILL to its mark of the victim, which follows at once unless
the thread loses its CPU (__oom_kill_process in mm/oom_kill.c)."""
_MOST_TRIGGERS: Final = 1024

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 10.0
_MOST_REPEATED: Final = 1024


class SigkillRows:
    """Turns records of `sigkill` into rows of `sigkills`.

    The OOM killer sends SIGKILL as the kernel does for a few other reasons, and marks the victim after that;
    processes that share the victim's memory are killed without a mark, by the same thread. So such records
    are held until the thread may no longer turn out to be the trigger of a kill.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._held = np.empty(0, WIRE["sigkill"])
        self._killed_ns: dict[int, int] = {}  # thread that triggered an OOM kill -> time of its last

    @property
    def is_waiting(self) -> bool:
        """Return whether records are held."""
        return len(self._held) > 0

    def add(self, records: Records, kills: Records) -> None:
        """Add new records of `sigkill`, and of `oom` by the same time."""
        for kill in kills:
            self._killed_ns[int(kill["trigger_pid"])] = int(kill["time_ns"])
        while len(self._killed_ns) > _MOST_TRIGGERS:
            del self._killed_ns[next(iter(self._killed_ns))]
        self._held = np.concatenate([self._held, records])

    def take(self, oom_read_ns: int | None) -> list[dict[str, Any]]:
        """Return the rows that are sure. `oom_read_ns` is a time (CLOCK_MONOTONIC) before the last read of
        `oom`: what a slow pass read later may have its kill unread. None: at the end, all of them."""
        if not self.is_waiting:
            return []
        records = self._held
        is_open = (records["is_privileged"] != 0) & (records["way"] == KILL_WAY.number("other"))
        is_oom = is_open & np.array([self._is_oom_kill(record) for record in records], bool)
        is_held = is_open & ~is_oom & (oom_read_ns is not None)
        if oom_read_ns is not None:
            is_held &= records["time_ns"].astype(np.int64) > oom_read_ns - _MARK_NS
        self._held = records[is_held]
        return [self._decoder.sigkill(record) for record in records[~is_oom & ~is_held]]

    def _is_oom_kill(self, record: np.void) -> bool:
        killed_ns = self._killed_ns.get(int(record["sender_tid"]))
        return killed_ns is not None and abs(int(record["time_ns"]) - killed_ns) < _MARK_NS


@dataclass(slots=True)
class _Repeated:
    """What was not reported yet of one sender and cgroup, and when it will be."""

    due_s: float
    wait_s: float = _FIRST_WAIT_S
    last: Sigkilled | None = None


class SigkillReports:
    """Reports the first SIGKILL by a sender's name in a cgroup at once, and what follows it together.

    A test suite or a supervisor may end processes all the time, and a cgroup may have thousands. So the next
    reports are those of 1, 2, 4, 8 s and then 10 s, until one of these times had no SIGKILL.
    """

    def __init__(self) -> None:
        self._repeated: dict[tuple[Any, ...], _Repeated] = {}

    @property
    def is_waiting(self) -> bool:
        """Return whether a SIGKILL was not reported yet."""
        return any(one.last is not None for one in self._repeated.values())

    def take(self, new: Iterable[Sigkilled], now_s: float) -> list[Sigkilled]:
        """Add new SIGKILLs, and return the reports that are due at `now_s` (CLOCK_MONOTONIC); at the end,
        with `now_s` infinite, all of them."""
        due = []
        for kill in new:
            key = tuple(kill.row[name] for name in ("cgroup_id", "sender_comm", "way"))
            if (repeated := self._repeated.get(key)) is not None:
                before = 0 if repeated.last is None else repeated.last.number
                repeated.last = kill._replace(number=before + kill.number)
                continue
            due.append(kill)
            if len(self._repeated) < _MOST_REPEATED:
                self._repeated[key] = _Repeated(now_s + _FIRST_WAIT_S)
        for key, repeated in [*self._repeated.items()]:
            if now_s < repeated.due_s:
                continue
            if repeated.last is None:
                del self._repeated[key]
                continue
            due.append(repeated.last)
            repeated.last = None
            repeated.wait_s = min(2 * repeated.wait_s, _LONGEST_WAIT_S)
            repeated.due_s = now_s + repeated.wait_s
        return due
