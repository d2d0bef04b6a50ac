"""Damaged traces: an error of one line, or all that can be read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tracer.cli.group import group
from tracer.errors import TracerError
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
    write_trace: Callable[..., Path], run: CliRunner, verb: str, damage: Callable[[Path], None], words: str
) -> None:
    trace = write_trace()
    damage(trace)
    result = run.invoke(group, [verb, str(trace)])
    error = result.exception
    assert isinstance(error, TracerError)
    assert (error.exit_code, result.output) == (1, "")
    (line,) = str(error).splitlines()
    assert words in line


def test_cut_journal_is_read_up_to_the_cut(write_trace: Callable[..., Path], run: CliRunner) -> None:
    trace = write_trace(ended=False)
    (journal,) = trace.glob("journal/charge.*")
    os.truncate(journal, journal.stat().st_size - 100)
    result = run.invoke(group, ["info", str(trace)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "interrupted" in result.stdout
