"""The first verdict on each kill: judged at once, on the last seconds of the cgroup whose limit was hit.

The history that a trace begins with may take long to explain, and a story lasts while kills go on. The cause
follows nearly always from the counters at the kill and the seconds before it. So the rows of these seconds
and of this cgroup become a small trace in memory (/dev/shm), and a child explains it as `explain` does. The
cost does not grow with the history. All kills that come while it works are judged together.

The libraries of the child take ten times as long to load as a kill takes to judge, and they take about as
much memory as the recorder may have. So the child is started when a sample shows that little is left below a
limit, and stays for a minute after the last such sample or kill. A kill that no sample foresees waits for its
start. While a kill waits, the child gets more of a busy CPU, as the recorder does: under a quota, the
recorder would leave it a tenth.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
import pyarrow as pa

from tracer.directory import remove_left_behind
from tracer.errors import TraceError
from tracer.kernel.process.children import cpu_s, start_module
from tracer.kernel.process.priority import HeadStart
from tracer.live.countdown import Countdown
from tracer.trace.arrow_columns import integers, nullable_integers, take
from tracer.trace.history.bases import begun_at
from tracer.trace.history.history import History
from tracer.trace.meta import utc_time
from tracer.trace.write.writer import TraceWriter

_WINDOW_NS: Final = 2_000_000_000
_WITHIN_CPU_S: Final = 60.0
_IDLE_S: Final = 60.0
"""The child ends after so long without a kill, and without a sample of little memory left."""

MEMORY_BYTES: Final = 72 << 20
"""The memory of the child, as PSS: 63 MiB that it shares with nobody, and the code that it runs."""

GOOD_HISTORY_BYTES: Final = 32 << 20
"""The room for the history beside which the child is always ready, as a part of `--max-memory`."""

SCARCE_CPUS: Final = 0.5
"""A CPU quota below which the child is always ready, whatever its memory: its start would take seconds."""

_LITTLE: Final = 0.25
"""The share of a limit at which the child is started. It takes half a second."""

_MOST_PENDING: Final = 1024
_MEMORY: Final = Path("/dev/shm")
_PREFIX: Final = "memcg-tracer-kills-"
_OF_A_KILL: Final = ("oom", "oom_candidates")
_ACTORS: Final = ("tgid", "trigger_tgid")


class Victim(TypedDict):
    """The process that a kill chose."""

    pid: int
    comm: str


class JudgedKill(TypedDict):
    """The object of a kill in `watch --json`, with the meanings of `FirstVerdict`; `time` is ISO 8601."""

    time: str
    cgroup: str | None
    container: str | None
    pod: str | None
    limit_bytes: int | None
    victim: Victim
    cause: str
    summary: str


@dataclass(frozen=True, slots=True)
class FirstVerdict:
    """The cause of a kill, as far as the last seconds show it. `kill` is a row of `oom`, `place` the name of
    the cgroup whose limit was hit. `cgroup` is its path. `summary` is safe to print, the names are not."""

    kill: dict[str, Any]
    place: str
    cause: str
    summary: str
    cgroup: str | None = None
    container: str | None = None
    pod: str | None = None

    def document(self) -> JudgedKill:
        """Return the object of this kill in `watch --json`."""
        return {
            "time": utc_time({"monotonic_ns": 0, "realtime_ns": 0}, self.kill["time"]),
            "cgroup": self.cgroup,
            "container": self.container,
            "pod": self.pod,
            "limit_bytes": self.kill["limit_bytes"],
            "victim": {"pid": self.kill["pid"], "comm": self.kill["comm"]},
            "cause": self.cause,
            "summary": self.summary,
        }


class FirstVerdicts:
    """Judges kills, one child at a time. `told` is called with each verdict. What a killed `watch` left in
    memory is removed.

    With `is_kept`, the child is started at once and does not end. A kill without a verdict is dropped: the
    explanation of its trace follows. Call `look` with each batch of samples, `step` often while `is_active`,
    and `rest` now and then while `may_rest`.
    """

    def __init__(
        self, history: History, told: Callable[[FirstVerdict], object], *, is_kept: bool = False
    ) -> None:
        self._history = history
        self._told = told
        self._is_kept = is_kept
        self._cushions = Countdown()
        self._pending: list[tuple[dict[str, Any], str]] = []
        self._asked: dict[int, tuple[dict[str, Any], str]] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._ending: list[subprocess.Popen[bytes]] = []  # their exit status is not collected yet
        self._hurries_s = 0.0  # since then, the child may have a higher priority
        self._head_start: HeadStart | None = None
        self._folder: Path | None = None
        self._read = bytearray()
        self._since_s = self._started_s = 0.0
        self._since_cpu_s = self._due_s = 0.0  # of the child
        remove_left_behind(_MEMORY, _PREFIX, partial(shutil.rmtree, ignore_errors=True))
        if is_kept:
            self._prepare()

    @property
    def is_active(self) -> bool:
        """Return whether a kill waits for its verdict."""
        return bool(self._pending or self._asked)

    @property
    def may_rest(self) -> bool:
        """Return whether there is a child that ends after a while, or has just ended."""
        return (self._child is not None and not self._is_kept) or bool(self._ending)

    def look(self, samples: pa.RecordBatch) -> None:
        """Make the child ready if a sample shows that little is left below a limit. One that is kept may have
        been killed: it is replaced, at most once in `_IDLE_S`."""
        if self._is_kept and time.monotonic() - self._started_s > _IDLE_S:
            self._prepare()
        found = self._cushions.cushions_of(samples, time.monotonic_ns())
        if (found.is_known & (found.left < _LITTLE * found.limit)).any():
            self._since_s = time.monotonic()
            self._prepare()

    def add(self, kill: dict[str, Any], place: str) -> None:
        """Take a kill, whose rows are in the history by now."""
        if len(self._pending) < _MOST_PENDING:
            self._pending.append((kill, place))

    def step(self) -> None:
        """Do what can be done without waiting."""
        now_s = time.monotonic()
        if self._asked:
            self._take_answer()
            if self._asked and now_s >= self._due_s:
                self._require_end(now_s)
        if self._pending and not self._asked:
            self._since_s = now_s
            try:
                self._ask()
            except (OSError, TraceError, pa.ArrowException):  # no memory, no process: the full one follows
                self.close()

    def _require_end(self, now_s: float) -> None:
        """End a child that has taken too much CPU time. On a busy machine that takes long."""
        assert self._child is not None
        with suppress(OSError):
            left_s = _WITHIN_CPU_S + self._since_cpu_s - cpu_s(self._child.pid)
            if left_s > 0:
                self._due_s = now_s + left_s
                return
        self.close()

    def rest(self) -> None:
        """End the child if no kill came for a while, and none was near."""
        if not self.is_active and time.monotonic() - self._since_s > _IDLE_S:
            self.close()

    def close(self) -> None:
        """End the child, and forget the kills that it judges."""
        self._end_child()
        self._asked.clear()
        self._remove()

    def _remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _ask(self) -> None:
        pending, self._pending = self._pending, []
        self._asked = {kill["kill_id"]: (kill, place) for kill, place in reversed(pending)}  # first victims
        child = self._running() or self._start()
        if time.monotonic() >= self._hurries_s:
            self._head_start = HeadStart(child.pid)
        where = _MEMORY if _MEMORY.is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=where))
        _write_window(self._history, [kill for kill, _ in self._asked.values()], self._folder / "trace")
        self._since_cpu_s, self._due_s = cpu_s(child.pid), time.monotonic() + _WITHIN_CPU_S
        assert child.stdin is not None
        child.stdin.write(f"{self._folder / 'trace'}\n".encode())
        child.stdin.flush()

    # The child

    def _prepare(self) -> None:
        if self._running() is None:
            with suppress(OSError):  # no memory, no process: the next kill tries again
                self._start()

    def _running(self) -> subprocess.Popen[bytes] | None:
        if self._child is not None and self._child.poll() is not None:
            self._end_child()
        return self._child

    def _end_head_start(self) -> None:
        """Give the child its normal priority, and no higher one until its share of a CPU is a quarter: kills
        can go on for long."""
        assert self._child is not None
        if self._head_start is not None:
            self._head_start.end()
            self._head_start = None
        with suppress(OSError):
            taken_s = cpu_s(self._child.pid) - self._since_cpu_s
            self._hurries_s = time.monotonic() + 3 * taken_s

    def _start(self) -> subprocess.Popen[bytes]:
        self._started_s = time.monotonic()
        self._child = start_module(
            "tracer.watch.judging",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)
        return self._child

    def _end_child(self) -> None:
        """Let an idle child end, which nobody waits for: a recorder reports every SIGKILL, also its own. Kill
        one that judges."""
        self._read.clear()
        self._head_start = None  # without `end`: its pid may be another's soon
        if self._child is not None:
            if self._asked:
                self._child.kill()
                self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                assert pipe is not None
                with suppress(OSError):
                    pipe.close()
            self._ending.append(self._child)
            self._child = None
        self._ending = [child for child in self._ending if child.poll() is None]

    def _take_answer(self) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        with suppress(BlockingIOError):
            read = os.read(self._child.stdout.fileno(), 1 << 20)
            self._read += read
            if not read:  # it ended
                self.close()
                return
        if not self._read.endswith(b"\n"):
            return
        self._end_head_start()
        asked, self._asked = self._asked, {}
        answer = self._read.decode()
        self._read.clear()
        self._remove()
        for one in json.loads(answer):
            if (kill := asked.get(one.pop("kill_id"))) is not None:
                self._told(FirstVerdict(*kill, **one))


def _write_window(history: History, kills: Iterable[dict[str, Any]], path: Path) -> None:
    """Write the last seconds of the cgroups whose limits were hit, and of those below, as a trace."""
    kills = list(kills)
    cgroups = history.names.read("cgroups")
    ids = integers(cgroups.column("cgroup_id"))
    inside = np.isin(ids, [kill["limit_owner_cgroup_id"] or kill["cgroup_id"] for kill in kills])
    paths = np.array(cgroups.column("path").to_pylist(), object)
    tops = tuple(one.rstrip("/") + "/" for one in paths[inside])
    inside |= np.array([one.startswith(tops) for one in paths], np.bool_)
    since_ns = min(kill["time"] for kill in kills) - _WINDOW_NS
    members: list[int] = ids[inside].tolist()
    writer = TraceWriter(path, history.meta, force=False, compacts=False)
    try:
        writer.append("cgroups", begun_at(take(cgroups, np.flatnonzero(inside)), since_ns))
        for levels in history.levels(since_ns, members):
            writer.append("samples", levels)
        kill_ids, tgids = [kill["kill_id"] for kill in kills], set[int]()
        for table, batch in history.recent(since_ns):
            if table == "kernel_log":
                continue  # it has lines of earlier kills, whose rows are not here
            rows = _rows_of(table, batch, since_ns, members, kill_ids)
            if rows.num_rows:
                writer.append(table, rows)
                tgids |= _actors(rows)
        tasks = history.names.read("tasks")
        of_actors = np.isin(integers(tasks.column("tgid")), [*tgids])
        writer.append("tasks", take(tasks, np.flatnonzero(of_actors)))
    finally:
        writer.leave("continued")


def _rows_of(
    table: str, batch: pa.RecordBatch, since_ns: int, cgroup_ids: Sequence[int], kill_ids: Sequence[int]
) -> pa.RecordBatch:
    def column(name: str) -> Any:
        return nullable_integers(pa.chunked_array([batch.column(name)]), 0)

    if table in _OF_A_KILL:
        return take(batch, np.flatnonzero(np.isin(column("kill_id"), kill_ids)))
    wanted = column("time") >= since_ns
    if "cgroup_id" in batch.schema.names:
        wanted &= np.isin(column("cgroup_id"), cgroup_ids)
    return take(batch, np.flatnonzero(wanted))


def _actors(rows: pa.RecordBatch) -> set[int]:
    found = set[int]()
    for name in _ACTORS:
        if name in rows.schema.names:
            found |= set(nullable_integers(pa.chunked_array([rows.column(name)]), 0).tolist())
    return found
