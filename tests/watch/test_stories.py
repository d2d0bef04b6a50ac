"""Stories: which triggers become one trace, what the traces have, and what a full disk costs."""

from __future__ import annotations

import gc
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pyarrow as pa
import pytest
from support.full_disk import files_limited_to
from synthetic.cgroup_worlds import S, cgroup, charge, table
from synthetic.unset import unset_row

from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.history.history import History
from tracer.trace.meta import Meta, begin, read_meta
from tracer.trace.read.reader import Trace
from tracer.trace.recording_ends import CONTINUED, QUIET
from tracer.trace.write.writer import TraceWriter
from tracer.watch import stories
from tracer.watch.finishing import Told
from tracer.watch.place import Place
from tracer.watch.stories import LOOP_QUIET_S, QUIET_S, REQUEST, Stories, Trigger, kills_of

NOON_NS: Final = 1_795_694_400 * S  # 2026-11-26T12:00:00Z
LONG_S: Final = 1000.0


class Recording:
    """Stories of a recording whose clock stands until `pass_time`. A cgroup is charged once a second."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch, keep_s: int = 100) -> None:
        self.place = place
        self.now_s = LONG_S
        self.step_ns = 0  # how far CLOCK_REALTIME was set
        meta: Meta = begin(command_line=["memcg-tracer", "watch"], cgroup_version=2, filters={}, probes={})
        meta["clock"] = {"monotonic_ns": 0, "realtime_ns": NOON_NS}
        self.history = History(meta, keep_ns=keep_s * S, most_bytes=1 << 40)
        self.told: list[Told] = []
        self.warnings: list[str] = []
        self.begun: list[Path] = []
        monkeypatch.setattr(
            stories,
            "time",
            SimpleNamespace(monotonic=lambda: self.now_s, monotonic_ns=lambda: self.monotonic_ns),
        )
        monkeypatch.setattr(
            stories,
            "read_clocks",
            lambda: {"monotonic_ns": self.monotonic_ns, "realtime_ns": self.now_ns + self.step_ns},
        )
        finishing: Any = SimpleNamespace(add=self.told.append)
        self.stories = Stories(
            self.history,
            place,
            finishing,
            closing_facts=lambda: {"cost": {}},
            warn=self.warnings.append,
            begun=self.begun.append,
        )
        known = {"path": "/docker/4f2a", "container": "web"}
        self.history.append("cgroups", table("cgroups", [cgroup(7, None, 0) | known]))

    @property
    def monotonic_ns(self) -> int:
        return round(self.now_s * S)

    @property
    def now_ns(self) -> int:
        return NOON_NS + self.monotonic_ns

    def pass_time(self, seconds: float) -> None:
        """Let time pass in steps of a second or less."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(self.now_s + 1, end_s)
            row = charge(0, 7, "anon", 4096) | {"time": self.now_ns}
            self.history.append("charge", table("charge", [row]))
            self.history.age(self.now_ns)
            self.stories.step()
        self.stories.flush()

    def kill(self, number: int) -> None:
        row = unset_row("oom") | {"kill_id": number, "limit_owner_cgroup_id": 7, "cgroup_id": 7}
        row |= {"time": self.now_ns, "ktime_ns": self.monotonic_ns, "constraint": "memcg"}
        self.history.append("oom", pa.Table.from_pylist([row], schema=TABLES["oom"]))
        self.stories.trigger(kills_of([row]))
        self.stories.step()

    @property
    def traces(self) -> list[Path]:
        return sorted(path for path in self.place.path.iterdir() if not path.name.startswith("."))


def kills_in(trace: Path) -> list[int]:
    kills: list[int] = Trace(trace).table("oom", ["kill_id"])["kill_id"].to_pylist()
    return kills


def times_in(trace: Path, name: str = "charge", column: str = "time") -> list[int]:
    times: list[int] = Trace(trace).table(name, [column])[column].cast(pa.int64()).to_pylist()
    return times


@pytest.fixture
def record(open_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recording]:
    return lambda **options: Recording(open_place(), monkeypatch, **options)


def test_trace_of_a_kill_has_the_time_before_it_at_once_and_grows(record: Callable[..., Recording]) -> None:
    recording = record()
    recording.pass_time(50)
    recording.kill(1)
    (trace,) = recording.traces
    assert trace.name == "20261126T121730Z-kill-web"
    assert kills_in(trace) == [1]
    assert len(times_in(trace)) == 50
    assert recording.stories.in_use == recording.begun == [trace]
    recording.pass_time(3)
    assert len(times_in(trace)) == 53
    meta = read_meta(trace)
    assert (meta["end_reason"], meta["started"][:19]) == (None, "2026-11-26T12:16:41")
    assert meta["history"]["reason"] == "kill"
    assert recording.told == []


