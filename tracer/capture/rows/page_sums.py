"""The sums of page-cache runs (bpf/shared/page_sums.h): when runs are summed, and the rows of the sums."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.maps import ProgramBarrier, delete_elements
from tracer.capture.bpf.ring import Records
from tracer.capture.rows.decode import NO_INDEX
from tracer.enumerations import SUMMED_REASON
from tracer.wire.dtypes import WIRE

_READ_EVERY_S: Final = 0.1
_LEAST_S: Final = 1.0
_NOTHING, _RING_FULL, _MAX_OVERHEAD = range(len(SUMMED_REASON.names))
_REASON, _EPOCH, _COUNT = 0, 1, 2  # enum summing_item

_FIELDS: Final = WIRE["pagecache"].names or ()
_WIDE: Final = ("duration_ns", "folios", "nr_pages")
_SUM: Final = np.dtype([(name, "<u8" if name in _WIDE else WIRE["pagecache"][name]) for name in _FIELDS])
"""Sums as records of the stream `pagecache`, with room for large numbers."""


class PageSums:
    """The sums in the kernel, and the switch that turns the summing of runs on.

    A program turns the switch on when it finds the ring full. It then stays on for at least a second.
    """

    def __init__(self, programs: Programs) -> None:
        """Take over the maps of `programs`. Raises OSError if the kernel refuses a map."""
        self._sums = programs.map("page_sums")
        self._summing = programs.map("summing")
        self._barrier = ProgramBarrier()
        self._key, self._value = np.dtype(self._sums.key_type), np.dtype(self._sums.value_type)
        self._epoch = 0
        self._read_s = self._since_s = 0.0
        self._reason = _NOTHING
        self._open_ns: int | None = None
        self._intervals: list[dict[str, Any]] = []

    def close(self) -> None:
        """Close the maps that only this object uses."""
        self._barrier.close()

    def sum_while(self, is_exceeded: bool) -> None:
        """Sum runs while tracing costs more than `--max-overhead`; call it with each new decision."""
        if is_exceeded != (self._item(_REASON) == _MAX_OVERHEAD):
            self._summing[_REASON] = _MAX_OVERHEAD if is_exceeded else _NOTHING

    def wait_for_programs(self) -> None:
        """Return when each program that was running at the call has ended. Raises OSError."""
        self._barrier.wait()

    def add_to(self, records: Records, *, is_last: bool = False) -> Records:
        """Return the records, which were read from the ring, and the sums that wait, if it is time for these.

        Call it after the ring was read: if the ring was full, it has room now. `is_last`: the programs are
        detached, and none runs any more.
        """
        now_s = time.monotonic()
        reason = self._turn(now_s)
        if not self._item(_COUNT + self._epoch % 2):
            if reason == _NOTHING:
                self._open_ns = None
            return records
        if now_s - self._read_s < _READ_EVERY_S and not is_last:
            return records
        self._read_s = now_s
        sums = self._take()
        self._note_interval(sums, is_on=reason != _NOTHING)
        return np.concatenate([records, sums])

    def is_waiting(self) -> bool:
        """Return whether a sum waits to be read, or the ring was found full."""
        return self._item(_REASON) == _RING_FULL or bool(self._item(_COUNT + self._epoch % 2))

    def take_rows(self, clock_offset_ns: int) -> list[dict[str, Any]]:
        """Return the rows of `summed` since the last call; the offset is that of CLOCK_REALTIME."""
        rows, self._intervals = self._intervals, []
        return [row | {name: row[name] + clock_offset_ns for name in ("begin", "time")} for row in rows]

    def _turn(self, now_s: float) -> int:
        """Turn the switch off if it was on for long enough, and return what it is now."""
        reason = self._item(_REASON)
        if reason == _NOTHING:
            self._since_s = now_s
            return reason
        self._reason = reason
        if reason == _RING_FULL and now_s - self._since_s >= _LEAST_S:
            self._summing[_REASON] = _NOTHING
            self._since_s = now_s
            return _NOTHING
        return reason

    def _take(self) -> Records:
        """Take the sums of this epoch out of the map, after the next one has begun."""
        ended = self._epoch
        self._epoch += 1
        self._summing[_EPOCH] = self._epoch
        self._barrier.wait()
        buffers = self._sums.read_elements()
        keys, values = np.frombuffer(buffers[0], self._key), np.frombuffer(buffers[1], self._value)
        is_of_ended = keys["epoch"] == ended
        keys, values = keys[is_of_ended], values[is_of_ended]
        delete_elements(self._sums.fd, bytearray(keys.tobytes()), len(keys))
        self._summing[_COUNT + ended % 2] = 0
        return _as_records(keys, values)

    def _note_interval(self, sums: Records, *, is_on: bool) -> None:
        """Keep the interval of these sums. It joins the last one if runs were summed in between."""
        ends = sums["time_ns"] + sums["duration_ns"]
        end_ns = max(int(ends.max()), time.monotonic_ns() if is_on else 0)
        begin_ns = int(sums["time_ns"].min())
        if self._open_ns is not None:
            begin_ns = min(begin_ns, self._open_ns)
        self._open_ns = end_ns if is_on else None
        reason = SUMMED_REASON.names[self._reason]
        self._intervals.append({"begin": begin_ns, "time": end_ns, "stream": "pagecache", "reason": reason})

    def _item(self, item: int) -> int:
        return int(self._summing[item].value)


def _as_records(keys: Records, values: Records) -> Records:
    records = np.zeros(len(keys), _SUM)
    for name in set(_FIELDS) & set(keys.dtype.names or ()):
        records[name] = keys[name]
    for name in ("folios", "nr_pages"):
        records[name] = values[name]
    records["time_ns"] = values["first_ns"]
    records["duration_ns"] = values["last_ns"] - values["first_ns"]
    records["index"] = NO_INDEX
    return records
