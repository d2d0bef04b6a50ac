"""The history in memory: what comes in goes out, old rows are thinned, and the ledger stays exact."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from synthetic.cgroup_worlds import END_S, SHOWN, Rows, S, World, between, cgroup, charge, table, worlds

from tracer.analysis.core import ledger
from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.trace import AnalysedTrace
from tracer.schema import TABLES, TIME
from tracer.trace import row_sink
from tracer.trace.arrow_columns import IDENTITY_KEYS, keep_last
from tracer.trace.history.history import History, KeptNames
from tracer.trace.meta import Meta, begin
from tracer.trace.write.writer import TraceWriter

RowsOf = Callable[[str, range], pa.RecordBatch]

MIB: Final = 1 << 20
MS: Final = 1_000_000
MUCH: Final = 1 << 40
META: Final = begin(command_line=["memcg-tracer", "watch"], cgroup_version=2, filters={}, probes={})
EVENTS: Final = sorted(TABLES.keys() - IDENTITY_KEYS.keys())
PHASES_NS: Final = (0, 1, 33_334_782, 370_000_000, S - 1)


def at_phase(meta: Meta, phase_ns: int) -> Meta:
    """Return `meta` with a clock pair whose intervals begin `phase_ns` after each second of CLOCK_REALTIME.

    It is any time below a second: a boot begins at no particular moment.
    """
    clock = meta["clock"]
    now = (clock["realtime_ns"] - clock["monotonic_ns"]) % S
    return {**meta, "clock": {**clock, "realtime_ns": clock["realtime_ns"] + phase_ns - now}}


class Kept(row_sink.Rows):
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.batches: dict[str, list[pa.RecordBatch]] = {}

    def append(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        batches = batch.to_batches() if isinstance(batch, pa.Table) else [batch]
        self.batches.setdefault(table, []).extend(batches)

    def rows(self, name: str) -> Rows:
        """Return the rows of a table, with times in ns."""
        data = pa.Table.from_batches(self.batches.get(name, []), TABLES[name])
        plain = [column.cast(pa.int64()) if column.type == TIME else column for column in data.columns]
        rows: Rows = pa.Table.from_arrays(plain, names=data.schema.names).to_pylist()
        return rows


def replayed(history: History, now_ns: int = 0, since: int = 0) -> Kept:
    kept = Kept()
    history.replay(kept, now_ns, since)
    return kept


@pytest.fixture
def history(meta: Meta) -> History:
    return History(meta, keep_ns=300 * S, most_bytes=MUCH)


def test_rows_of_all_tables_come_out_as_they_came(history: History, rows_of: RowsOf) -> None:
    """Many small batches, each with a vocabulary of its own, and some compressed before others come."""
    expected = Kept()
    for first in range(1, 60, 7):
        for name in EVENTS:
            batch = rows_of(name, range(first, first + 7))
            history.append(name, batch)
            expected.append(name, batch.cast(TABLES[name]))
        history.append("summed", rows_of("summed", range(0)))
        if first % 3 == 0:
            history.age(first)
    found = replayed(history)
    for name in EVENTS:
        assert found.rows(name) == expected.rows(name), name
    assert history.rows == {name: 63 if name in EVENTS else 0 for name in TABLES}


def test_empty_history_has_no_rows_and_begins_now(history: History) -> None:
    kept = Kept()
    history.age(5 * S)
    assert history.replay(kept, 7 * S) == 7 * S
    assert [batch for batches in kept.batches.values() for batch in batches if batch.num_rows] == []
    assert (history.begin_ns, history.fineness(), history.mark()) == (None, [], 0)
    began_ns = history.meta["clock"]["realtime_ns"]
    assert history.sentence(began_ns + 7 * S) == "history: the last 7 s in 0.0 MiB"


def test_followers_get_each_batch_as_it_comes(history: History, rows_of: RowsOf) -> None:
    got: list[tuple[str, int]] = []
    history.append("charge", rows_of("charge", range(1, 4)))
    history.followers.append(lambda name, batch: got.append((name, batch.num_rows)))
    history.append("tasks", rows_of("tasks", range(1, 3)))
    history.append_rows("loss", [{"time": 1, "begin": 0, "stream": "charge", "lost": 5}])
    history.append_rows("loss", [])
    assert got == [("tasks", 2), ("loss", 1)]


# Age


def ticks(history: History, seconds: int, most_bytes: int = MUCH) -> list[dict[str, Any]]:
    """Have two cgroups charged 20 times a second, alternately, with a reading of a task's time at each
    second; return the charges."""
    history.append("cgroups", table("cgroups", [cgroup(1, None, 0), cgroup(2, 1, 0)]))
    history.most_bytes = most_bytes
    rows = []
    for second in range(seconds):
        some = [
            charge(
                second + tick / 20 + 0.01, 1 + tick % 2, "anon", 4096 * (second + tick), usage_bytes=second
            )
            for tick in range(20)
        ]
        rows += some
        history.append("charge", table("charge", some))
        if second % 2:
            history.age((second + 1) * S)
    return rows


def sums(rows: Rows, phase_ns: int = 0) -> Counter[tuple[int, int]]:
    """Return the bytes of each cgroup in each second, which begins at this phase."""
    found: Counter[tuple[int, int]] = Counter()
    for row in rows:
        found[(row["time"] - phase_ns) // S, row["cgroup_id"]] += row["bytes"]
    return found


@pytest.mark.parametrize("phase_ns", PHASES_NS)
def test_old_rows_are_thinned_and_keep_their_sums(meta: Meta, phase_ns: int) -> None:
    history = History(at_phase(meta, phase_ns), keep_ns=300 * S, most_bytes=MUCH)
    rows = ticks(history, 240)
    found = replayed(history).rows("charge")
    assert sums(found, phase_ns) == sums(rows, phase_ns)
    stages = history.fineness()
    assert [one["every_ms"] for one in stages] == [1000, 100, 0]
    assert stages[0]["begin_ns"] < S
    assert 240 - 120 - 62 <= stages[1]["begin_ns"] // S <= 240 - 120
    assert 240 - 30 - 12 <= stages[2]["begin_ns"] // S <= 240 - 30
    counts = Counter((row["time"] - phase_ns) // S for row in found)
    borders = [(one["begin_ns"] - phase_ns) // S for one in stages] + [(240 * S - phase_ns) // S]
    summed, *others = (
        [counts[second] for second in range(begin + 1, end)] for begin, end in pairwise(borders)
    )
    assert {*summed} <= {2, 3, 4}
    # Segments end at whole seconds of the clock, so two can have parts of an interval.
    assert sum(count > 2 for count in summed) <= (0 if phase_ns == 0 else 240 // 60)
    assert [{*one} for one in others] == [{20}, {20}]
    assert [row["time"] for row in found] == sorted(row["time"] for row in found)


def test_rows_older_than_asked_for_are_dropped(history: History) -> None:
    history.keep_ns = 100 * S
    rows = ticks(history, 240)
    begin_ns = history.begin_ns
    assert begin_ns is not None
    assert 240 - 100 - 62 <= begin_ns // S <= 240 - 100
    assert sums(replayed(history).rows("charge")) == sums([row for row in rows if row["time"] >= begin_ns])


def test_rows_are_thinned_before_they_are_dropped_to_save_memory(history: History) -> None:
    ticks(history, 60)
    unthinned_bytes = history.size_bytes
    history.most_bytes = unthinned_bytes // 2
    history.age(60 * S)
    assert (history.begin_ns or 0) < S, "nothing is dropped"
    assert history.size_bytes <= unthinned_bytes // 2
    assert [one["every_ms"] for one in history.fineness()][-1] == 0
    assert history.fineness()[-1]["begin_ns"] // S <= 50, "the last ten seconds are as they were recorded"


# The ledger


def note(history: History, world: World, begin_s: int, end_s: int) -> None:
    """Append the rows of some seconds, as the recorder does."""
    for row in world.cgroups:
        created_ns, removed_ns = row["created"] or 0, row["removed"]
        if begin_s * S <= created_ns < end_s * S:
            history.append("cgroups", table("cgroups", [row | {"removed": None}]))
        if removed_ns is not None and begin_s * S <= removed_ns < end_s * S:
            history.append("cgroups", table("cgroups", [row]))
    for name, rows in (("samples", world.samples), ("charge", world.charges)):
        if some := between(rows, begin_s, end_s):
            history.append(name, table(name, some))


def written(folder: str, name: str, meta: Meta, fill: Callable[[TraceWriter], object]) -> AnalysedTrace:
    writer = TraceWriter(Path(folder) / name, meta, force=False, compacts=False)
    fill(writer)
    writer.leave("quiet")
    return AnalysedTrace(writer.path)


def write_all(world: World, writer: TraceWriter) -> None:
    for name, rows in (("cgroups", world.cgroups), ("samples", world.samples), ("charge", world.charges)):
        if rows:
            writer.append(name, table(name, rows))


def levels(trace: AnalysedTrace, ids: Sequence[int], begin_s: int) -> dict[tuple[int, str, int], int | None]:
    """Return what the analysis finds for each cgroup, category and second."""
    subtrees = Subtrees(trace)
    found = {}
    for number in ids:
        subtree = subtrees.subtree_at(number)
        for name in SHOWN:
            steps = ledger.level(subtree, {name: 1})
            for second in range(begin_s, END_S + 1):
                found[number, name, second] = None if steps is None else steps.at(second * S)
    return found


@given(
    world=worlds(are_sampled=True),
    steps=st.lists(st.integers(1, END_S), min_size=1, max_size=5, unique=True).map(sorted),
    keep_s=st.integers(5, END_S),
    most_bytes=st.sampled_from([0, 4_000, 12_000, MUCH]),
    phase_ns=st.one_of(st.sampled_from(PHASES_NS), st.integers(0, S - 1)),
    mark_at=st.one_of(st.none(), st.integers(0, 4)),
)
@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_levels_of_a_trace_of_the_history_are_those_of_a_trace_of_all_rows(
    *, world: World, steps: list[int], keep_s: int, most_bytes: int, phase_ns: int, mark_at: int | None
) -> None:
    meta = at_phase(META, phase_ns)
    history = History(meta, keep_ns=keep_s * S, most_bytes=most_bytes)
    done_s = mark = 0
    marked_s: int | None = None
    for number, step_s in enumerate([*steps, END_S + 1]):
        note(history, world, done_s, step_s)
        if number == mark_at:
            mark, marked_s = history.mark(), step_s
        if marked_s is None or step_s - marked_s < 10:  # so long, no mark is used
            history.age(step_s * S)
        done_s = step_s
    with tempfile.TemporaryDirectory() as folder:
        begins: list[int] = []
        kept = written(
            folder, "kept", meta, lambda writer: begins.append(history.replay(writer, done_s * S, mark))
        )
        whole = written(folder, "whole", meta, lambda writer: write_all(world, writer))
        begin_s = begins[0] // S
        ids = kept.cgroups["cgroup_id"].tolist()
        expected, found = levels(whole, ids, begin_s), levels(kept, ids, begin_s)
        assert {key: (found[key], value) for key, value in expected.items() if found[key] != value} == {}
        assert {*ids} >= {
            row["cgroup_id"] for row in world.cgroups if row["removed"] is None or row["removed"] >= begins[0]
        }
        times = [] if kept.charge.empty else kept.charge.index.astype("int64").tolist()
        assert all(time >= max(begins[0], (marked_s or 0) * S) for time in times)
        assert sum(kept.charge["bytes"]) == sum(
            row["bytes"] for row in world.charges if row["time"] >= begins[0]
        )


def test_replay_since_a_mark_has_each_later_row_once(history: History) -> None:
    history.append("cgroups", table("cgroups", [cgroup(1, None, 0)]))
    history.append("charge", table("charge", [charge(1, 1, "anon", 10)]))
    first = replayed(history)
    mark = history.mark()
    history.age(2 * S)
    history.append("charge", table("charge", [charge(3, 1, "anon", 20)]))
    history.age(4 * S)
    history.append("charge", table("charge", [charge(5, 1, "anon", 40)]))
    later = replayed(history, 6 * S, mark)
    assert [row["bytes"] for row in first.rows("charge")] == [10]
    assert [row["bytes"] for row in later.rows("charge")] == [20, 40]
    assert [row["anon_bytes"] for row in later.rows("samples")] == [10]
    assert [row["bytes"] for row in replayed(history, 6 * S).rows("charge")] == [10, 20, 40]


def test_uncharge_after_a_mark_of_a_cgroup_removed_before_it_counts(history: History) -> None:
    """The cgroup must have its name in the trace, so that its parent's level is right."""
    history.append("cgroups", table("cgroups", [cgroup(1, None, 0), cgroup(2, 1, 0, 1)]))
    history.append("charge", table("charge", [charge(1, 2, "file", 10)]))
    mark = history.mark()
    history.append("charge", table("charge", [charge(3, 2, "file", -10)]))
    kept = replayed(history, 4 * S, mark)
    assert [row["cgroup_id"] for row in kept.rows("cgroups")] == [1, 2]
    assert [(row["cgroup_id"], row["file_bytes"]) for row in kept.rows("samples")] == [(1, 10), (2, 10)]


