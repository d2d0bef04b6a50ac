"""Names of programs that have several (hard links)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracer

pytestmark = [pytest.mark.kernel, pytest.mark.beside]


@pytest.mark.parametrize("first", ["by-another-name", "executed"])
def test_program_with_several_names_has_the_one_by_which_it_is_executed(
    first: str, memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    program, link = disk_dir / "program", disk_dir / "link"
    shutil.copy(shutil.which("sleep") or "", program)
    os.link(program, link)  # the kernel lists the newest name first
    recorder = start_recorder("-c", str(memcg))
    read = f'cat "{link}" > {os.devnull};' if first == "by-another-name" else ""
    script = f'echo 0 > "{memcg}/cgroup.procs"; {read} "{program}" 0.05'
    subprocess.run(["sh", "-c", script], check=True)
    trace = tracer.open(recorder.stop())
    files = trace.inodes[trace.inodes["path"].str.startswith(f"{disk_dir}/", na=False)]
    assert files["path"].tolist() == [str(program)]
    assert files["inode_id"].iloc[0] in set(trace.tasks["exe_inode_id"])
