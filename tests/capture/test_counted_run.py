"""A run that is counted beside the recorder, in one cgroup: which process the OOM killer chooses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tracer.capture import counted_run
from tracer.capture.counted_run import put_before_this
from tracer.capture.options import Options

MIB = 1 << 20
MACHINE_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
OWN = Path("/proc/self/oom_score_adj")

pytestmark = pytest.mark.skipif(OWN.read_text() == "1000\n", reason="no value is above this process's")


@pytest.mark.parametrize("limit_bytes", [None, MACHINE_BYTES // 2, 256 * MIB, MIB])
def test_command_without_memory_is_worse_than_the_recorder(limit_bytes: int | None) -> None:
    """By the kernel's own measure, which is of the machine: /proc/PID/oom_score."""
    with subprocess.Popen(["sleep", "60"]) as command:
        own = int(OWN.read_text())
        put_before_this(command.pid, limit_bytes)
        raised = int(Path(f"/proc/{command.pid}/oom_score_adj").read_text())
        scores = [int(Path(f"/proc/{pid}/oom_score").read_text()) for pid in (command.pid, "self")]
        command.kill()
    assert own < raised <= 1000
    assert scores[0] >= scores[1]
    resident_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if limit_bytes is not None:
        assert raised == 1000 or (raised - own) * limit_bytes / 1000 > resident_bytes


def test_command_in_the_cgroup_of_the_job_is_put_before_the_recorder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(counted_run, "_own_cgroup", lambda *_: None)
    counted_run.count(Options(tmp_path, command=("cat", "/proc/self/oom_score_adj")))
    assert int(capfd.readouterr().out) > int(OWN.read_text())