def test_rows_before_and_after_a_mark_are_not_thinned_to_one(history: History) -> None:
    rows = [charge(1 + tick / 8, 1, "anon", 1) for tick in range(8)]
    history.append("cgroups", table("cgroups", [cgroup(1, None, 0)]))
    history.append("charge", table("charge", rows[:4]))
    mark = history.mark()
    history.append("charge", table("charge", rows[4:]))
    history.age(3 * S)
    history.append("charge", table("charge", [charge(90, 1, "anon", 1)]))
    history.most_bytes = 0
    history.age(91 * S)
    times = [row["time"] for row in replayed(history, 91 * S, mark).rows("charge")]
    assert min(times) >= 1.5 * S


def test_unrecorded_categories_have_no_level_at_the_start(history: History) -> None:
    history.meta["unrecorded_categories"] = ["page_tables"]
    history.write_meta()
    history.append("cgroups", table("cgroups", [cgroup(1, None, 0)]))
    history.write_meta()
    history.append("charge", table("charge", [charge(1, 1, "anon", 10)]))
    (row,) = replayed(history, 2 * S, history.mark()).rows("samples")
    assert (row["anon_bytes"], row["page_tables_bytes"]) == (10, None)


# Names


def test_names_that_nothing_in_the_history_needs_are_forgotten(history: History, rows_of: RowsOf) -> None:
    """Files are forgotten only when there are many."""
    many = range(1, 20_100)
    history.keep_ns = 100 * S
    history.named_files = lambda: np.array([11, 0], np.int64)
    history.append("inodes", rows_of("inodes", many))
    named = {"exe_inode_id": 7, "comm": "a", "ppid": 1, "uid": 0, "cgroup_id": 1, "cmdline": None}
    times = {"first_seen": 1, "start_ns": 1}
    history.append_rows("tasks", [named | times | {"tgid": 5, "exited": None}])
    history.append_rows("tasks", [named | times | {"tgid": 6, "exited": 150 * S, "exe_inode_id": 8}])
    history.append("cgroups", table("cgroups", [cgroup(1, None, 0), cgroup(2, 1, 0, 100)]))
    for name, inode_id in (("pagecache", 9), ("file_waits", 10)):
        row = rows_of(name, range(1, 2)).to_pylist()[0]
        history.append_rows(name, [row | {"time": 290 * S, "inode_id": inode_id}])
    history.age(300 * S)
    kept = replayed(history, 300 * S)
    assert [row["inode_id"] for row in kept.rows("inodes")] == [7, 9, 10, 11]
    assert [row["tgid"] for row in kept.rows("tasks")] == [5]
    assert [row["cgroup_id"] for row in kept.rows("cgroups")] == [1]


