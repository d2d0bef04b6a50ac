"""Rows of `mappings` and `runtimes`: the memory of the largest processes of cgroups that near their limits.

A child reads them, since a process decides how long that takes: it has the mappings, the names of their
files, and the file systems on which its files are. The recorder never waits for the child while it records,
and gives up a child that does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from tracer.kernel.anatomy.process_anatomy import ProcessAnatomy, read_process, rss_bytes
from tracer.kernel.cgroups.cgroupfs import descendants
from tracer.kernel.meminfo import meminfo_bytes
from tracer.kernel.process.asked_child import AskedChild
from tracer.live.approach import AGAIN_IF_HALF_NS, Approach
from tracer.schema import TABLES, value_range
from tracer.stored_names import stored_name

MOST_PROCESSES: Final = 3
"""The processes of a cgroup that one look reads, the largest first."""

MOST_SHARE: Final = 0.02
"""The share of one CPU that all looks together may take, beside `AT_ONCE_S`."""

AT_ONCE_S: Final = 0.2
"""The CPU time that looks may take at once: a process that fills its limit fast needs a second look soon."""

AGAIN_S: Final = AGAIN_IF_HALF_NS / 1e9
"""The least time between two looks at a process."""

_LEAST_VALUE, _MOST_VALUE = value_range("runtimes", TABLES["runtimes"].field("value")) or (0, 0)
"""A number beyond them is left out: the process may claim anything, and the trace would not be read."""

_LEAST_RSS_BYTES: Final = 1 << 20
_SWAP_AGAIN_S: Final = 1.0
_IDLE_S: Final = 60.0  # then the child ends, which has memory of its own
_ANSWERS_WITHIN_S: Final = 10.0
_MOST_FAILURES: Final = 3
_MOST_CGROUPS: Final = 256
_MOST_TGIDS: Final = 2048
_MOST_PROCS_BYTES: Final = 1 << 16
_MOST_NAME: Final = 256
_MOST_TEXT: Final = 1024
_STATES_KEPT: Final = 4096

Tables = dict[str, list[dict[str, Any]]]


class MappingRows:
    """Looks at the processes of cgroups whose samples show that the end is near (`live.approach`).

    `directory_of` returns the directory of a cgroup, or None if it is no longer sampled. `warn` is called if
    the child had to be given up too often; from then on there are no more looks.
    """

    def __init__(self, directory_of: Callable[[int], Path | None], warn: Callable[[str], None]) -> None:
        self._directory_of = directory_of
        self._warn = warn
        self._approach = Approach()
        self._reader: AskedChild | None = None
        self._failures = 0
        self._waiting: dict[int, None] = {}  # cgroups to look at, the most urgent first
        self._rests_until_s = 0.0
        self._swap_bytes, self._swap_read_s = 0, -_SWAP_AGAIN_S

    @property
    def has_child(self) -> bool:
        """Return whether there is a child, which `take` ends after a while without work."""
        return self._reader is not None

    def look(self, samples: pa.RecordBatch) -> None:
        """Take samples, and begin the looks that are due."""
        if time.monotonic() - self._swap_read_s > _SWAP_AGAIN_S:
            self._swap_bytes, self._swap_read_s = meminfo_bytes().get("SwapFree", 0), time.monotonic()
        due = self._approach.take(samples, self._swap_bytes)
        self._waiting = dict.fromkeys([*due, *self._waiting])
        if len(self._approach.states) > _STATES_KEPT:
            known = self._approach.states.copy_places()
            self._approach.forget([number for number in known if self._directory_of(number) is None])

    def take(self, clock_offset_ns: int) -> Tables:
        """Return the rows of the looks that have ended, by table, and begin the next look."""
        tables: Tables = {"mappings": [], "runtimes": []}
        if self._reader is not None and self._reader.is_busy:
            for answer in self._reader.answers():
                _add_rows(tables, answer, clock_offset_ns)
            if not self._reader.is_busy:
                paid_s = max(self._rests_until_s, time.monotonic() - AT_ONCE_S / MOST_SHARE)
                self._rests_until_s = paid_s + self._reader.cpu_s / MOST_SHARE
            elif self._reader.has_failed:
                self._give_up()
        elif not self._waiting and time.monotonic() - self._rests_until_s > _IDLE_S:
            self.close()
        self._begin()
        return tables

    def finish(self, clock_offset_ns: int, within_s: float) -> Tables:
        """Return what `take` does, for all looks that were due; wait at most so long."""
        until_s = time.monotonic() + within_s
        tables: Tables = {"mappings": [], "runtimes": []}
        self._rests_until_s = 0.0
        while time.monotonic() < until_s:
            for table, rows in self.take(clock_offset_ns).items():
                tables[table] += rows
            if self._reader is None or not self._reader.is_busy:
                break
            self._reader.wait(until_s - time.monotonic())
        return tables

    def close(self) -> None:
        """End the child."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _begin(self) -> None:
        if self._failures >= _MOST_FAILURES or time.monotonic() < self._rests_until_s:
            return
        if self._reader is not None and self._reader.is_busy:
            return
        while self._waiting:
            cgroup_id = next(iter(self._waiting))
            del self._waiting[cgroup_id]
            directory = self._directory_of(cgroup_id)
            if directory is not None:
                self._reader = self._reader or AskedChild(
                    partial(_read, read_s={}), within_s=_ANSWERS_WITHIN_S, is_urgent=True
                )  # urgent: a process that grows fast is killed within a moment
                self._reader.ask([cgroup_id, str(directory)])
                return

    def _give_up(self) -> None:
        self.close()
        self._failures += 1
        if self._failures == _MOST_FAILURES:
            self._warn("the mappings of processes are no longer read: reading them took too long")


