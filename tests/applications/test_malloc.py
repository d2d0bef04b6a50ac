"""Programs whose malloc holds free memory, and the same with the advice followed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.compiled import compiled

import tracer

pytestmark = pytest.mark.kernel

MIB = 1 << 20


def recorded(trace: Path, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    record = [sys.executable, "-m", "tracer", "record", "-o", str(trace), "--limit", "48M", "--swap", "0"]
    return subprocess.run(
        [*record, "--", *map(str, command)],
        env=os.environ | environment,
        input="\n",
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("mode", "advised", "more", "environment"),
    [
        (
            "threads",
            "Set MALLOC_ARENA_MAX=2 in the environment of",
            (),
            {"MALLOC_ARENA_MAX": "2"},
        ),
        ("pieces", "Call malloc_trim(0) in fragmenting", ("trim",), {}),
    ],
)
def test_advice_on_memory_that_malloc_holds_keeps_the_program_alive(
    tmp_path: Path, mode: str, advised: str, more: tuple[str, ...], environment: dict[str, str]
) -> None:
    program = compiled("fragmenting", tmp_path, "-pthread")
    killed = recorded(tmp_path / "killed", program, mode)
    assert "grown" not in killed.stdout
    (report,) = tracer.open(tmp_path / "killed").explain()
    first, *_ = report.advice
    assert first.startswith(advised), report.advice
    (glibc,) = report.runtime
    # 34.5 MiB are free in the end; a starved recorder may have looked while the program still freed memory.
    # tests/kernel/anatomy holds the number to the byte.
    assert 48 * MIB / 5 <= glibc["free_present_bytes"] < 35.5 * MIB
    lived = recorded(tmp_path / "lived", program, mode, *more, **environment)
    assert lived.stdout.splitlines()[:2] == ["ready", "grown"], lived.stderr
    assert tracer.open(tmp_path / "lived").explain() == []
