"""Progress of long work: on stderr only, and only if the work is long."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.recorded import TRACES
from support.slowdown import SLOWDOWN

from tracer.cli import progress
from tracer.cli.group import group

EXAMPLE = str(TRACES / "page-cache")
LONG = [
    ["explain", EXAMPLE],
    ["explain", EXAMPLE, "--json"],
    ["timeline", EXAMPLE],
    ["evictions", EXAMPLE],
    ["report", EXAMPLE, "-f", "-o"],
    ["export", EXAMPLE, "--to", "chrome", "-f", "-o"],
    ["export", EXAMPLE, "--to", "csv", "-f", "-o"],
    ["export", EXAMPLE, "--to", "dataset", "-o"],
    ["fleet", EXAMPLE],
]


@pytest.mark.parametrize("words", LONG, ids=lambda words: " ".join(words[:1] + words[2:-1]))
def test_long_work_has_a_line_on_stderr_and_none_on_stdout(words: list[str], tmp_path: Path) -> None:
    out = [str(tmp_path / "out")] if words[-1] == "-o" else []
    done = CliRunner().invoke(group, [*words, *out], env={progress.SWITCH: "0"})
    assert done.exit_code == 0
    assert re.search(r"^memcg-tracer: .*, \d+ s$", done.stderr, flags=re.MULTILINE), done.stderr
    assert not re.search(r", \d+ s$", done.stdout, flags=re.MULTILINE)


def test_progress_on_a_terminal_is_one_line_that_is_gone_at_the_end() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {progress.SWITCH: "0", "TERM": "xterm"}
    code = (
        "import time\n"
        "from tracer.cli import progress\n"
        "with progress.shown('reading \\x1b[31mred') as now:\n"
        "    time.sleep(0.6)\n"
        "    now.counts(1, 3)\n"
        "    time.sleep(0.6)\n"
        "print('answer')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert run.stdout == b"answer\n"
    assert rb"reading \x1b[31mred, " in seen and b"1 of 3 read, " in seen
    assert b"\x1b[2K" in seen.rpartition(b"read, ")[2]


def test_lines_come_at_once_and_then_at_each_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(progress.SWITCH, "0")
    monkeypatch.setattr(progress, "_EVERY_S", 0.01)
    seen = ""
    with progress.shown("reading") as now:
        while seen.count("reading, 0 s\n") < 3 and now._line() < f"memcg-tracer: reading, {9 * SLOWDOWN:.0f}":
            seen += capsys.readouterr().err
    assert seen.startswith("memcg-tracer: reading, ")
    assert seen.count("\n") >= 3


def test_default_shows_nothing_of_quick_work_and_a_line_within_two_seconds() -> None:
    assert 1 <= progress._FIRST_S < 2
    assert progress._seconds("soon") == progress._FIRST_S


def test_work_within_other_work_has_no_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(progress.SWITCH, "3600")
    with progress.shown("explaining") as outer, progress.shown("reading") as inner:
        assert inner is outer
        assert outer._line().startswith("memcg-tracer: reading, ")
    with progress.shown("writing") as after:
        assert after is not outer
    assert capsys.readouterr().err == ""


def test_first_line_counts_from_the_start_of_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOADED_S", time.monotonic() - 0.75)
    assert 0.5 <= progress._wait_s(1.5) <= 0.75
    assert 0.5 <= progress._wait_s(60) <= 59.25
    assert progress._wait_s(1) == 0.5
    assert progress._wait_s(0) == 0
