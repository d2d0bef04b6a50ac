"""First verdicts: the last seconds of a cgroup give the cause that its whole trace gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support.slowdown import SLOWDOWN
from synthetic.sample_series import batch
from synthetic.unset import unset_row

import tracer
from tracer.schema import TABLES
from tracer.trace.arrow_columns import rows_of
from tracer.trace.history.history import History
from tracer.trace.read.reader import Trace
from tracer.watch import first_verdicts, judging
from tracer.watch.first_verdicts import FirstVerdict, FirstVerdicts, _write_window

RECORDED = Path(tracer.__file__).parents[1] / "traces"
S = 1_000_000_000


def held(name: str, *, is_made: bool = False) -> tuple[History, list[dict[str, Any]]]:
    """Return the history of a recorded experiment, and its kills as `watch` has them. `is_made`: as if its
    cgroups, which were empty at its begin, had been made then."""
    example = Trace(RECORDED / name)
    history = History(example.meta, keep_ns=10**6 * S, most_bytes=1 << 30)
    for table in TABLES:
        rows = example.table(table)
        if is_made and table == "samples":
            rows = rows.filter(pc.not_equal(rows["source"].cast("string"), "start"))
        elif is_made and table == "cgroups":
            first = pc.min(example.table("charge")["time"])
            place = rows.schema.get_field_index("created")
            rows = rows.set_column(place, rows.schema.field(place), pc.fill_null(rows["created"], first))
        history.append(table, rows)
    oom = example.table("oom")
    kills = oom.set_column(oom.schema.get_field_index("time"), "time", oom["time"].cast("int64"))
    return history, kills.to_pylist()


@pytest.fixture
def told() -> list[FirstVerdict]:
    return []


@pytest.fixture
def open_verdicts(told: list[FirstVerdict]) -> Iterator[Callable[..., FirstVerdicts]]:
    opened: list[FirstVerdicts] = []

    def open_for(history: History, *, is_kept: bool = False) -> FirstVerdicts:
        opened.append(FirstVerdicts(history, told.append, is_kept=is_kept))
        return opened[-1]

    yield open_for
    for one in opened:
        one.close()


def work_off(verdicts: FirstVerdicts) -> None:
    end_s = time.monotonic() + 60 * SLOWDOWN
    while verdicts.is_active:
        assert time.monotonic() < end_s
        verdicts.step()
        time.sleep(0.005)


@pytest.mark.parametrize(
    "name", ["anon", "dirty", "mlock", "parent-limit", "shmem", "slab", "sharedbuffers", "leftover"]
)
def test_window_gives_the_cause_of_the_whole_trace(name: str, tmp_path: Path) -> None:
    history, kills = held(name)
    causes = {one.kill_id: one.verdict.cause for one in tracer.open(RECORDED / name).explain()}
    for kill in kills:
        window = tmp_path / str(kill["kill_id"])
        _write_window(history, [kill], window)
        (found,) = judging.judged(window)
        assert (found["kill_id"], found["cause"]) == (kill["kill_id"], causes[kill["kill_id"]])


@pytest.mark.parametrize("is_made", [False, True])
def test_window_of_a_parent_begins_with_the_levels_below_it(
    is_made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of the memory came before the window. `is_made`: the cgroups were made during the recording, so
    that their levels begin at 0 and not with a sample, but not within the window."""
    monkeypatch.setattr(first_verdicts, "_WINDOW_NS", S // 10)
    history, (kill,) = held("parent-limit", is_made=is_made)
    (whole,) = tracer.open(RECORDED / "parent-limit").explain()
    _write_window(history, [kill], tmp_path / "window")
    (found,) = tracer.open(tmp_path / "window").explain()
    parts = ("anon", "file_clean", "shmem", "slab_unreclaimable", "kernel_stack", "page_tables", "percpu")
    for part in (*parts, "total"):  # another part has bytes of a cgroup whose row names no parent
        assert getattr(found.composition, part) == getattr(whole.composition, part)
    assert found.verdict.cause == whole.verdict.cause == "anon_growth"
    in_window = tracer.open(tmp_path / "window").charge
    assert in_window["bytes"].sum() < (whole.composition.total or 0) // 2


def test_window_has_no_rows_of_other_cgroups_and_none_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_verdicts, "_WINDOW_NS", S // 2)
    history, (kill,) = held("page-cache")
    other = {"time": kill["time"], "cgroup_id": 77, "source": "periodic"}
    history.append_rows("samples", [unset_row("samples") | other])
    _write_window(history, [kill], tmp_path / "window")
    samples = Trace(tmp_path / "window").table("samples")
    assert 77 not in samples["cgroup_id"].to_pylist()
    times = samples["time"].cast("int64").to_pylist()
    assert times
    assert min(times) >= kill["time"] - S // 2
    assert len(times) < Trace(RECORDED / "page-cache").rows("samples")


def test_kills_that_come_together_are_told_once_each_by_a_child_that_stays(
    told: list[FirstVerdict], open_verdicts: Callable[..., FirstVerdicts]
) -> None:
    history, kills = held("sharedbuffers")
    verdicts = open_verdicts(history)
    for kill in kills:
        verdicts.add(kill, "db")
    work_off(verdicts)
    assert [(one.kill["kill_id"], one.place, one.cause) for one in told] == [
        (kill["kill_id"], "db", "shmem") for kill in kills
    ]
    assert verdicts.may_rest
    assert verdicts._folder is None  # its small trace is removed
    verdicts.add(kills[0], "db")
    work_off(verdicts)
    assert len(told) == len(kills) + 1
    verdicts._since_s -= first_verdicts._IDLE_S + 1
    child = verdicts._child
    verdicts.rest()
    assert verdicts._child is None
    assert child is not None
    assert child.wait(10 * SLOWDOWN) == 0, "a recorder reports every SIGKILL, also its own"
    verdicts.rest()
    assert not verdicts.may_rest


def near(left: float) -> pa.RecordBatch:
    """Return a sample of a cgroup with a limit of 100 MiB, of which this share is left."""
    limit = 100 << 20
    sizes = {"usage_bytes": limit - int(left * limit), "limit_bytes": limit, "file_bytes": 0}
    one = {"time": S, "cgroup_id": 7, "source": "periodic", "is_limited": True, "kill_id": None}
    return rows_of("samples", [dict.fromkeys(TABLES["samples"].names) | one | sizes])


def test_child_is_ready_before_the_kill_when_little_is_left(
    told: list[FirstVerdict], open_verdicts: Callable[..., FirstVerdicts]
) -> None:
    history, (kill,) = held("anon")
    verdicts = open_verdicts(history)
    verdicts.look(near(0.3))
    assert verdicts._child is None
    verdicts.look(near(0.2))
    child = verdicts._child
    assert child is not None
    assert (verdicts.is_active, verdicts.may_rest) == (False, True)
    verdicts.look(near(0.1))
    verdicts.rest()
    assert verdicts._child is child
    verdicts.add(kill, "web")
    work_off(verdicts)
    assert [one.cause for one in told] == ["anon_growth"]
    assert verdicts._child is child
    child.kill()
    child.wait()
    verdicts.look(near(0.1))
    assert verdicts._child not in (None, child)


def test_kept_child_is_there_from_the_start_and_does_not_rest(
    open_verdicts: Callable[..., FirstVerdicts],
) -> None:
    history, _ = held("anon")
    verdicts = open_verdicts(history, is_kept=True)
    assert verdicts._child is not None
    assert not verdicts.may_rest


def test_kept_child_that_was_killed_is_replaced_but_not_all_the_time(
    open_verdicts: Callable[..., FirstVerdicts],
) -> None:
    """The OOM killer takes the child first. A kill that came then would wait for the start of another."""
    history, _ = held("anon")
    verdicts = open_verdicts(history, is_kept=True)
    child = verdicts._child
    assert child is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    verdicts.look(batch(1))
    assert verdicts._child is child
    verdicts._started_s -= 2 * first_verdicts._IDLE_S
    verdicts.look(batch(1))
    assert verdicts._child not in (None, child)
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


@pytest.mark.skipif(os.geteuid() != 0, reason="lowers a nice value")
def test_child_gets_more_of_the_cpu_while_a_kill_waits_but_not_all_of_it(
    open_verdicts: Callable[..., FirstVerdicts],
) -> None:
    history, (kill,) = held("anon")
    verdicts = open_verdicts(history)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    seen = []
    for wait_s in (None, 1e9, -1e9):  # the start; too soon after much work; long after it
        if wait_s is not None:
            verdicts._hurries_s += wait_s
        verdicts.add(kill, "web")
        verdicts.step()
        child = verdicts._child
        assert child is not None
        seen.append(os.getpriority(os.PRIO_PROCESS, child.pid) < own)
        work_off(verdicts)
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == own
    assert seen == ([True, False, True] if own <= 0 else [False, False, False])


def test_child_that_gets_little_of_the_cpu_is_not_ended(
    told: list[FirstVerdict], open_verdicts: Callable[..., FirstVerdicts], monkeypatch: pytest.MonkeyPatch
) -> None:
    history, (kill,) = held("anon")
    verdicts = open_verdicts(history)
    verdicts.add(kill, "web")
    verdicts.step()
    child = verdicts._child
    assert child is not None
    child.send_signal(signal.SIGSTOP)
    verdicts._due_s = 0.0  # much time has passed
    verdicts.step()
    assert verdicts.is_active
    child.send_signal(signal.SIGCONT)
    work_off(verdicts)
    assert [one.cause for one in told] == ["anon_growth"]
    child.send_signal(signal.SIGSTOP)
    verdicts.add(kill, "web")
    verdicts.step()
    verdicts._due_s = 0.0
    monkeypatch.setattr(first_verdicts, "cpu_s", lambda _pid: 1e9)
    verdicts.step()
    assert (verdicts.is_active, verdicts._child, len(told)) == (False, None, 1)


def test_child_that_is_killed_is_replaced_for_the_next_kill(
    told: list[FirstVerdict], open_verdicts: Callable[..., FirstVerdicts]
) -> None:
    history, (kill,) = held("anon")
    verdicts = open_verdicts(history)
    verdicts.add(kill, "web")
    verdicts.step()
    assert verdicts._child is not None
    verdicts._child.send_signal(signal.SIGKILL)
    work_off(verdicts)
    assert told == []
    verdicts.add(kill, "web")
    work_off(verdicts)
    (verdict,) = told
    assert (verdict.cause, verdict.kill) == ("anon_growth", kill)
    assert "asked for more memory and was killed" in verdict.summary


def test_what_a_killed_watch_left_in_memory_is_removed(
    open_verdicts: Callable[..., FirstVerdicts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_verdicts, "_MEMORY", tmp_path)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    left, own = (tmp_path / f"memcg-tracer-kills-{pid}-x" for pid in (child, os.getpid()))
    for folder in (left, own):
        (folder / "trace").mkdir(parents=True)
    open_verdicts(History(Trace(RECORDED / "anon").meta, keep_ns=S, most_bytes=1 << 20))
    assert list(tmp_path.iterdir()) == [own]


def test_child_has_loaded_what_it_needs_before_a_kill() -> None:
    """An import at the kill would make it wait, for the disk as well."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tracer.watch import judging\n"
        "judging._load()\n"
        "before = {*sys.modules}\n"
        "assert all(judging.judged(Path(trace)) for trace in sys.argv[1:])\n"
        "print(sorted(sys.modules.keys() - before))\n"
    )
    traces = [str(RECORDED / name) for name in ("parent-limit", "dirty", "slab")]
    assert subprocess.check_output([sys.executable, "-c", script, *traces]).strip() == b"[]"
