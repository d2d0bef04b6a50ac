"""Rows of `tasks`, from records as the BPF programs write them."""

from __future__ import annotations

import mmap
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tracer.capture.bpf.ring import Records
from tracer.capture.rows import task_rows
from tracer.capture.rows.task_rows import MOST_BYTES, TaskRows, TaskTimes, read_title, task_time_rows
from tracer.enumerations import TASK_EVENT
from tracer.wire.dtypes import WIRE

CLOCK_OFFSET_NS = 1_000_000


def task_records(*events: tuple[str, int, int, str]) -> Records:
    """Return `task` records of (event, time, start, comm), all of tgid 23."""
    records = np.zeros(len(events), WIRE["task"])
    for record, (event, time_ns, start_ns, comm) in zip(records, events, strict=True):
        record["event"] = TASK_EVENT.number(event)
        record["time_ns"], record["start_ns"], record["tgid"], record["comm"] = time_ns, start_ns, 23, comm
    return records


def last_rows(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return start -> the last row, which a reader keeps."""
    return {row["start_ns"]: row for row in rows}


def test_process_has_one_row_from_first_sight_to_exit() -> None:
    tasks = TaskRows()
    tasks.take_events(task_records(("seen", 10, 7, "sh"), ("exec", 20, 7, "tail")), CLOCK_OFFSET_NS)
    tasks.take_events(task_records(("exit", 30, 7, "tail")), CLOCK_OFFSET_NS)
    row = last_rows(tasks.rows)[7]
    assert (row["comm"], row["first_seen"], row["exited"]) == (
        "tail",
        10 + CLOCK_OFFSET_NS,
        30 + CLOCK_OFFSET_NS,
    )


def test_program_is_the_last_that_is_known() -> None:
    """A kernel thread has none; a process that exits may have lost its memory, and with it its program."""
    tasks = TaskRows()
    records = task_records(("seen", 10, 7, "sh"), ("exec", 20, 7, "tail"), ("exit", 30, 7, "tail"))
    records["exe_inode_id"] = (5, 6, 0)
    tasks.take_events(records, 0)
    assert last_rows(tasks.rows)[7]["exe_inode_id"] == 6
    tasks.take_events(task_records(("seen", 10, 8, "kworker")), 0)
    assert last_rows(tasks.rows)[8]["exe_inode_id"] is None


@pytest.mark.parametrize("batches", [1, 3])
def test_first_sight_after_the_exit_makes_no_new_row(batches: int) -> None:
    records = task_records(("seen", 10, 7, "tail"), ("exit", 30, 7, "tail"), ("seen", 31, 7, "tail"))
    tasks = TaskRows()
    for batch in np.array_split(records, batches):
        tasks.take_events(batch, 0)
    row = last_rows(tasks.rows)[7]
    assert (row["first_seen"], row["exited"]) == (10, 30)


def test_reused_tgid_is_another_process() -> None:
    tasks = TaskRows()
    tasks.take_events(
        task_records(("seen", 10, 7, "old"), ("exit", 30, 7, "old"), ("seen", 40, 39, "new")), 0
    )
    rows = last_rows(tasks.rows)
    assert {start: (row["comm"], row["first_seen"], row["exited"]) for start, row in rows.items()} == {
        7: ("old", 10, 30),
        39: ("new", 40, None),
    }


def test_exec_of_a_thread_takes_over_the_leaders_row() -> None:
    tasks = TaskRows()
    tasks.take_events(task_records(("seen", 10, 7, "a"), ("exit", 30, 7, "a"), ("exec", 40, 7, "b")), 0)
    row = last_rows(tasks.rows)[7]
    assert (row["comm"], row["first_seen"], row["exited"]) == ("b", 10, None)


def test_process_that_blocks_readers_of_its_memory_has_no_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bounded(asked: str, call: Callable[[int, int], str], *key: int) -> str:
        if asked in ("command lines", "process 7"):
            raise TimeoutError
        return call(*key)

    monkeypatch.setattr(task_rows, "bounded", bounded)
    monkeypatch.setattr(task_rows, "read_title", lambda tgid, _start: f"title of {tgid}")
    tasks = TaskRows()
    records = task_records(("seen", 10, 1, "a"), ("seen", 10, 2, "b"))
    records["tgid"] = 7, 8
    tasks.take_events(records, 0)
    assert [row["cmdline"] for row in tasks.rows] == [None, "title of 8"]


def test_command_line_is_read_again_later_and_at_a_kill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that was just forked has its parent's command line; a kill reads those of the candidates
    again.
    """
    titles = {1: "postgres", 2: "postgres"}
    monkeypatch.setattr(task_rows, "read_title", lambda _tgid, start: titles[start])
    tasks = TaskRows()
    tasks.take_events(task_records(("seen", 10, 1, "postgres"), ("seen", 10, 2, "postgres")), 0)
    assert [row["cmdline"] for row in tasks.rows] == ["postgres", "postgres"]
    tasks.rows.clear()
    titles.update({1: "postgres: checkpointer"})
    tasks.reread_titles()
    assert tasks.rows == []
    tasks.reread_titles({23})
    assert [row["cmdline"] for row in tasks.rows] == ["postgres: checkpointer"]
    titles.update({2: "postgres: writer"})
    later_s = time.monotonic() + 2
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    tasks.reread_titles()
    assert [row["cmdline"] for row in tasks.rows] == ["postgres: checkpointer", "postgres: writer"]


def test_process_whose_exit_was_lost_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pid 1 is alive, and no process has the pid after the largest one (pid_max)."""
    monkeypatch.setattr(task_rows, "ALIVE_UNCHECKED", 10)
    tasks = TaskRows()
    records = task_records(*(("seen", 10, start_ns, "sh") for start_ns in range(12)))
    records["tgid"] = 1 << 22
    records["tgid"][3] = 1
    tasks.take_events(records, CLOCK_OFFSET_NS)
    assert list(tasks._alive) == [(1, 3)]


START_NS = 1234 * task_rows._NS_PER_TICK + 5


def process(proc: Path, cmdline: bytes, comm: str = "a) b") -> None:
    folder = proc / "7"
    folder.mkdir()
    (folder / "cmdline").write_bytes(cmdline)
    begin, end = mmap.PAGESIZE, mmap.PAGESIZE + len(cmdline)
    fields = ["S", *18 * ["0"], "1234", *25 * ["0"], *map(str, (begin, end, end, end))]
    (folder / "stat").write_text(f"7 ({comm}) {' '.join(fields)}\n")
    (folder / "pagemap").write_bytes(99 * struct.pack("=Q", 1 << 63))  # all pages are present


@pytest.mark.parametrize(
    ("cmdline", "title"),
    [
        (b"postgres: checkpointer \0\0\0\0", "postgres: checkpointer"),
        (b"python3\0app.py\0--fast\0", "python3 app.py --fast"),
        (b"", None),
        (b"\xff\x1b[31m\n", "\\xff\x1b[31m\n"),
        (b"x" * 10_000, "x" * MOST_BYTES),
    ],
)
def test_title_is_command_line(tmp_path: Path, cmdline: bytes, title: str | None) -> None:
    process(tmp_path, cmdline)
    assert read_title(7, START_NS, tmp_path) == title


def test_title_of_reused_pid_is_none(tmp_path: Path) -> None:
    process(tmp_path, b"other\0")
    assert read_title(7, START_NS + task_rows._NS_PER_TICK, tmp_path) is None
    assert read_title(8, START_NS, tmp_path) is None


def test_title_of_a_running_process_is_its_command_line() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as child:
        try:
            ticks = int(Path(f"/proc/{child.pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
            deadline = time.monotonic() + 10
            while read_title(child.pid, ticks * task_rows._NS_PER_TICK) != " ".join(command):
                assert time.monotonic() < deadline
        finally:
            child.kill()


CPUS = 3
ACCOUNTS = 64


class FakePrograms:
    """The maps that `TaskTimes` reads; the cgroup of slot N is 100 + N, unless `ids` has another."""

    def __init__(self) -> None:
        self.cpus, self.accounts = CPUS, ACCOUNTS
        self.shared = mmap.mmap(-1, CPUS * ACCOUNTS * 8)
        self.spent_ns = np.frombuffer(self.shared, "<u8").reshape(CPUS, ACCOUNTS)
        self.ids: dict[int, int] = {}
        self.ticks: list[int] = []
        self.slices = [SimpleNamespace(slot=0, ran_ns=0) for _ in range(CPUS)]

    def map(self, name: str) -> Any:
        if name == "task_times":
            return SimpleNamespace(share=lambda: self.shared)
        if name == "slices":
            return [self.slices]
        assert name == "accounts"
        return self

    def __getitem__(self, slot: int) -> Any:
        return SimpleNamespace(cgroup_id=self.ids.get(slot, 100 + slot))

    def run(self, name: str, cpu: int) -> int:
        assert name == "tick"
        self.ticks.append(cpu)
        if cpu == 1:
            raise OSError("offline")
        return 0


@pytest.fixture
def programs() -> FakePrograms:
    return FakePrograms()


def taken(times: TaskTimes) -> dict[int, int]:
    return {int(row["cgroup_id"]): int(row["cpu_ns"]) for row in times.take()}


def test_take_returns_what_was_used_since_the_last_call(programs: Any) -> None:
    times = TaskTimes(programs)
    assert taken(times) == {}
    programs.spent_ns[0, 7], programs.spent_ns[2, 7], programs.spent_ns[1, 9] = 30, 5, 11
    assert taken(times) == {107: 35, 109: 11}
    programs.spent_ns[1, 7] = 4
    assert taken(times) == {107: 4}
    assert taken(times) == {}
    first, second = times.take, times.take
    programs.spent_ns[1, 7] = 5
    row = first()[0]
    assert row["begin_ns"] < row["time_ns"]
    programs.spent_ns[1, 7] = 6
    assert second()[0]["begin_ns"] == row["time_ns"], "intervals follow one another"


def test_closed_account_keeps_its_time_and_gives_its_slot_to_another(programs: Any) -> None:
    times = TaskTimes(programs)
    programs.spent_ns[0, 7] = 30
    assert taken(times) == {107: 30}
    times.close_account(7, 107, 42)
    programs.spent_ns[0, 7] = 0  # the program takes it out
    programs.ids[7] = 555
    programs.spent_ns[2, 7] = 3
    assert taken(times) == {107: 12, 555: 3}
    assert taken(times) == {}
    times.close_account(8, 108, 0)
    assert taken(times) == {}, "its tasks have not run"
    assert times.work_ns() == 42 + 3
    assert programs.ticks == [0, 1, 2]


def test_time_that_a_cpu_did_not_add_is_added_at_the_end(programs: Any) -> None:
    times = TaskTimes(programs)
    programs.spent_ns[1, 7] = 30
    programs.slices[1] = SimpleNamespace(slot=7, ran_ns=4)
    times.add_left()
    assert taken(times) == {107: 34}


def test_rows_have_the_clock_of_the_trace(programs: Any) -> None:
    times = TaskTimes(programs)
    programs.spent_ns[0, 1] = 30
    records = times.take()
    (row,) = task_time_rows(records, 1000).to_pylist()
    assert (row["time"].value, row["begin"].value) == (
        int(records[0]["time_ns"]) + 1000,
        int(records[0]["begin_ns"]) + 1000,
    )
    assert (row["cgroup_id"], row["cpu_ns"]) == (101, 30)