def test_story_ends_when_it_is_quiet(record: Callable[..., Recording]) -> None:
    recording = record()
    recording.pass_time(5)
    killed_ns = recording.now_ns
    recording.kill(1)
    recording.pass_time(QUIET_S)
    assert recording.stories.is_active
    recording.pass_time(0.1)
    assert not recording.stories.is_active
    (trace,) = recording.traces
    assert recording.told == [Told(trace, "kill", killed_ns, "/docker/4f2a", 1, "web")]
    assert read_meta(trace)["end_reason"] == QUIET
    assert (trace / layout.JOURNAL).is_dir(), "a child turns them into Parquet"
    recording.pass_time(20)
    assert max(times_in(trace)) <= killed_ns + (QUIET_S + 1) * S


def test_kills_that_follow_each_other_are_one_story(record: Callable[..., Recording]) -> None:
    recording = record()
    for number in range(1, 5):
        recording.kill(number)
        recording.pass_time(QUIET_S - 1)
    recording.pass_time(2)
    (trace,) = recording.traces
    assert kills_in(trace) == [1, 2, 3, 4]
    assert [told.kills for told in recording.told] == [4]


def test_second_story_of_a_loop_waits_longer(record: Callable[..., Recording]) -> None:
    recording = record()
    recording.kill(1)
    recording.pass_time(QUIET_S + 5)
    for number in (2, 3):
        recording.kill(number)
        recording.pass_time(LOOP_QUIET_S - 1)
    recording.pass_time(2)
    assert [told.kills for told in recording.told] == [1, 2]
    assert [kills_in(told.trace) for told in recording.told] == [[1], [1, 2, 3]]


def test_alarm_before_a_kill_becomes_the_story_of_the_kill(record: Callable[..., Recording]) -> None:
    recording = record()
    recording.stories.trigger([Trigger("limit", recording.now_ns, 7, sentence="at its limit")])
    recording.stories.step()
    (begun,) = recording.traces
    assert begun.name.endswith("-limit-web")
    recording.pass_time(2)
    recording.kill(1)
    recording.pass_time(QUIET_S + 1)
    (told,) = recording.told
    assert (told.reason, told.kills, told.container) == ("kill", 1, "web")
    assert [told.trace] == recording.traces
    assert told.trace.name.endswith("-kill-web")
    assert recording.begun == [begun, told.trace]


def test_loop_whose_kills_have_alarms_before_waits_longer(record: Callable[..., Recording]) -> None:
    recording = record()
    recording.kill(1)
    recording.pass_time(QUIET_S + 1)
    for number in (2, 3):
        recording.stories.trigger([Trigger("soon", recording.now_ns, 7, sentence="used up soon")])
        recording.pass_time(2)
        recording.kill(number)
        recording.pass_time(LOOP_QUIET_S - 3)
    recording.pass_time(4)
    assert [told.kills for told in recording.told] == [1, 2]


@pytest.mark.parametrize("every_s", [0.5, 2, 7])
def test_long_loop_has_each_kill_and_row_in_one_trace(
    record: Callable[..., Recording], every_s: float
) -> None:
    recording = record(keep_s=20)
    recording.pass_time(10)
    for number in range(1, 60):
        recording.kill(number)
        recording.pass_time(every_s)
    recording.pass_time(LOOP_QUIET_S + 1)
    assert Counter(kill for told in recording.told for kill in kills_in(told.trace)).keys() >= {*range(1, 60)}
    ends = [read_meta(told.trace)["end_reason"] for told in recording.told]
    assert {*ends[:-1]} <= {QUIET, CONTINUED}
    assert CONTINUED in ends
    for before, after in zip(recording.told, recording.told[1:], strict=False):
        if read_meta(before.trace)["end_reason"] == CONTINUED:
            assert min(times_in(after.trace)) > max(times_in(before.trace)), "no row is in both"
            assert min(times_in(after.trace)) - max(times_in(before.trace)) < 2 * S, "none is between them"
            assert not {*kills_in(before.trace)} & {*kills_in(after.trace)}


@pytest.mark.parametrize("size_bytes", [0, 2_000])
def test_kills_while_the_disk_is_full_are_in_the_trace_that_can_be_written(
    record: Callable[..., Recording], size_bytes: int
) -> None:
    recording = record()
    recording.pass_time(10)
    gc.collect()  # the files of recordings of earlier tests
    with files_limited_to(size_bytes):
        recording.kill(1)
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        recording.pass_time(30)
        assert list(recording.place.path.iterdir()) == [], "nothing half-written is left"
        assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208
        recording.kill(2)
        recording.pass_time(15)
    assert recording.stories.is_active
    assert recording.traces == []
    recording.pass_time(16)
    (trace,) = recording.traces
    assert kills_in(trace) == [1, 2]
    first, last = recording.warnings
    assert "a trace for kill cannot be written" in first
    assert "it is tried again" in first
    assert last == f"traces can be written again to {recording.place.path}"
    recording.pass_time(QUIET_S + 1)
    assert [told.kills for told in recording.told] == [2]


