"""The child that completes and explains a trace, run as `watch` runs it.

What it answers about a trace is the same in the process of the tests, where a test takes a fifth of the time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.full_disk import files_limited_to
from support.waiting import wait_for
from synthetic.unset import unset_row

from tracer.analysis.explain.survivors import nearest_lives
from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.process.children import forked
from tracer.render.words import survivor_facts
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.read.reader import Trace
from tracer.trace.write.writer import TraceWriter
from tracer.watch import completing
from tracer.watch.completing import COMPLETE_ONLY, explained

BeginTrace = Callable[..., TraceWriter]

TOP = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "tracer.watch.completing")
RECORDED = TOP / "traces"


def run(trace: Path) -> dict[str, Any]:
    """Return the answer of a child; it prints one line and nothing else, and its exit status is 0."""
    child = subprocess.run([*COMMAND, trace], cwd=TOP, capture_output=True, text=True, check=True)
    assert child.stderr == ""
    (line,) = child.stdout.splitlines()
    answer: dict[str, Any] = json.loads(line)
    return answer


Answer = Callable[[Path], dict[str, Any]]


@pytest.fixture
def answer_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answer:
    """Return `answer_of(trace)`: what the child prints, which is one line, from this process."""
    monkeypatch.setattr(completing, "end_with_parent", lambda: None)
    monkeypatch.setattr(completing, "stand_back", lambda **_: None)

    def answer_of(trace: Path) -> dict[str, Any]:
        assert completing.main([str(trace)]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        answer: dict[str, Any] = json.loads(line)
        return answer

    return answer_of


def tables(path: Path) -> dict[str, pa.Table]:
    return {name: Trace(path).table(name) for name in TABLES}


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


@pytest.fixture
def left(begin_trace: BeginTrace, tmp_path: Path) -> Path:
    """Return a trace whose recorder has closed its journals."""
    writer = begin_trace(tmp_path / "trace")
    writer.leave("quiet")
    return writer.path


def test_trace_is_completed_and_its_kill_explained(left: Path) -> None:
    before = tables(left)
    assert Trace(left).meta["rows"] is None
    answer = run(left)
    assert answer["error"] is None
    assert (answer["kills"], answer["cause"], answer["container"]) == (1, "anon_growth", "web")
    assert (answer["cgroup"], answer["pod"]) == ("/docker/4f2a", None)
    assert answer["sentence"] == AnalysedTrace(left).explain()[0].verdict.summary
    assert names(left) == {f"{table}.parquet" for table in ("cgroups", "tasks", "charge", "oom")} | {
        "meta.json"
    }
    assert tables(left) == before
    meta = Trace(left).meta
    assert meta["rows"] == {name: before[name].num_rows for name in TABLES}
    assert meta["end_reason"] == "quiet"


def test_trace_of_a_killed_watch_is_completed_and_stays_interrupted(
    begin_trace: BeginTrace, answer_of: Answer, tmp_path: Path
) -> None:
    writer = begin_trace(tmp_path / "trace", killed=False)
    writer._trace.close()  # the lock of a process that has ended
    before = tables(writer.path)
    answer = answer_of(writer.path)
    assert (answer["kills"], answer["error"], answer["cause"]) == (0, None, None)
    assert answer["sentence"].startswith("No OOM kill was recorded before the recording broke off")
    assert not (writer.path / layout.JOURNAL).exists()
    assert Trace(writer.path).interrupted
    assert tables(writer.path) == before


@pytest.mark.parametrize("name", ["page-cache", "group-kill", "thrash"])
def test_verdict_is_that_of_the_recorded_example(name: str, answer_of: Answer, tmp_path: Path) -> None:
    example = Trace(RECORDED / name)
    writer = TraceWriter(tmp_path / name, example.meta, force=False, compacts=False)
    for table in TABLES:
        writer.append(table, example.table(table))
    end = {key: example.meta[key] for key in ("lost", "ended")}
    writer.leave(str(example.meta["end_reason"]), **end)
    answer = answer_of(writer.path)
    assert answer["error"] is None
    assert tables(writer.path) == tables(example.path)
    trace = AnalysedTrace(example.path)
    reports = trace.explain()
    assert answer["kills"] == len(reports)
    held = survivor_facts.summary(nearest_lives(trace, trace.held_cgroups()))
    assert answer["sentence"] == (reports[-1].verdict.summary if reports else held)


def test_trace_is_completed_without_an_explanation_if_that_is_asked_for(left: Path) -> None:
    command = [*COMMAND, COMPLETE_ONLY, str(left)]
    child = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
    answer = json.loads(child.stdout)
    assert (answer["is_complete"], answer["error"], answer["kills"]) == (True, None, None)
    assert not (left / layout.JOURNAL).exists()


def test_complete_trace_stays_as_it_is(left: Path, answer_of: Answer) -> None:
    answer_of(left)
    before = {file.name: (file.stat().st_ino, file.read_bytes()) for file in left.iterdir()}
    assert answer_of(left)["kills"] == 1
    assert {file.name: (file.stat().st_ino, file.read_bytes()) for file in left.iterdir()} == before


def test_trace_that_is_being_written_is_explained_but_not_completed(
    begin_trace: BeginTrace, tmp_path: Path
) -> None:
    writer = begin_trace(tmp_path / "trace")
    answer = run(writer.path)
    assert f"being written by the recorder with pid {os.getpid()}" in answer["error"]
    assert answer["kills"] == 1
    assert (writer.path / layout.JOURNAL).is_dir()
    writer.close("quiet")


@pytest.mark.parametrize("what", ["absent", "empty", "meta", "link"])
def test_what_is_no_trace_is_an_error_in_one_line(
    left: Path, answer_of: Answer, tmp_path: Path, what: str
) -> None:
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    elif what == "meta":
        path = left
        (path / layout.META).write_text("{\n\n")
    elif what == "link":
        path.symlink_to("/dev")
    answer = answer_of(path)
    assert answer["kills"] is None
    assert answer["sentence"] is None
    assert answer["error"].startswith("not explained: ")
    assert "; not completed: " in answer["error"]
    assert "\n" not in answer["error"]


def test_damaged_journal_is_an_error_and_stays(left: Path, answer_of: Answer) -> None:
    journal = left / layout.JOURNAL / "charge.1.arrows"
    with pa.ipc.new_stream(journal, pa.schema([("bytes", pa.string())])) as stream:
        stream.write_table(pa.table({"bytes": ["not a number"]}))
    answer = answer_of(left)
    assert "charge.1.arrows is damaged" in answer["error"]
    assert journal.exists()
    assert Trace(left).rows("oom") == 1


def test_hostile_names_are_escaped_in_the_sentence_only(
    begin_trace: BeginTrace, answer_of: Answer, tmp_path: Path
) -> None:
    hostile = "a\x1b[2J\n\u202eb"
    writer = begin_trace(tmp_path / "trace", comm=hostile, cgroup=f"/{hostile}")
    writer.leave("quiet")
    answer = answer_of(writer.path)
    assert answer["error"] is None
    assert r"a\x1b[2J\n\u202eb" in answer["sentence"]
    assert answer["sentence"].isprintable()
    assert answer["cgroup"] == f"/{hostile}"


def test_disk_without_space_leaves_the_trace_as_readable_as_it_was(left: Path, answer_of: Answer) -> None:
    before = tables(left)
    with files_limited_to(100):
        answer = answer_of(left)
    assert answer["error"].startswith("not completed: File too large")
    assert answer["kills"] == 1
    assert tables(left) == before
    assert answer_of(left)["error"] is None
    assert tables(left) == before


@pytest.mark.parametrize("part", range(6))
def test_killed_child_leaves_each_row_once(left: Path, answer_of: Answer, part: int) -> None:
    before = tables(left)
    child = forked(lambda: completing.main([str(left)]))  # which has imported what it needs
    if part:
        wait_for(lambda: state_of(child) == "Z" or len(list(left.glob("*.parquet"))) >= part - 1)
    time.sleep(random.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert tables(left) == before
    assert answer_of(left)["error"] is None
    assert tables(left) == before
    assert not (left / layout.JOURNAL).exists()


def test_child_ends_with_its_parent(left: Path) -> None:
    child_of_it = f"subprocess.Popen({[*COMMAND, str(left)]!r})"
    script = f"import subprocess, time; print({child_of_it}.pid, flush=True); time.sleep(99)"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=TOP, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        score = Path(f"/proc/{child}/oom_score_adj")  # it is raised after `end_with_parent`
        wait_for(lambda: int(score.read_text()) >= 500)
        os.kill(child, signal.SIGSTOP)
        parent.kill()
    wait_for(lambda: state_of(child) in ("", "Z", "X"))


def state_of(pid: int) -> str:
    """Return the letter of a process's state; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_trace_that_is_not_explained_yet_has_its_journals(
    left: Path, answer_of: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next `watch` tells only of traces with journals: one of a killed child must have them."""
    seen = []

    def explained(trace: Path, **_: object) -> dict[str, Any]:
        seen.append((trace / layout.JOURNAL).is_dir())
        return {}

    monkeypatch.setattr(completing, "explained", explained)
    answer = answer_of(left)
    assert seen == [True]
    assert not (left / layout.JOURNAL).exists()
    assert answer["is_complete"]


AT_NS = 1_764_000_001_000_000_000
SECOND_NS = 1_000_000_000
WEB, BANK = "0f9c4fb2-6a8a-4d4c-9a0e-3f8f6f1a2b3c", "d3b07384d113edec49eaa6238ad5ff00"
IDS = {name: name[0] * 64 for name in ("app", "bank", "cold")}
SLICE = f"/kubepods.slice/kubepods-pod{WEB.replace('-', '_')}.slice"
CGROUPS = {
    11: {"path": SLICE, "pod": "web-1", "namespace": "shop"},
    12: {"path": f"{SLICE}/cri-containerd-{IDS['app']}.scope", "container": "app"},
    13: {"path": f"/kubepods/pod{BANK}/{IDS['bank']}", "container": "db", "pod": "bank", "namespace": "b"},
    14: {"path": f"/kubepods/pod{BANK.replace('d3', 'e4')}/{IDS['cold']}"},
    15: {"path": "/system.slice/cron.service"},
    16: {"path": f"/user.slice/user-7.slice/user@7.service/kubepods/pod{BANK}/{IDS['bank']}"},
    17: {"path": f"{SLICE}/cri-containerd-{IDS['app']}.scope/kubepods/pod{BANK}/{IDS['bank']}"},
}


def kill(kill_id: int, cgroup_id: int, second: float, owner_id: int | None) -> dict[str, Any]:
    pid = 100 + kill_id
    return {
        "time": AT_NS + round(second * SECOND_NS),
        "ktime_ns": 777 + kill_id,
        "kill_id": kill_id,
        "constraint": "global" if owner_id is None else "memcg",
        "limit_owner_cgroup_id": owner_id,
        "trigger_pid": pid,
        "trigger_tgid": pid,
        "trigger_comm": "hungry",
        "trigger_cgroup_id": cgroup_id,
        "pid": pid,
        "tgid": pid,
        "comm": f"hungry-{kill_id}",
        "cgroup_id": cgroup_id,
        "anon_rss_bytes": 98 << 20,
    }


@pytest.fixture
def left_out() -> list[int | None]:
    """Return the numbers of containers that were left out."""
    return []


@pytest.fixture
def pods_since(
    begin_trace: BeginTrace, tmp_path: Path, left_out: list[int | None]
) -> Callable[..., list[dict[str, Any]] | None]:
    """Return `pods_since(second, *kills)`: the pods of a trace with these kills."""

    def pods_since(second: float | None, *kills: dict[str, Any]) -> list[dict[str, Any]] | None:
        writer = begin_trace(tmp_path / "trace", killed=False)
        cgroups = [{"cgroup_id": number, **row} for number, row in CGROUPS.items()]
        for table, rows in (("cgroups", cgroups), ("oom", kills)):
            complete = [unset_row(table) | row for row in rows]
            writer.append(table, pa.Table.from_pylist(complete, schema=TABLES[table]))
        writer.close("quiet")
        since_ns = None if second is None else AT_NS + round(second * SECOND_NS)
        found, defects = explained(tmp_path / "trace", pods_since_ns=since_ns)
        assert not defects
        pods: list[dict[str, Any]] | None = found.get("pods")
        left_out.append(found.get("pods_left_out"))
        return pods

    return pods_since


def test_kills_of_a_container_are_together_with_the_sentence_of_the_newest(pods_since: Any) -> None:
    [pod] = pods_since(0, kill(1, 12, 0, 12), kill(2, 12, 3, 12))
    assert pod.pop("sentence").startswith("hungry-2 (pid 102) asked for more memory and was killed")
    assert pod == {
        "uid": WEB,
        "pod": "web-1",
        "namespace": "shop",
        "container": "app",
        "kills": 2,
        "times_ns": [AT_NS, AT_NS + 3 * SECOND_NS],
    }


def test_victim_decides_which_pod_had_the_kill(pods_since: Any) -> None:
    """The limit may be that of the pod, or the machine's memory."""
    of_pod, of_machine = pods_since(0, kill(1, 12, 0, 11), kill(2, 13, 1, None))
    assert (of_pod["pod"], of_pod["container"]) == ("web-1", "app")
    assert (of_machine["uid"], of_machine["pod"], of_machine["namespace"]) == (BANK, "bank", "b")
    assert "machine" in of_machine["sentence"]


