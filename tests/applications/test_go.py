"""A Go program with so much garbage that it is killed, and the same with the advice followed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.go_program import built

import tracer

pytestmark = pytest.mark.kernel

MIB = 1 << 20
LIMIT = "80M"


def recorded(program: Path, trace: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    record = [sys.executable, "-m", "tracer", "record", "-o", str(trace), "--limit", LIMIT, "--swap", "0"]
    return subprocess.run(
        [*record, "--", str(program)],
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
    )


def test_memory_limit_that_is_advised_keeps_the_program_alive(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    program = built("go_churner", tmp_path, Path(pytestconfig.cache.mkdir("go")))
    killed = recorded(program, tmp_path / "killed", GOGC="100")
    assert "kept" not in killed.stdout
    (report,) = tracer.open(tmp_path / "killed").explain()
    (go,) = (one for one in report.runtime if one["kind"] == "go")
    assert go["heap_live_bytes"] < 60 * MIB
    assert go["memory_limit_bytes"] is None
    first, *_ = report.advice
    advised = re.match(r"Set GOMEMLIMIT=(\d+MiB) in the environment of go_churner \(pid \d+\): ", first)
    assert advised is not None, report.advice
    lived = recorded(program, tmp_path / "lived", GOGC="100", GOMEMLIMIT=advised[1])
    assert lived.stdout.startswith("kept 50"), lived.stderr
    assert tracer.open(tmp_path / "lived").explain() == []