def test_few_files_are_never_forgotten(history: History, rows_of: RowsOf) -> None:
    history.append("inodes", rows_of("inodes", range(1, 100)))
    history.age(300 * S)
    assert len(replayed(history).rows("inodes")) == 99


# Imports


def test_pandas_is_not_imported() -> None:
    program = """
import sys, tempfile
from pathlib import Path
from tracer.schema import TABLES
from tracer.trace.arrow_columns import rows_of
from tracer.trace.history.history import History
from tracer.trace.meta import begin
from tracer.trace.arrow_columns import shifted
from tracer.trace.write.writer import TraceWriter
S = 10**9
meta = begin(command_line=[], cgroup_version=2, filters={}, probes={})
history = History(meta, keep_ns=200 * S, most_bytes=1 << 30)
for second in range(0, 300, 10):
    for table, schema in TABLES.items():
        kinds = {field.name: str(field.type) for field in schema}
        texts = {name: "x" for name, kind in kinds.items() if "string" in kind}
        lists = {name: ["x"] for name, kind in kinds.items() if kind.startswith("list")}
        words = {"category": "anon", "source": "start" if second == 0 else "periodic"}
        values = dict.fromkeys(kinds, 1) | texts | lists
        values |= {name: word for name, word in words.items() if name in kinds}
        values |= {"time": second * S} if "time" in kinds else {}
        values |= {"cgroup_id": 1 + second % 3} if table == "cgroups" else {}
        values |= {"parent_id": None, "removed": None} if table == "cgroups" else {}
        history.append_rows(table, [values] * 2)
    if second % 4:
        history.age(second * S)
history.most_bytes = history.size_bytes // 2
history.age(300 * S)
history._files_due = 0
history.age(330 * S)
assert history.begin_ns > 0
mark = history.mark()
with tempfile.TemporaryDirectory() as folder:
    writer = TraceWriter(Path(folder) / "trace", meta, force=False, compacts=False)
    for since in (0, mark):
        history.replay(writer, 330 * S, since)
    writer.append("loss", shifted(rows_of("loss", [dict(time=1, begin=0, stream="charge", lost=1)]), 5))
    writer.flush()
    writer.leave("quiet")
print({"pandas"} & {*sys.modules})
"""
    printed = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (printed.stdout, printed.stderr) == ("set()\n", "")


