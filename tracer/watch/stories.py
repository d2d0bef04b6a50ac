"""Stories: traces that begin with the history when a trigger comes, and grow until it is quiet.

A story's trace appears in the directory with its whole history: the history is written under another name,
synchronised, and the trace is renamed. A kill soon after another kill belongs to the same story. A story ends
when it is as long as the history. If the kills go on, the next story begins where the last one ended, so that
a crash loop is not stored many times.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa

from tracer.errors import TraceError
from tracer.trace.arrow_columns import integers, shifted
from tracer.trace.history.history import History
from tracer.trace.meta import Meta, read_clocks, utc_time
from tracer.trace.recording_ends import CONTINUED, QUIET, WRITE_FAILED
from tracer.trace.row_sink import Rows
from tracer.trace.write.writer import TraceWriter
from tracer.watch.finishing import Finishing, Told
from tracer.watch.place import Place, name_of

KILL: Final = "kill"
REQUEST: Final = "request"
"""The reasons other than alarms: an OOM kill, and SIGUSR1."""

QUIET_S: Final = 5.0
"""The time without a trigger after which a story ends."""

LOOP_QUIET_S: Final = 30.0
_SOON_AGAIN_S: Final = 60.0
"""A story with a kill that begins so soon after another is likely part of a crash loop. It waits
`LOOP_QUIET_S` for the next kill: else each kill of a slow loop would leave a trace with all the minutes
before it."""

_MOST_BYTES: Final = 64 << 20
_UNFLUSHED_BYTES: Final = 1 << 20
_HELD_BYTES: Final = 4 << 20
_LEAST_STEP_NS: Final = 1_000_000  # a smaller step of a clock may be an error of reading two clocks
_FAILS_S: Final = 3.0
"""A story that cannot be written for so long ends. The history keeps its rows for another story."""
_UNSAFE_S: Final = 2.0  # the rows of a kill reach the story within this time after the trigger
_RETRY_S: Final = 1.0
"""The time between two attempts to begin a story. While many cgroups come and go, the history may hold only
10 s. With longer pauses, kills in the last seconds of a full disk would be lost."""


@dataclass(frozen=True)
class Trigger:
    """A moment at which `watch` writes a trace. `time_ns` is CLOCK_REALTIME by the clock pair of the history.

    `cgroup_id` is the cgroup whose limit is concerned; None: the machine, or no cgroup. `kills` are the ids
    of the OOM decisions. `sentence` describes an alarm, without the cgroup's name.
    """

    reason: str
    time_ns: int
    cgroup_id: int | None = None
    kills: frozenset[int] = frozenset()
    sentence: str | None = None


@dataclass
class _Story(Rows):
    """A trace that grows. Times are CLOCK_MONOTONIC.

    `shift_ns` is the offset of the trace's clock pair minus the offset of the history's clock pair. `first`
    is the trigger after which the trace is named: the first kill, if there is one. `subject` is the
    `_subject` of the trigger's cgroup.
    """

    writer: TraceWriter
    path: Path
    first: Trigger
    subject: tuple[str, str | None] | None
    shift_ns: int
    quiet_s: float
    began_s: float
    last_s: float
    kills: frozenset[int]
    unflushed_bytes: int = 0
    has_begun: bool = False

    @property
    def is_written(self) -> bool:
        """Return whether no row waits to be written, and no row of a kill was lost while rows waited."""
        return self.writer.is_written and not self.writer.lost["oom"]

    def append(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        """Add rows of the history. Raises TraceError if the story cannot begin with them."""
        batches = batch.to_batches() if isinstance(batch, pa.Table) else [batch]
        for one in batches:
            self.writer.append(table, shifted(one, self.shift_ns) if self.shift_ns else one)
            self.unflushed_bytes += one.nbytes
        if self.unflushed_bytes > _UNFLUSHED_BYTES:
            self.flush()
            if not self.has_begun:
                self.writer.require_written()  # fail early: attempts must stay cheap while a disk is full

    def flush(self) -> None:
        """Write all rows, so that they survive this process; before, the writer keeps them in memory."""
        self.writer.flush()
        self.unflushed_bytes = 0


class Stories:
    """The story that is being written, if any, and the triggers that wait for a story to begin.

    `closing_facts` returns the facts about the recording that meta.json gets when a trace ends. `warn` is
    called with a line when a trace cannot be written. `begun` is called with the path of each trace that has
    begun, and with its new path if a kill renames it, `ended` with that of each trace that grows no more.
    """

    def __init__(
        self,
        history: History,
        place: Place,
        finishing: Finishing,
        *,
        closing_facts: Callable[[], dict[str, Any]],
        warn: Callable[[str], None],
        begun: Callable[[Path], object] = lambda _: None,
        ended: Callable[[Path], object] = lambda _: None,
    ) -> None:
        self._history = history
        self._place = place
        self._finishing = finishing
        self._closing_facts = closing_facts
        self._warn = warn
        self._begun = begun
        self._ended = ended
        self._story: _Story | None = None
        self._waiting: list[Trigger] = []
        self._failed = 0  # failed attempts to begin the story
        self._lost_kills = 0  # during these attempts
        self._retry_s = 0.0
        self._mark = 0  # the mark of the history where the last story ended, for a story that continues it
        self._mark_until_s = 0.0
        self._ended_s = -math.inf
        self._written_s = 0.0  # when all rows of the story were on the disk
        self._unsafe: list[tuple[float, Trigger]] = []  # (time, trigger) whose rows may not be on the disk

    @property
    def in_use(self) -> list[Path]:
        """Return the trace that is being written."""
        return [] if self._story is None else [self._story.path]

    @property
    def is_active(self) -> bool:
        """Return whether a story goes on, or is to begin: `step` has something to do."""
        return self._story is not None or bool(self._waiting)

    def name_of(self, cgroup_id: int | None) -> str | None:
        """Return the container of a cgroup, else its path; None: the cgroup is not known."""
        subject = self._subject(cgroup_id)
        return subject and (subject[1] or subject[0])

    def trigger(self, triggers: Sequence[Trigger]) -> None:
        """Begin a story with the next `step`, or extend the current one."""
        if self._story is None:
            self._waiting += triggers
            return
        for one in triggers:
            self._story.last_s = time.monotonic()
            if one.kills and not self._story.kills:
                self._tell_as(self._story, one)
                self._story.quiet_s = self._quiet_s(self._story.began_s)
            self._story.kills |= one.kills
            self._unsafe.append((self._story.last_s, one))

    def step(self) -> None:
        """Begin a story, or end it when it is quiet, too long, or cannot be written."""
        now_s = time.monotonic()
        if self._waiting and now_s >= self._retry_s:
            if self._failed:
                self._give_up_old()
            if self._waiting:
                self._begin(now_s)
        story = self._story
        if story is None:
            return
        if now_s - story.last_s > story.quiet_s:
            self._end(QUIET)
        elif not story.is_written and now_s - self._written_s > _FAILS_S:
            self._end(WRITE_FAILED)
        elif now_s - story.began_s > self._history.keep_ns / 1e9 or story.writer.size_bytes > _MOST_BYTES:
            mark, until_s = self._history.mark(), story.last_s + story.quiet_s
            if self._end(CONTINUED):
                self._mark, self._mark_until_s = mark, until_s

    def flush(self) -> None:
        """Write the rows of the story, so that they survive this process."""
        if self._story is None:
            return
        self._story.flush()
        if self._story.is_written:
            self._written_s = time.monotonic()
            self._unsafe = [(at_s, one) for at_s, one in self._unsafe if at_s > self._written_s - _UNSAFE_S]

    def close(self, end_reason: str) -> None:
        """Begin the waiting story if possible, and end the current one: the recording has ended."""
        if self._waiting:
            self._begin(time.monotonic())
        if self._story is not None:
            self._end(end_reason)
        if lost := self._lost_kills + sum(len(one.kills) for one in self._waiting):
            self._warn(f"{_kills(lost)} lost: no trace could be written to {self._place.path}")

    def _begin(self, now_s: float) -> None:
        """Write the history as a new trace, which then grows. On failure, a later `step` tries again."""
        first = next((one for one in self._waiting if one.kills), self._waiting[0])
        unfinished = writer = None
        try:
            story_meta, shift_ns = self._meta()
            subject = self._subject(first.cgroup_id)
            name = name_of(first.time_ns + shift_ns, first.reason, _last_name(subject))
            unfinished = self._place.begin(name)
            writer = TraceWriter(
                unfinished,
                story_meta,
                force=False,
                warn=self._warn_of_story,
                compacts=False,
                held_bytes=_HELD_BYTES,
            )
            kills = frozenset[int]().union(*(one.kills for one in self._waiting))
            quiet_s = self._quiet_s(now_s) if kills else QUIET_S
            story = _Story(writer, unfinished, first, subject, shift_ns, quiet_s, now_s, now_s, kills)
            since = self._mark if now_s < self._mark_until_s else 0
            self._tell_history(story, since)
            story.flush()
            writer.require_written()
            story.path = writer.path = self._place.publish(unfinished)
            story.has_begun = True
        except (OSError, TraceError) as error:
            self._give_up(writer, unfinished, error)
            return
        if self._failed:
            lost = f"; {_kills(self._lost_kills)} lost" if self._lost_kills else ""
            self._warn(f"traces can be written again to {self._place.path}{lost}")
        self._written_s, self._unsafe = time.monotonic(), [(now_s, one) for one in self._waiting]
        self._failed, self._lost_kills, self._waiting, self._story = 0, 0, [], story
        self._history.followers.append(story.append)
        self._begun(story.path)

    def _quiet_s(self, began_s: float) -> float:
        """Return the time without a trigger after which a story with a kill ends."""
        return LOOP_QUIET_S if began_s - self._ended_s < _SOON_AGAIN_S else QUIET_S

    def _tell_history(self, story: _Story, since: int) -> None:
        """Write the history to the trace of a story, and its times to meta.json."""
        now_ns = time.monotonic_ns() + _offset_ns(self._history.meta)
        fineness = self._history.fineness(since)
        begin_ns = self._history.replay(story, now_ns, since)
        if fineness and fineness[-1]["every_ms"]:
            fineness.append({"begin_ns": now_ns, "every_ms": 0})  # rows from now on are not thinned
        meta = story.writer.meta
        offset_ns = _offset_ns(self._history.meta)
        meta["started"] = utc_time(meta["clock"], begin_ns - offset_ns)
        meta["history"] = {
            "keep_s": self._history.keep_ns / 1e9,
            "reason": story.first.reason,
            "fineness": [
                {"begin": utc_time(meta["clock"], one["begin_ns"] - offset_ns), "every_ms": one["every_ms"]}
                for one in fineness
            ],
        }
        story.writer.write_meta()

    def _tell_as(self, story: _Story, kill: Trigger) -> None:
        """Name a story after its first kill, which came after an alarm or a request."""
        story.first, story.subject = kill, self._subject(kill.cgroup_id)
        story.writer.meta["history"]["reason"] = kill.reason
        with suppress(OSError):  # the old name is also valid
            story.path = story.writer.path = self._place.rename(
                story.path, name_of(kill.time_ns + story.shift_ns, kill.reason, _last_name(story.subject))
            )
            self._begun(story.path)

    def _warn_of_story(self, message: str) -> None:
        """Pass on a warning of the writer, unless the story has not begun: these would come each second."""
        if self._story is not None:
            self._warn(message)

    def _give_up_old(self) -> None:
        """Drop waiting triggers that are older than the history: no trace can show them any more."""
        begin_ns = self._history.begin_ns
        if begin_ns is not None:
            self._lost_kills += sum(len(one.kills) for one in self._waiting if one.time_ns < begin_ns)
            self._waiting = [one for one in self._waiting if one.time_ns >= begin_ns]

    def _give_up(self, writer: TraceWriter | None, unfinished: Path | None, error: Exception) -> None:
        """Remove the unfinished trace, and set the time of the next attempt."""
        if writer is not None:
            with suppress(OSError, TraceError):
                writer.leave("failed")
        if unfinished is not None:
            with suppress(OSError, TraceError):
                self._place.discard(unfinished)
        if not self._failed:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._warn(
                f"a trace for {self._waiting[0].reason} cannot be written to {self._place.path} "
                f"({reason}): it is tried again while the history lasts"
            )
        self._retry_s = time.monotonic() + _RETRY_S
        self._failed += 1

    def _end(self, end_reason: str) -> bool:
        """End the story and queue its trace for completion. Return whether all rows are written.

        If not, its last triggers wait for another story, which begins with the history.
        """
        assert self._story is not None
        story, self._story = self._story, None
        if story.kills:
            self._ended_s = time.monotonic()
        self._history.followers.remove(story.append)
        try:
            story.writer.leave(end_reason, **self._closing_facts())
            is_written = story.is_written
        except TraceError as error:
            self._warn(str(error))
            is_written = False
        if not is_written:
            self._waiting = [one for _, one in self._unsafe]
            self._mark_until_s = -math.inf
        time_ns = story.first.time_ns + story.shift_ns
        first, (path, container) = story.first, story.subject or (None, None)
        kills = len(story.kills)
        self._ended(story.path)
        self._finishing.add(Told(story.path, first.reason, time_ns, path, kills, container, first.sentence))
        return is_written

    def _meta(self) -> tuple[Meta, int]:
        """Return the metadata of a trace that begins now, with the current clock pair, and its `shift_ns`.

        The shift is not 0 if a clock was set or the machine was suspended since the history began.
        """
        kept = self._history.meta
        clock = read_clocks()
        shift_ns = clock["realtime_ns"] - clock["monotonic_ns"] - _offset_ns(kept)
        if abs(shift_ns) < _LEAST_STEP_NS:
            clock, shift_ns = kept["clock"], 0
        return cast(Meta, {**kept, "clock": clock}), shift_ns

    def _subject(self, cgroup_id: int | None) -> tuple[str, str | None] | None:
        """Return (path, container or None) of a cgroup; None: the cgroup is not known."""
        names = self._history.names.read("cgroups")
        places = np.flatnonzero(integers(names.column("cgroup_id")) == (cgroup_id or 0))
        if not len(places):
            return None
        row = names.select(["path", "container"]).slice(int(places[0]), 1).to_pylist()[0]
        return row["path"], row["container"]


def kills_of(rows: Sequence[dict[str, Any]]) -> list[Trigger]:
    """Return a trigger for each OOM decision of these rows of `oom`."""
    found: dict[int, Trigger] = {}
    for row in rows:
        found.setdefault(
            row["kill_id"],
            Trigger(
                KILL,
                row["time"],
                row["limit_owner_cgroup_id"] or row["cgroup_id"],
                frozenset([row["kill_id"]]),
            ),
        )
    return list(found.values())


def _last_name(subject: tuple[str, str | None] | None) -> str:
    """Return the container's name, else the last name of the cgroup's path."""
    if subject is None:
        return "machine"
    path, container = subject
    return container or path.rstrip("/").rpartition("/")[2] or "root"


def _kills(number: int) -> str:
    return "1 kill is" if number == 1 else f"{number:,} kills are"


def _offset_ns(meta: Meta) -> int:
    return meta["clock"]["realtime_ns"] - meta["clock"]["monotonic_ns"]