def test_kills_of_earlier_traces_are_left_out(pods_since: Any) -> None:
    [pod] = pods_since(2, kill(1, 13, 1, 13), kill(2, 12, 1.999, 12), kill(3, 12, 2, 12))
    assert (pod["container"], pod["times_ns"]) == ("app", [AT_NS + 2 * SECOND_NS])


def test_pod_without_a_name_is_reported_and_a_unit_is_not(pods_since: Any) -> None:
    [pod] = pods_since(0, kill(1, 14, 0, 14), kill(2, 15, 1, 15))
    assert (pod["pod"], pod["namespace"], pod["container"]) == (None, None, IDS["cold"])
    assert pod["uid"] == BANK.replace("d3", "e4")


def test_cgroup_that_a_user_named_like_a_pod_is_no_pod(pods_since: Any) -> None:
    assert pods_since(0, kill(1, 16, 0, 16)) == []


def test_cgroup_that_a_container_named_like_a_pod_counts_for_its_own_pod(pods_since: Any) -> None:
    """Else a container could give an Event to any pod of the node."""
    [pod] = pods_since(0, kill(1, 12, 0, 12), kill(2, 17, 1, 17))
    assert (pod["uid"], pod["pod"], pod["container"], pod["kills"]) == (WEB, "web-1", "app", 2)


