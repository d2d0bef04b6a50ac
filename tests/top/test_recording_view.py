"""From rows of a recording to decisions and tables, without a kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from synthetic.live_rows import MIB, cgroup, rows
from synthetic.unset import unset_row

from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.schema import UNLIMITED_BYTES
from tracer.top.details import CODE
from tracer.top.feed import KILL, LIMIT, NOTE, NOTHING, SOON, Decision
from tracer.top.files_now import FilesNow
from tracer.top.recording_view import RecordingView
from tracer.trace.history.history import History
from tracer.trace.meta import begin
from tracer.watch.finishing import Finished

S = 1_000_000_000


class Recorded:
    """A view that follows a history with the cgroups /1 and /1/web."""

    def __init__(self, folder: Path) -> None:
        self.decisions: list[Decision] = []
        self.view = RecordingView(Hierarchy(2, folder, "/"), Path("traces/top"), self.decisions.append)
        meta = begin(command_line=["memcg-tracer", "top"], cgroup_version=2, filters={}, probes={})
        self.history = History(meta, keep_ns=300 * S, most_bytes=1 << 30)
        self.view.join(self.history, lambda: None)
        self.history.followers.append(self.view.follow)
        web = cgroup(2, 1, path="/1/web", container="web", pod="shop")
        self.history.append("cgroups", rows("cgroups", cgroup(1), web))

    def sample(self, usage: int, limit: int = 100, **more: Any) -> None:
        sizes = {"usage_bytes": usage * MIB, "anon_bytes": usage * MIB, "file_bytes": 0}
        limits = {
            "limit_bytes": limit * MIB,
            "effective_limit_bytes": limit * MIB,
            "high_bytes": UNLIMITED_BYTES,
        }
        at = {"cgroup_id": 2, "source": "periodic", "time": self.view.now_ns}
        self.history.append("samples", rows("samples", at | sizes | limits | more))

    def told(self) -> list[tuple[str, str]]:
        return [(one.kind, one.words()) for one in self.decisions]


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def test_limit_that_is_hit_is_told_of_its_container(recorded: Recorded) -> None:
    recorded.sample(99, max_events=3)
    recorded.view.take()
    recorded.sample(100, max_events=5)
    ((kind, words),) = recorded.told()
    assert kind == LIMIT
    assert words.startswith("shop/web: Usage hit the limit of 100 MiB twice within ")


def test_kill_that_is_near_is_told(recorded: Recorded) -> None:
    for step in range(80):
        recorded.sample(20 + step, time=recorded.view.now_ns + step * S // 10)
    assert [kind for kind, _ in recorded.told()] == [SOON]


def test_code_that_grows_is_told_with_a_kill_that_is_near_and_has_a_table(recorded: Recorded) -> None:
    frames = ["[libc.so.6]+0x1", "load [app.py:41]", "main [app.py:88]"]
    recorded.history.append("stacks", rows("stacks", {"stack_id": 70, "frames": frames}))
    sampled = {"time": recorded.view.now_ns, "tgid": 0, "tid": 0, "category": "anon", "bytes": 7 * MIB}
    places = ({"cgroup_id": 2, "stack_id": 70}, {"cgroup_id": 3, "stack_id": None})
    recorded.history.append("code_samples", rows("code_samples", *(sampled | place for place in places)))
    for step in range(80):
        recorded.sample(20 + step, time=recorded.view.now_ns + step * S // 10)
    ((kind, words),) = recorded.told()
    assert kind == SOON
    assert " What grows: 16 to 100 % in load (app.py:41), called by main (app.py:88): " in words
    recorded.view.take()
    code = recorded.view.sheets(2, FilesNow())[CODE]
    assert (code.title, code.rows[0][:4]) == ("code", ("load (app.py:41)", "100%", "7.0Mi", "anon"))


def test_reclaim_that_freed_nothing_is_told_at_the_next_frame_also_of_a_cgroup_that_is_gone(
    recorded: Recorded,
) -> None:
    recorded.sample(50)
    attempt = {"cgroup_id": 2, "task_cgroup_id": 2, "kind": "memcg", "duration_ns": 5}
    failed = [attempt | {"reclaimed": 0}] * 3
    recorded.history.append("reclaim", rows("reclaim", *failed, attempt | {"reclaimed": 7}))
    recorded.history.append(
        "cgroups", rows("cgroups", cgroup(2, 1, path="/1/web", container="web", removed=7))
    )
    assert recorded.told() == []
    recorded.view.take()
    assert recorded.told() == [(NOTHING, "web: 3 reclaim attempts freed nothing")]
    recorded.view.take()
    assert len(recorded.decisions) == 1


def test_kill_and_its_verdict_are_told(recorded: Recorded) -> None:
    recorded.sample(50)
    recorded.view.take()
    kill = unset_row("oom") | {"time": recorded.view.now_ns, "limit_owner_cgroup_id": 2, "cgroup_id": 2}
    recorded.view.killed(kill | {"comm": "ja\x1bva", "pid": 7, "limit_bytes": 100 * MIB}, "web")
    trace = Path("/far/away/traces/top/20261126T120000Z-kill-web")
    recorded.view.finished(Finished(trace, "kill", 0, "/1/web", 1, "web", "java was killed."))
    recorded.view.finished(Finished(trace, "request", 0, None, 0))
    recorded.view.finished(Finished(trace, "kill", 0, "/1/web", 1, "web"))  # at the end, nothing is explained
    assert recorded.told() == [
        (KILL, r"web: OOM kill of ja\x1bva (pid 7) at a limit of 100 MiB"),
        (KILL, "web: java was killed. (traces/top/20261126T120000Z-kill-web)"),
        *[(NOTE, "the trace is complete: traces/top/20261126T120000Z-kill-web")] * 2,
    ]


def test_files_have_the_names_of_the_history(recorded: Recorded) -> None:
    recorded.sample(50)
    file = {"inode_id": 11, "path": "/host/a", "container_path": "/data/a", "dev": "8:1", "fs_type": "ext4"}
    recorded.history.append("inodes", rows("inodes", file))
    added = {"op": "add", "cause": "read", "folios": 1, "duration_ns": 0, "dev": 1, "nr_pages": 256}
    moved = added | {"cgroup_id": 2, "task_cgroup_id": 2, "inode_id": 11}
    recorded.history.append("pagecache", rows("pagecache", moved))
    (row,) = recorded.view.take()
    assert row.name == "shop/web"
    files = next(sheet for sheet in recorded.view.sheets(2, FilesNow()) if sheet.title == "files")
    assert files.rows == (("/data/a", "?", "?", "1.0Mi", "-", "-"),)
    assert recorded.view.sheets(99, FilesNow()) == ()


def test_machine_has_its_memory_and_the_cost_since_the_last_frame(recorded: Recorded) -> None:
    assert recorded.view.machine().own_percent is None
    machine = recorded.view.machine()
    assert machine.total_bytes and machine.available_bytes and machine.own_bytes
    assert machine.own_percent is not None
    assert 0 < machine.available_bytes < machine.total_bytes


def test_view_of_rows_does_not_load_pandas() -> None:
    """It would take 50 MiB of the 120 that the view may have."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import subprocess
import sys
from pathlib import Path
from synthetic.live_rows import cgroup, rows
from tracer.kernel.cgroups.cgroupfs import Hierarchy
import tracer.top.live_view
from tracer.top.files_now import FilesNow
from tracer.top.files_now import FilesNow
from tracer.top.recording_view import RecordingView

view = RecordingView(Hierarchy(2, Path("/nowhere"), "/"), Path("traces"), print)
view.follow("cgroups", rows("cgroups", cgroup(2)))
view.follow("samples", rows("samples", {{"cgroup_id": 2, "source": "periodic", "time": 7}}))
for category in ("anon", "file"):
    view.follow("charge", rows("charge", {{"cgroup_id": 2, "category": category, "bytes": 4096}}))
(row,) = view.take()
assert view.sheets(2, FilesNow())
sys.exit("pandas" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == 0
