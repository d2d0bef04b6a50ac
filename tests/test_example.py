"""The recorded examples: real traces, read on any machine, and the expected output of the verbs.

`traces/example` was recorded later, with samples of the code that grew. It is the picture of the README, and
what `make demo` shows where nothing can be recorded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.timeline import timeline
from tracer.cli.group import group
from tracer.lab.experiments import EXPERIMENTS
from tracer.lab.run import examine

ROOT = Path(__file__).parent.parent
EXAMPLE = "traces/page-cache"
WITH_CODE = "traces/example"
VIEWS = {
    "timeline.txt": ["timeline", EXAMPLE],
    "timeline.csv": ["timeline", EXAMPLE, "--csv", "--every", "200ms"],
    "explain.txt": ["explain", EXAMPLE],
    "explain.json": ["explain", EXAMPLE, "--json"],
    "evictions.txt": ["evictions", EXAMPLE],
    "evictions.json": ["evictions", EXAMPLE, "--json"],
    "info.txt": ["info", EXAMPLE],
}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", VIEWS)
def test_view_of_the_recorded_example_matches_the_golden_file(
    name: str, matches_golden: Callable[[str, str], None]
) -> None:
    shown = CliRunner().invoke(group, VIEWS[name], catch_exceptions=False)
    assert shown.exit_code == 0
    matches_golden(str(ROOT / f"{EXAMPLE}.{name}"), shown.output)


def test_recorded_example_has_the_three_acts() -> None:
    """Cache fills the limit, anonymous memory replaces it, and the kill comes when no cache is left."""
    trace = AnalysedTrace(EXAMPLE)
    (report,) = trace.explain()
    limit = report.limit_owner.limit_bytes
    assert limit == 100 << 20
    frame = timeline(trace, cgroup=report.limit_owner.cgroup, every="20ms")
    before = frame[frame.index <= report.time]
    assert before["cache_bytes"].max() > 0.9 * limit
    giving_way = before[before["anon_bytes"].between(0.2 * limit, 0.9 * limit)]
    assert giving_way["usage_bytes"].min() > 0.95 * limit
    assert report.verdict.cause == "anon_growth"
    assert report.cushion.cache_end_bytes is not None
    assert report.cushion.cache_end_bytes < 0.02 * limit
    pgsteal = trace.samples["pgsteal"].dropna().max()
    evicted = trace.pagecache[trace.pagecache["cause"] == "reclaim_memcg"]["nr_pages"].sum()
    assert evicted == pgsteal
    composition = report.composition
    assert composition.total == limit


def test_example_with_code_names_the_functions_of_the_demo(
    matches_golden: Callable[[str, str], None],
) -> None:
    checks = examine(EXPERIMENTS["page-cache"], AnalysedTrace(WITH_CODE))
    assert [check for check in checks if not check.passed] == []
    assert checks[-1].detail.startswith(
        "72% in load_rows (app.py:25), 28% in build_index (app.py:30); set up"
    )
    shown = CliRunner().invoke(group, ["explain", WITH_CODE], catch_exceptions=False)
    matches_golden(str(ROOT / f"{WITH_CODE}.explain.txt"), shown.output)
    assert sum(file.stat().st_size for file in Path(WITH_CODE).iterdir()) < 250_000


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize(("written", "shown"), [(":", []), ("touch traces/demo/meta.json", ["timeline"])])
def test_demo_that_fails_shows_the_trace_of_this_run_only(
    tmp_path: Path, written: str, shown: list[str]
) -> None:
    """The other verbs of this tracer fail as well, and end the demo."""
    of_earlier_run = tmp_path / "traces/demo/meta.json"
    of_earlier_run.parent.mkdir(parents=True)
    of_earlier_run.touch()
    os.utime(of_earlier_run, (0, 0))
    tracer_that_fails = tmp_path / "tracer"
    lab = f"[ $1 != lab ] || {written}"
    lines = ("#!/bin/sh", "echo $1 >>called", "[ $1 != doctor ] || exit 0", lab, "exit 1")
    tracer_that_fails.write_text("\n".join(lines))
    tracer_that_fails.chmod(0o700)
    makefile = str(ROOT / "Makefile")
    command = ["make", "-f", makefile, "-o", "setup-demo", "demo", f"TRACER={tracer_that_fails}"]
    status = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode
    assert status == 2, "the exit status of make for a command that fails"
    assert (tmp_path / "called").read_text().split() == ["doctor", "lab", *shown]