def test_pods_are_not_looked_for_unless_asked(pods_since: Any) -> None:
    assert pods_since(None, kill(1, 12, 0, 12)) is None


def test_containers_and_times_are_bounded(
    pods_since: Any, left_out: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completing, "MOST_CONTAINERS", 1)
    monkeypatch.setattr(completing, "_MOST_TIMES", 2)
    monkeypatch.setattr(completing, "_MOST_SENTENCE", 7)
    [pod] = pods_since(0, kill(1, 13, 0, 13), *(kill(number, 12, number, 12) for number in range(2, 7)))
    assert (pod["container"], pod["kills"], left_out) == ("app", 5, [1])
    assert [(one - AT_NS) / SECOND_NS for one in pod["times_ns"]] == [2, 5, 6]
    assert pod["sentence"] == "hungry-"


def test_containers_share_the_bound_of_times(pods_since: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of the child is bounded: 200 containers with 1,000 kills each would exceed it."""
    monkeypatch.setattr(completing, "_MOST_TIMES", 4)
    pods = pods_since(0, *(kill(number, 12 + number % 2, number, 12 + number % 2) for number in range(2, 12)))
    assert [len(pod["times_ns"]) for pod in pods] == [3, 3], "the first, and the newest two"
    assert [pod["kills"] for pod in pods] == [5, 5]
