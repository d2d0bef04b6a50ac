"""The data of a live view: turns incoming rows into levels, rates, decisions and the tables of a cgroup."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracer.analysis.results.memory import GrownCode
from tracer.analysis.results.sigkill import from_row
from tracer.capture.observer import Sigkilled
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.containers import shown_name
from tracer.kernel.meminfo import meminfo_bytes
from tracer.live.alarm import Alarm
from tracer.live.now import Moment, Snapshots
from tracer.live.tally import Tally
from tracer.render.words.alarm_words import alarm_sentence
from tracer.render.words.sigkill_words import in_a_line
from tracer.top.details import Details, RecentRows, Sheet, failures_in
from tracer.top.feed import KILL, LIMIT, MOST, NOTE, NOTHING, SOON, Decision
from tracer.top.files_now import FilesNow
from tracer.top.live_row import LiveRow, NowRows
from tracer.top.view_state import Machine
from tracer.trace.history.history import History
from tracer.units import size
from tracer.watch import cost, growing_code
from tracer.watch.alarms import Alarms, ids_of_removed
from tracer.watch.finishing import Finished
from tracer.watch.first_verdicts import FirstVerdict
from tracer.watch.growing_code import GrowingCode

_MOST_FILE_NAMES: Final = 2000
_SUMMED: Final = ("charge", "pagecache", "reclaim", "stalls", "oom")
"""Tables that are shown only as sums."""
_MOST_WAITING: Final = 64


class RecordingView:
    """A follower of the rows of a recording. `decided` is called with each decision.

    `directory` is the directory of traces, as it is shown to the user.
    """

    def __init__(self, hierarchy: Hierarchy, directory: Path, decided: Callable[[Decision], object]) -> None:
        self._directory = directory
        self._decided = decided
        self._tally = Tally(alarmed=self._alarmed)
        self._snapshots = Snapshots(self._tally)
        self._rows = NowRows()
        self._recent = RecentRows()
        self._alarms = Alarms(frozenset({"limit"}))  # the tally gives the alarms of near kills
        self._details = Details(self._recent, hierarchy.mount, self._file_names)
        self._growing = GrowingCode()
        self._history: History | None = None
        self._flush: Callable[[], None] = lambda: None
        self._files: dict[int, str] = {}
        self._now: Moment | None = None
        self._waiting: dict[str, list[pa.RecordBatch]] = {table: [] for table in _SUMMED}
        self._failures: list[tuple[int, Counter[int]]] = []
        self._taken_s = self._measured_s = self._cpu_s = 0.0

    # Rows in

    def join(self, history: History, flush: Callable[[], None]) -> None:
        """Take the history, which has the names of files and the clock of the rows, and a function that
        passes pending rows to `follow` at once."""
        self._history, self._flush = history, flush

    def follow(self, table: str, rows: pa.RecordBatch) -> None:
        """Take a batch of rows of any table."""
        if table in _SUMMED:
            self._waiting[table].append(rows)
            if len(self._waiting[table]) > _MOST_WAITING:
                self._sum_waiting()
        else:
            self._tally.take(table, rows)
        if table == "samples" and rows.num_rows:
            for alarm in self._alarms.take(rows, time.monotonic_ns()):
                self._alarmed(alarm)
        elif table == "reclaim" and rows.num_rows:
            self._failures.append((self.now_ns, failures_in(rows)))
        elif table == "code_samples":
            self._growing.take(rows, time.monotonic_ns())
        elif table == "cgroups":
            self._alarms.forget(ids_of_removed(rows))

    def _alarmed(self, alarm: Alarm) -> None:
        kind, sentence = LIMIT, alarm_sentence(alarm)
        if alarm.reason == "soon":
            kind, sentence = SOON, sentence + growing_code.sentence(self._grown(alarm.cgroup_id))
        self._decided(Decision(alarm.time_ns, kind, self._name_of(alarm.cgroup_id), sentence))

    def _grown(self, cgroup_id: int) -> tuple[GrownCode, ...]:
        if self._history is None:
            return ()
        return self._growing.grown(cgroup_id, self._history.names, time.monotonic_ns())

    def killed(self, kill: dict[str, Any], place: str) -> None:
        """Take an OOM kill, given as a row of `oom`, in the cgroup of that name."""
        where = "" if kill["limit_bytes"] is None else f" at a limit of {size(kill['limit_bytes'])}"
        sentence = f"OOM kill of {kill['comm']} (pid {kill['pid']}){where}"
        self._decided(Decision(kill["time"], KILL, place, sentence))

    def sigkilled(self, kills: Sequence[Sigkilled]) -> None:
        """Take SIGKILLs that were not the OOM killer's."""
        for row, place, number in kills[-MOST:]:
            kill = from_row(row, {})
            self._decided(Decision(row["time"], KILL, place, in_a_line(kill, number)))

    def judged(self, verdict: FirstVerdict) -> None:
        """Take the cause of a kill."""
        self._decided(Decision(self.now_ns, KILL, verdict.place, verdict.summary))

    def finished(self, story: Finished) -> None:
        """Take a trace that is written and explained."""
        name = shown_name(story.cgroup or "", story.container) if story.cgroup or story.container else ""
        told = story.sentence or story.error
        if story.kills and told:
            self._decided(Decision(self.now_ns, KILL, name, f"{told} ({self._directory / story.trace.name})"))
        else:
            self._decided(
                Decision(
                    self.now_ns, NOTE, "", f"the trace is complete: {self._directory / story.trace.name}"
                )
            )

    # The view

    @property
    def now_ns(self) -> int:
        """Return the time on the clock of the rows, CLOCK_REALTIME as it was at the start."""
        if self._history is None:
            return time.time_ns()
        clock = self._history.meta["clock"]
        return time.monotonic_ns() + clock["realtime_ns"] - clock["monotonic_ns"]

    def take(self) -> tuple[LiveRow, ...]:
        """Return the current rows of the cgroups. Reports reclaim that freed nothing since the last call."""
        self._flush()
        self._sum_waiting()
        self._now = moment = self._snapshots.moment(self.now_ns)
        now_s = time.monotonic()
        self._tell_of_failures()
        rows = self._rows.take(moment, now_s - self._taken_s)
        self._taken_s = now_s
        return rows

    def sheets(self, cgroup_id: int, files: FilesNow) -> tuple[Sheet, ...]:
        """Return the tables of a cgroup, whose page cache has these files; an empty tuple if it is gone."""
        moment = self._now
        now = None if moment is None else moment.get(cgroup_id)
        if moment is None or now is None:
            return ()
        self._sum_waiting()
        top = now.path.rstrip("/") + "/"
        ids = (one for one in moment.ids if moment.names(one).path.startswith(top) and one != cgroup_id)
        below = [now, *map(moment.cgroup, ids)]
        return self._details.sheets(now, below, self._grown(cgroup_id), files, time.monotonic_ns())

    def machine(self) -> Machine:
        """Return the memory of the machine, and the CPU use of this process since the last call."""
        read = meminfo_bytes()
        cpu_s, now_s = time.process_time(), time.monotonic()
        spent_s, elapsed_s = cpu_s - self._cpu_s, now_s - self._measured_s
        is_first = not self._measured_s
        self._cpu_s, self._measured_s = cpu_s, now_s
        swap, free = read.get("SwapTotal"), read.get("SwapFree")
        return Machine(
            total_bytes=read.get("MemTotal"),
            available_bytes=read.get("MemAvailable"),
            swap_bytes=None if swap is None or free is None else swap - free,
            swap_total_bytes=swap,
            own_bytes=cost.resident_bytes(),
            own_percent=None if is_first else 100 * spent_s / elapsed_s,
        )

    def _sum_waiting(self) -> None:
        """Add the waiting rows to the sums, joined into few batches, because a batch costs as much as many
        rows."""
        for table, batches in self._waiting.items():
            if batches:
                joined = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
                batches.clear()
                for rows in joined.to_batches():
                    self._tally.take(table, rows)
                    self._recent.take(table, rows, time.monotonic_ns())

    def _tell_of_failures(self) -> None:
        """Report the cgroups whose reclaim freed nothing since the last call."""
        attempts = Counter[int]()
        since_ns: dict[int, int] = {}
        for time_ns, found in self._failures:
            attempts += found
            since_ns |= {number: since_ns.get(number, time_ns) for number in found}
        self._failures.clear()
        for number, times in attempts.items():
            name = self._name_of(number)
            self._decided(Decision(self.now_ns, NOTHING, name, attempts=times, begin_ns=since_ns[number]))

    # Names

    def path_of(self, cgroup_id: int | None) -> str | None:
        """Return the path of a cgroup that exists or was removed lately; None: it is not known."""
        names = self._tally.names_of(cgroup_id) if cgroup_id else None
        return None if names is None else names.path

    def _name_of(self, cgroup_id: int | None) -> str:
        if not cgroup_id:
            return "the machine"
        if (names := self._tally.names_of(cgroup_id)) is not None:
            return shown_name(names.path, names.container, names.pod)
        assert self._history is not None
        found = self._history.names.among("cgroups", np.array([cgroup_id]))
        rows = found.select(["path", "container", "pod"]).to_pylist()
        return next((shown_name(**row) for row in rows), "a cgroup that is gone")

    def _file_names(self, inode_ids: Collection[int]) -> dict[int, str]:
        """Return inode_id -> name of the known files. Unknown files are looked up again with each call."""
        unknown = [one for one in inode_ids if one not in self._files]
        if unknown and self._history is not None:
            if len(self._files) > _MOST_FILE_NAMES:
                self._files.clear()
            found = self._history.names.among("inodes", np.array(unknown, np.int64))
            for row in found.select(["inode_id", "path", "container_path"]).to_pylist():
                if name := row["container_path"] or row["path"]:
                    self._files[row["inode_id"]] = name
        return {one: self._files[one] for one in inode_ids if one in self._files}