def test_kills_that_the_history_does_not_reach_are_counted_as_lost(record: Callable[..., Recording]) -> None:
    """A later trace tells only of kills that it has."""
    recording = record(keep_s=100)
    recording.pass_time(10)
    with files_limited_to(0):
        recording.kill(1)
        recording.pass_time(200)
        recording.kill(2)
        recording.pass_time(15)
    recording.pass_time(16)
    (trace,) = recording.traces
    assert kills_in(trace) == [2]
    assert recording.warnings[-1].endswith("; 1 kill is lost")
    recording.pass_time(QUIET_S + 1)
    assert [told.kills for told in recording.told] == [1]


@pytest.mark.parametrize("full_s", range(1, 40, 2))
def test_kill_of_the_last_seconds_of_a_full_disk_is_in_a_trace_however_long_it_was_full(
    record: Callable[..., Recording], full_s: int
) -> None:
    """The history has no more than 10 s, as while cgroups come and go, and a kill comes each second."""
    recording = record(keep_s=10)
    recording.pass_time(10)
    with files_limited_to(0):
        for number in range(full_s):
            recording.kill(number)
            recording.pass_time(1)
    recording.pass_time(2)
    recording.stories.close("SIGTERM")
    kept = {kill for trace in recording.traces for kill in kills_in(trace)}
    assert kept >= {*range(max(full_s - 8, 0), full_s)}
    lost = re.findall(r"; (\d+) kills? (?:is|are) lost", recording.warnings[-1])
    assert sum(map(int, lost)) == full_s - len(kept)


def test_attempt_to_begin_on_a_full_disk_does_not_read_all_of_the_history(
    record: Callable[..., Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One comes each second, for as long as kills wait."""
    recording = record()
    rows = 20_000
    charges = table("charge", [charge(0, 7, "anon", 4096) | {"time": recording.now_ns}] * rows)
    for _ in range(50):
        recording.history.append("charge", charges)
    given: Counter[str] = Counter()
    append = TraceWriter.append

    def count(writer: TraceWriter, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        given[table] += batch.num_rows
        append(writer, table, batch)

    monkeypatch.setattr(TraceWriter, "append", count)
    with files_limited_to(100_000):
        recording.kill(1)
    assert 0 < given["charge"] <= 5 * rows
    recording.pass_time(2)
    assert given["charge"] > 50 * rows


def test_kill_that_left_the_history_gets_no_trace_without_it(record: Callable[..., Recording]) -> None:
    recording = record(keep_s=100)
    recording.pass_time(10)
    with files_limited_to(0):
        recording.kill(1)
        recording.pass_time(200)
    recording.pass_time(60)
    assert (recording.traces, recording.stories.is_active) == ([], False)
    recording.stories.close("SIGTERM")
    assert recording.warnings[-1] == (f"1 kill is lost: no trace could be written to {recording.place.path}")


def test_end_while_the_disk_is_full_says_what_is_lost(record: Callable[..., Recording]) -> None:
    recording = record()
    with files_limited_to(0):
        recording.kill(1)
        recording.kill(2)
        recording.stories.close("SIGTERM")
    assert recording.warnings[-1] == f"2 kills are lost: no trace could be written to {recording.place.path}"
    assert recording.told == []


def test_end_of_the_recording_ends_the_story(record: Callable[..., Recording]) -> None:
    recording = record()
    recording.pass_time(3)
    recording.stories.trigger([Trigger(REQUEST, recording.now_ns)])
    recording.stories.close("SIGTERM")
    (told,) = recording.told
    assert told.trace.name.endswith("-request-machine")
    assert read_meta(told.trace)["end_reason"] == "SIGTERM"
    assert len(times_in(told.trace)) == 3
    assert recording.warnings == []


def test_times_are_those_of_the_clock_when_the_trace_begins(record: Callable[..., Recording]) -> None:
    """The clock was set an hour ahead since the history began; the rows of sums are also moved."""
    recording = record(keep_s=400)
    run = unset_row("pagecache") | {"op": "add", "cause": "read", "time": recording.now_ns, "cgroup_id": 7}
    recording.history.append("pagecache", pa.Table.from_pylist([run], schema=TABLES["pagecache"]))
    recording.pass_time(250)
    recording.step_ns = 3600 * S
    recording.kill(1)
    killed_ns = recording.now_ns + recording.step_ns
    recording.pass_time(QUIET_S + 1)
    (told,) = recording.told
    assert told.time_ns == killed_ns
    assert told.trace.name.startswith("20261126T132050Z-")
    assert times_in(told.trace, "oom") == [killed_ns]
    summed = times_in(told.trace, "summed", "begin")
    assert summed == times_in(told.trace, "pagecache") == [NOON_NS + (3600 + 1000) * S]
    assert min(times_in(told.trace)) >= NOON_NS + (3600 + 1000) * S
    meta = read_meta(told.trace)
    assert meta["clock"]["realtime_ns"] - meta["clock"]["monotonic_ns"] == NOON_NS + recording.step_ns
    assert meta["started"][:16] == meta["history"]["fineness"][0]["begin"][:16] == "2026-11-26T13:16"
    assert recording.history.meta["clock"]["realtime_ns"] == NOON_NS
