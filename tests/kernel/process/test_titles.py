"""Titles of processes, including those that reuse a pid, and hostile titles."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tracer.kernel.process import titles
from tracer.kernel.process.titles import MOST_BYTES, read_title

START_NS = 1234 * titles._NS_PER_TICK + 5


def process(proc: Path, cmdline: bytes, comm: str = "a) b") -> None:
    folder = proc / "7"
    folder.mkdir()
    (folder / "cmdline").write_bytes(cmdline)
    fields = ["S"] + ["0"] * 18 + ["1234", "0"]
    (folder / "stat").write_text(f"7 ({comm}) {' '.join(fields)}\n")


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
    assert read_title(7, START_NS + titles._NS_PER_TICK, tmp_path) is None
    assert read_title(8, START_NS, tmp_path) is None


def test_title_of_a_running_process_is_its_command_line() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as child:
        try:
            ticks = int(Path(f"/proc/{child.pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
            deadline = time.monotonic() + 10
            while read_title(child.pid, ticks * titles._NS_PER_TICK) != " ".join(command):
                assert time.monotonic() < deadline
        finally:
            child.kill()