def _add_rows(tables: Tables, answer: dict[str, Any], clock_offset_ns: int) -> None:
    common = {
        "time": answer["time_ns"] + clock_offset_ns,
        "cgroup_id": answer["cgroup_id"],
        "tgid": answer["tgid"],
    }
    tables["mappings"] += [common | group for group in answer["groups"]]
    tables["runtimes"] += [common | shown for shown in answer["runtimes"]]


def _read(request: list[Any], read_s: dict[int, float]) -> Iterator[dict[str, Any]]:
    """Yield an answer for each process that is read, in the child. `read_s`: process -> when it was read."""
    cgroup_id, directory = request
    for anatomy in _largest(Path(directory), read_s):
        yield _answer(cgroup_id, anatomy)


def _largest(directory: Path, read_s: dict[int, float]) -> Iterator[ProcessAnatomy]:
    """Yield the largest processes of a cgroup, without those that were read a moment ago."""
    now_s = time.monotonic()
    for tgid in [tgid for tgid, at_s in read_s.items() if now_s - at_s >= AGAIN_S]:
        del read_s[tgid]
    sizes = {tgid: rss_bytes(tgid) for tgid in _tgids(directory)}
    largest = sorted(sizes, key=lambda tgid: -sizes[tgid])[:MOST_PROCESSES]
    for tgid in largest:
        if sizes[tgid] < _LEAST_RSS_BYTES or tgid in read_s:
            continue
        read_s[tgid] = time.monotonic()
        if (anatomy := read_process(tgid)) is not None:
            yield anatomy


def _tgids(directory: Path) -> set[int]:
    """Return processes of a cgroup and of those below it, as many as the bounds allow."""
    found: set[int] = set()
    for below in islice(descendants(directory), _MOST_CGROUPS):
        if len(found) >= _MOST_TGIDS:
            break
        with suppress(OSError), open(below / "cgroup.procs", "rb", buffering=0) as stream:  # noqa: PTH123
            found.update(map(int, stream.read(_MOST_PROCS_BYTES).split()))
    found.discard(0)  # of another pid namespace
    return set(islice(found, _MOST_TGIDS))


def _answer(cgroup_id: int, anatomy: ProcessAnatomy) -> dict[str, Any]:
    groups = [asdict(group) | {"name": stored_name(group.name)[:_MOST_NAME]} for group in anatomy.groups]
    return {
        "cgroup_id": cgroup_id,
        "time_ns": anatomy.time_ns,
        "tgid": anatomy.tgid,
        "groups": groups,
        "runtimes": [
            shown._asdict() | {"text": _text(shown.text)}
            for shown in anatomy.runtimes
            if shown.value is None or _LEAST_VALUE <= shown.value <= _MOST_VALUE
        ],
    }


def _text(text: str | None) -> str | None:
    return None if text is None else stored_name(text.encode(errors="backslashreplace"))[:_MOST_TEXT]
