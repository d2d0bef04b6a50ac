"""What `top` prints without a terminal: hostile names stay on their line, in tables, JSON and decisions."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic.live_view_rows import MIB, NOON_NS, row

from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.top import live_view
from tracer.top.feed import LIMIT, Decision
from tracer.top.live_row import LiveRow
from tracer.top.live_view import TopOptions
from tracer.top.recording_view import RecordingView
from tracer.top.view_state import Machine
from tracer.watch.finishing import Finished

HOSTILE = "\x1b[2J\x1b]0;t\x07\r\n\u202e\u2028<script>alert('x')</script>=cmd()\"'\\\udcff"
ROWS = (
    row(1, None, "/a", usage_bytes=30 * MIB),
    row(2, None, f"/{HOSTILE}", name=HOSTILE, usage_bytes=20 * MIB, limit_owner=f"/{HOSTILE}", kills=2),
)


class Started:
    """The progress of a recording that has begun."""

    startup_s = 0.5
    rows: Mapping[str, int] = {}
    lost: Mapping[str, int] = {}
    kills = 0


class Recorded:
    """A recording that has only rows."""

    def __init__(self, hierarchy: Hierarchy, directory: Path, decided: object) -> None:
        self.now_ns = NOON_NS

    def take(self) -> tuple[LiveRow, ...]:
        return ROWS

    def machine(self) -> Machine:
        return Machine()


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TopOptions:
    for name in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(live_view, "RecordingView", Recorded)
    monkeypatch.setattr(live_view, "memory_hierarchy", lambda: Hierarchy(2, tmp_path, "/"))
    return TopOptions(tmp_path)


def test_json_of_a_hostile_name_is_one_line_that_has_it_exactly(
    options: TopOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    live_view._Lines(replace(options, as_json=True))._tick()
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isascii() and line.isprintable() for line in lines)
    first, hostile = map(json.loads, lines)
    assert first["cgroup"] == "/a"
    assert (hostile["cgroup"], hostile["name"], hostile["limit_owner"]) == (
        f"/{HOSTILE}",
        HOSTILE,
        f"/{HOSTILE}",
    )


def test_table_has_one_printable_line_for_a_hostile_name(
    options: TopOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    live_view._Lines(options)._tick()
    written = capsys.readouterr().out
    assert all(line.isprintable() for line in written.split("\n"))
    lines = [line for line in written.splitlines() if line]
    assert len(lines) == 2 + len(ROWS)  # the time and the titles
    assert lines[-1].lstrip().startswith(r"\x1b[2J")


def test_first_table_comes_a_whole_interval_after_the_start(
    options: TopOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `-n 1 -i 60`, the only table covered what was left of a minute of the machine's clock."""
    now_s = 119.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    lines = live_view._Lines(replace(options, interval_s=60.0))
    assert lines._timer.due == 120.0
    lines.ready(Started())
    assert lines._timer.due == 179.0


def test_decisions_and_messages_with_hostile_names_are_one_printable_line_each(
    options: TopOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = live_view._Lines(options)
    lines._decided(Decision(NOON_NS, LIMIT, HOSTILE, f"It is at its limit. {HOSTILE}"))
    lines.notice(HOSTILE)
    lines.warn(HOSTILE)
    shown = capsys.readouterr()
    assert not shown.out
    assert len(shown.err.split("\n")) == 3 + 1
    assert all(line.isprintable() for line in shown.err.split("\n"))


def test_finished_story_of_a_hostile_cgroup_is_one_decision(tmp_path: Path) -> None:
    told: list[Decision] = []
    view = RecordingView(Hierarchy(2, tmp_path, "/"), Path("traces/top"), told.append)
    view.finished(Finished(tmp_path / "t", "kill", NOON_NS, f"/{HOSTILE}", 1, HOSTILE, HOSTILE, HOSTILE))
    (decision,) = told
    assert decision.words().isprintable()
