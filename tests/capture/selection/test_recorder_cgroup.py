"""A recorder in a cgroup that it traces: it warns, and its own death does not prove that nothing was
killed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.recorder import Recorder

from tracer.analysis.trace import AnalysedTrace
from tracer.capture.selection import traced_cgroups
from tracer.capture.selection.traced_cgroups import find_recorder_cgroup
from tracer.cli.group import group
from tracer.kernel.cgroups.cgroupfs import Hierarchy, memory_hierarchy
from tracer.render.words import survivor_facts

MIB = 1 << 20


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hierarchy:
    """Make a hierarchy in which this process is in /a/b, and no cgroup has a limit yet."""
    for path in ("", "a", "a/b"):
        (tmp_path / path).mkdir(exist_ok=True)
        (tmp_path / path / "memory.max").write_text("max\n")
    monkeypatch.setattr(traced_cgroups, "own_path", lambda _: "/a/b")
    return Hierarchy(2, tmp_path, "/")


def test_recorder_without_a_limit_gets_no_warning(hierarchy: Hierarchy) -> None:
    assert find_recorder_cgroup(hierarchy, lambda _: True) is None


def test_lowest_limit_above_the_recorder_is_named(hierarchy: Hierarchy) -> None:
    (hierarchy.mount / "a" / "memory.max").write_text(f"{90 * MIB}\n")
    (hierarchy.mount / "a" / "b" / "memory.max").write_text(f"{100 * MIB}\n")
    own, warning = find_recorder_cgroup(hierarchy, lambda path: path == "/a/b") or ("", "")
    assert own == "/a/b"
    assert "'/a/b'" in warning
    assert "the limit of '/a' (90 MiB)" in warning
    assert find_recorder_cgroup(hierarchy, lambda _: False) is None


@pytest.mark.kernel
@pytest.mark.parametrize("limit", [None, 1 << 40])
def test_recorder_killed_in_a_traced_cgroup_denies_no_kill(
    memcg: Path, tmp_path: Path, limit: int | None
) -> None:
    """The recorder gets SIGKILL, as from the OOM killer; the report does not deny a kill that it may have
    missed.
    """
    version = memory_hierarchy().version
    if limit is not None:
        name = "memory.limit_in_bytes" if version == 1 else "memory.max"
        (memcg / name).write_text(str(limit))
    enter = ("sh", "-c", f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"')
    with Recorder(tmp_path, "--ready-file", "ready", "-c", str(memcg), wrapper=enter) as recorder:
        recorder.wait_until_ready()
        recorder.process.send_signal(signal.SIGKILL)
        recorder.end()
    trace = AnalysedTrace(recorder.path)
    text = survivor_facts.summary(trace.held_cgroups())
    assert text.startswith("No OOM kill was recorded before the recording broke off")
    assert "a kill after that cannot be excluded" in text
    assert ("is likely: the recorder ran in" in text) == (limit is not None)
    assert ("the recorder itself runs in" in recorder.stderr) == (limit is not None)


FILL = """
import sys
kept = []
while True:
    kept.append(bytearray(b"x" * (1 << 20)))
"""


@pytest.mark.kernel
def test_recorder_killed_by_the_oom_killer_leaves_a_readable_trace(memcg: Path, tmp_path: Path) -> None:
    """The recorder has the highest badness in its cgroup, and another process reaches the limit."""
    version = memory_hierarchy().version
    name = "memory.limit_in_bytes" if version == 1 else "memory.max"
    enter = f'echo 0 > "{memcg}/cgroup.procs" && '
    raised = ("sh", "-c", f'{enter} echo 1000 > /proc/self/oom_score_adj && exec "$0" "$@"')
    (memcg / name).write_text(str(1 << 40))
    with Recorder(tmp_path, "--ready-file", "ready", "-c", str(memcg), wrapper=raised) as recorder:
        recorder.wait_until_ready()
        filler = subprocess.Popen(["sh", "-c", f'{enter} exec "$0" -c "$1"', sys.executable, FILL])
        try:
            usage = "memory.usage_in_bytes" if version == 1 else "memory.current"
            limit = int((memcg / usage).read_text()) + 32 * MIB
            (memcg / name).write_text(str(limit))
            recorder.end()
        finally:
            filler.kill()
            filler.wait()
    assert recorder.process.returncode == -signal.SIGKILL
    shown = {
        verb: CliRunner().invoke(group, [verb, str(recorder.path)], catch_exceptions=False).stdout
        for verb in ("info", "explain")
    }
    assert "interrupted" in shown["info"]
    if len(AnalysedTrace(recorder.path).oom):  # the recorder may be scheduled once more before it dies
        assert "was killed" in " ".join(shown["explain"].split())
    else:
        text = " ".join(shown["explain"].split())
        assert text.startswith("No OOM kill was recorded before the recording broke off")
        assert "is likely: the recorder ran in" in text