def task(tgid: int, start_ns: int, exited_s: int | None, **more: Any) -> dict[str, Any]:
    named = {"comm": "a", "ppid": 1, "uid": 0, "cgroup_id": 1, "first_seen": start_ns}
    exited_ns = None if exited_s is None else exited_s * S
    return {"tgid": tgid, "start_ns": start_ns, "exited": exited_ns, **named, **more}


def add(names: KeptNames, name: str, rows: list[dict[str, Any]]) -> None:
    for batch in table(name, rows).to_batches():
        names.add(name, batch)


def kept_tasks(names: KeptNames) -> list[tuple[int, int]]:
    return [(row["tgid"], row["start_ns"]) for row in names.read("tasks").to_pylist()]


@pytest.mark.parametrize("name", sorted(IDENTITY_KEYS))
def test_latest_row_of_each_key_is_read(name: str, rows_of: RowsOf) -> None:
    """Some rows are compressed meanwhile."""
    names, batches = KeptNames(), []
    for first in (0, 5_000, 2_000, 8_000):
        batch = rows_of(name, range(first, first + 5_000)).cast(table(name, []).schema)
        batches.append(batch)
        names.add(name, batch)
    everything = pa.Table.from_batches(batches).unify_dictionaries()
    assert names.read(name).to_pylist() == keep_last(everything, name).to_pylist()
    assert names.count(name) >= names.read(name).num_rows == 13_000


