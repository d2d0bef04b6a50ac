"""Damaged traces: one line from the real command, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tracer.schema import SCHEMA_VERSION


def cut_parquet(trace: Path) -> None:
    file = trace / "charge.parquet"
    os.truncate(file, file.stat().st_size // 2)


def cut_meta(trace: Path) -> None:
    os.truncate(trace / "meta.json", 40)


def no_meta(trace: Path) -> None:
    (trace / "meta.json").unlink()


def later_schema(trace: Path) -> None:
    meta = json.loads((trace / "meta.json").read_text())
    (trace / "meta.json").write_text(json.dumps(meta | {"schema_version": SCHEMA_VERSION + 1}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_parquet, "charge.parquet"),
        (cut_meta, "is damaged, it is not JSON"),
        (no_meta, "is not a trace, it has no meta.json"),
        (later_schema, f"is of schema {SCHEMA_VERSION + 1}, this version reads {SCHEMA_VERSION}: update"),
    ],
)
@pytest.mark.parametrize("verb", ["explain", "timeline"])
def test_damaged_trace_fails_with_one_line(
    write_trace: Callable[..., Path], verb: str, damage: Callable[[Path], None], words: str
) -> None:
    trace = write_trace()
    damage(trace)
    command = [sys.executable, "-m", "tracer", verb, str(trace)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("memcg-tracer: error: ")
    assert words in line


def test_cut_journal_is_read_up_to_the_cut(write_trace: Callable[..., Path]) -> None:
    trace = write_trace(ended=False)
    (journal,) = trace.glob("journal/charge.*")
    os.truncate(journal, journal.stat().st_size - 100)
    command = [sys.executable, "-m", "tracer", "info", str(trace)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert "interrupted" in ended.stdout