def test_names_that_did_not_come_are_no_rows() -> None:
    names = KeptNames()
    assert [names.read(name).num_rows for name in IDENTITY_KEYS] == [0] * 4
    assert (names.size_bytes, names.count("tasks")) == (0, 0)
    names.forget_tasks(5)
    names.retain("inodes", np.array([1], np.int64))
    assert names.among("cgroups", np.array([1], np.int64)).num_rows == 0


def test_name_of_a_removed_file_is_still_known() -> None:
    names = KeptNames()
    row = {"inode_id": 7, "dev": "8:1", "ino": 1, "fs_type": "ext4", "mode": 1, "size_bytes": 5}
    add(names, "inodes", [row | {"path": "/a", "path_kind": "name", "deleted": False}])
    names.retain("inodes", np.array([7], np.int64))
    add(names, "inodes", [row | {"deleted": True}])
    (found,) = names.read("inodes").to_pylist()
    assert (found["path"], found["deleted"]) == ("/a", True)


def test_processes_that_ended_before_are_forgotten() -> None:
    names = KeptNames()
    add(names, "tasks", [task(5, 1, None), task(6, 2, None), task(7, 3, 9), task(8, 4, 10)])
    add(names, "tasks", [task(6, 2, 4)])
    names.forget_tasks(10 * S)
    assert kept_tasks(names) == [(5, 1), (8, 4)]


def test_process_whose_end_was_not_seen_is_forgotten_when_another_has_its_id() -> None:
    names = KeptNames()
    add(names, "tasks", [task(5, 8, None), task(5, 1, None), task(5, 4, 20), task(6, 1, None)])
    names.forget_tasks(10 * S)
    assert kept_tasks(names) == [(5, 8), (5, 4), (6, 1)]


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 9), st.one_of(st.none(), st.integers(0, 9))), max_size=30
    ),
    before_s=st.integers(0, 9),
)
def test_processes_of_the_history_are_kept(rows: list[tuple[int, int, int | None]], before_s: int) -> None:
    names = KeptNames()
    for row in rows:
        add(names, "tasks", [task(*row)])
    last = {(tgid, start_ns): exited_s for tgid, start_ns, exited_s in rows}
    newest = {tgid: max(start for one, start in last if one == tgid) for tgid, _ in last}
    expected = {
        key
        for key, exited_s in last.items()
        if (newest[key[0]] == key[1] if exited_s is None else exited_s >= before_s)
    }
    names.forget_tasks(before_s * S)
    assert {*kept_tasks(names)} == expected


def test_only_ids_that_are_asked_for_are_retained(rows_of: RowsOf) -> None:
    names = KeptNames()
    names.add("inodes", rows_of("inodes", range(1, 100)).cast(table("inodes", []).schema))
    size_bytes = names.size_bytes
    names.retain("inodes", np.arange(1, 200))
    assert names.size_bytes == size_bytes, "nothing to forget"
    names.retain("inodes", np.array([500, 3, 2], np.int64))
    assert [row["inode_id"] for row in names.read("inodes").to_pylist()] == [2, 3]
    assert names.count("inodes") == 2
    assert names.size_bytes < size_bytes


@given(
    world=worlds(are_sampled=True),
    now_s=st.integers(2, END_S),
    back_s=st.integers(0, 8),
    keep_s=st.sampled_from([10, 25, 300]),
)
def test_levels_at_a_recent_time_are_those_of_all_rows(
    world: World, now_s: int, back_s: int, keep_s: int
) -> None:
    clock = {"monotonic_ns": 0, "realtime_ns": 0}
    history = History({**META, "clock": clock}, keep_ns=keep_s * S, most_bytes=MUCH)  # type: ignore[typeddict-item]
    history.append("cgroups", table("cgroups", world.cgroups))
    for second in range(now_s + 1):
        for name, rows in (("samples", world.samples), ("charge", world.charges)):
            history.append(name, table(name, between(rows, second, second + 1)))
        history.age(second * S)
    begin_s = max(now_s - back_s, 1)
    living = [
        row["cgroup_id"]
        for row in world.cgroups
        if (row["created"] is None or row["created"] < begin_s * S)
        and (row["removed"] is None or row["removed"] >= begin_s * S)
    ]
    batches = history.levels(begin_s * S, [row["cgroup_id"] for row in world.cgroups])
    found = {row["cgroup_id"]: row for row in pa.Table.from_batches(batches, TABLES["samples"]).to_pylist()}
    assert found.keys() == {*living}
    for number in living:
        assert found[number]["usage_bytes"] is None  # it was last read at another time
        for name in SHOWN:
            assert found[number][f"{name}_bytes"] == world.level(number, name, begin_s * S - 1)


def test_sums_of_rows_that_left_take_no_memory(history: History) -> None:
    history.append("charge", table("charge", [charge(1, 7, "anon", 5), charge(2, 8, "file", 3)]))
    took_bytes = history._charged.size_bytes
    history.append("charge", table("charge", [charge(600, 8, "anon", 4)]))
    history.age(600 * S)
    history.age(900 * S + 11 * S)
    history.age(1_300 * S)
    assert took_bytes > history._charged.size_bytes == 0
