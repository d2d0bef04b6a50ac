"""Which traces are copied, when it is tried again, and what is said of traces that are removed before."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.slowdown import SLOWDOWN
from support.storing.spooled_trace import contents, write_spooled

from tracer.watch import copying
from tracer.watch.copying import Copying

ANSWERING = """
import json, pathlib, sys
spool = pathlib.Path(sys.argv[1])
with open(spool / "asked", "a+") as log:
    print(json.dumps(sys.argv[3:]), file=log, flush=True)
    log.seek(0)
    own = spool / f"answer-{len(log.readlines())}"
print((own if own.exists() else spool / "answer").read_text())
"""
URL = "sftp://me:secret@host/x"


class Copied:
    """A spool with what was said of its copies, and an event loop for them."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.notices: list[str] = []
        self.warnings: list[str] = []
        self.answer([{"error": None}])

    def answer(self, lines: list[Any], *, child: int | None = None) -> None:
        """Have children of `ANSWERING`, or the one of this number, print these JSON documents."""
        name = "answer" if child is None else f"answer-{child}"
        (self.spool / name).write_text("\n".join(map(json.dumps, lines)))

    @property
    def asked(self) -> list[list[str]]:
        """Return the names that each child of `ANSWERING` got."""
        return [json.loads(line) for line in (self.spool / "asked").read_text().splitlines()]

    def open(self, url: str | None = URL, *, is_real: bool = False, **options: Any) -> Copying:
        child: dict[str, Any] = {} if is_real else {"copying": (sys.executable, "-c", ANSWERING)}
        return Copying(self.spool, url, self.notices.append, self.warnings.append, **child, **options)

    def run(self, work: Copying, until: Callable[[], bool] = lambda: False) -> None:
        """Step until the work is idle, waits for a later time, or `until` is true."""
        end_s = time.monotonic() + 60 * SLOWDOWN
        while not until() and (work._child is not None or work.due_s <= time.monotonic()):
            assert time.monotonic() < end_s, "it takes too long"
            work.step(time.monotonic())
            time.sleep(0.005)


@pytest.fixture
def copied(tmp_path: Path) -> Copied:
    return Copied(tmp_path)


def test_without_a_url_nothing_is_done(copied: Copied) -> None:
    work = copied.open(None)
    work.add(copied.spool / "a")
    work.removed([copied.spool / "a"])
    work.finish(time.monotonic() + 9)
    assert (work.due_s, copied.warnings) == (math.inf, [])


def test_real_child_copies_what_is_there_and_then_each_new_trace(copied: Copied, tmp_path: Path) -> None:
    write_spooled(copied.spool / "old")
    work = copied.open(f"file://{tmp_path}/at", is_real=True)
    copied.run(work)
    assert copied.notices == [f"copied to file://{tmp_path}/at/old"]
    assert work.due_s == math.inf
    write_spooled(copied.spool / "new", start_ns=2)
    work.add(copied.spool / "new")
    copied.run(work)
    assert copied.notices[1:] == [f"copied to file://{tmp_path}/at/new"]
    assert contents(tmp_path / "at/new") == contents(copied.spool / "new")
    assert copied.warnings == []


def test_first_child_looks_at_all_and_the_next_at_new_ones_only(copied: Copied) -> None:
    copied.answer([["there", "old", None], {"error": None}])
    work = copied.open()
    copied.run(work)
    for name in ("b", "a"):
        (copied.spool / name).mkdir()
        work.add(copied.spool / name)
    copied.answer([["pushed", "a", "url/a"], ["failed", "b", "it is damaged"], {"error": None}])
    copied.run(work)
    assert copied.asked == [[], ["a", "b"]]
    assert copied.notices == ["copied to url/a"]
    assert copied.warnings == ["b is not copied: it is damaged"]
    assert work.due_s == math.inf


def test_trace_that_is_not_complete_is_tried_again_after_a_minute(copied: Copied) -> None:
    (copied.spool / "a").mkdir()
    copied.answer([["later", "a", "it is being written"], {"error": None}])
    work = copied.open()
    copied.run(work)
    assert 60 < work.due_s - time.monotonic() <= 70
    copied.answer([["pushed", "a", "url/a"], {"error": None}])
    work.step(work.due_s)
    copied.run(work)
    assert copied.asked == [[], ["a"]]
    assert work.due_s == math.inf


@pytest.mark.parametrize("moment", ["before the child ends", "after it has ended"])
def test_trace_that_is_finished_since_is_copied_at_once(copied: Copied, moment: str) -> None:
    """The child has found it while it was being written."""
    (copied.spool / "a").mkdir()
    copied.answer([["later", "a", "it is being written"], {"error": None}], child=1)
    copied.answer([["pushed", "a", "url/a"], {"error": None}], child=2)
    work = copied.open()
    work.step(time.monotonic())
    if moment == "after it has ended":
        copied.run(work)
    work.add(copied.spool / "a")
    copied.run(work)
    assert copied.asked == [[], ["a"]]
    assert work.due_s == math.inf


@pytest.mark.parametrize(
    ("lines", "words"),
    [([{"error": "cannot use it"}], "cannot use it"), ([["there", "a", None]], "ended with exit status 0")],
)
def test_failure_is_reported_once_and_tried_again_later_and_later(
    copied: Copied, lines: list[Any], words: str
) -> None:
    copied.answer(lines)
    work = copied.open(again_after_s=(30.0, 60.0))
    waits = []
    for _ in range(4):
        work.step(max(work.due_s, time.monotonic()))
        copied.run(work)
        waits.append(round(work.due_s - time.monotonic(), -1))
    assert waits == [30, 60, 60, 60]
    (warning,) = copied.warnings
    assert words in warning and "sftp://me:***@host/x" in warning and "secret" not in warning
    copied.answer([{"error": None}])
    work.step(work.due_s)
    copied.run(work)
    assert copied.notices == ["traces are copied to sftp://me:***@host/x again"]
    assert copied.asked == [[]] * 5


def test_child_that_takes_too_long_is_killed_and_tried_again(copied: Copied) -> None:
    work = copied.open(
        copying=(sys.executable, "-c", "import time; time.sleep(99)"), within_s=0.2, is_real=True
    )
    copied.run(work)
    assert "took longer than 0 s and was killed" in copied.warnings[0]
    assert work.due_s > time.monotonic() + 20


def test_trace_removed_before_it_was_seen_is_counted(copied: Copied) -> None:
    copied.answer([["there", "a", None], {"error": None}])
    work = copied.open()
    copied.run(work)
    work.removed([copied.spool / "a"])
    assert copied.warnings == []
    work.add(copied.spool / "b")
    work.removed([copied.spool / "b", copied.spool / "c"])
    work.removed([copied.spool / "a"])
    assert [warning.partition(":")[0] for warning in copied.warnings] == [
        "2 traces removed before being seen at sftp",
        "1 trace removed before being seen at sftp",
    ]
    assert "(3 so far)" in copied.warnings[1]


def test_end_copies_what_is_left_and_says_what_is_not(copied: Copied) -> None:
    (copied.spool / "a").mkdir()
    copied.answer([{"error": "no connection"}])
    work = copied.open()
    copied.run(work)
    work.add(copied.spool / "a")
    copied.answer([["pushed", "a", "url/a"], {"error": None}])
    work.finish(time.monotonic() + 60 * SLOWDOWN)
    assert copied.notices[0] == "copied to url/a"
    assert len(copied.warnings) == 1
    copied.answer([{"error": "no connection"}])
    work = copied.open()
    work.add(copied.spool / "a")
    work.finish(time.monotonic() + 60 * SLOWDOWN)
    assert "may not be at" in copied.warnings[-1]


def test_end_does_not_wait_beyond_its_time(copied: Copied) -> None:
    work = copied.open(copying=(sys.executable, "-c", "import time; time.sleep(99)"), is_real=True)
    began_s = time.monotonic()
    work.finish(began_s + 0.3)
    assert time.monotonic() - began_s < 20 * SLOWDOWN
    assert "may not be at" in copied.warnings[-1]


def test_many_names_become_a_look_at_all(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_MOST_NAMES", 2)
    work = copied.open()
    copied.run(work)
    for name in "abc":
        (copied.spool / name).mkdir()
        work.add(copied.spool / name)
    copied.answer([*(["there", name, None] for name in "abc"), {"error": None}])
    copied.run(work)
    assert copied.asked == [[], []]


def test_child_has_low_priority_and_reports_any_failure(copied: Copied, tmp_path: Path) -> None:
    """A kind of file that no target can be written to is a failure of the target."""
    write_spooled(copied.spool / "a")
    (tmp_path / "at").write_text("")
    work = copied.open(f"file://{tmp_path}/at", is_real=True)
    work.step(time.monotonic())
    assert work._child is not None
    pid = work._child._process.pid
    copied.run(
        work, until=lambda: not Path(f"/proc/{pid}").exists() or os.getpriority(os.PRIO_PROCESS, pid) >= 10
    )
    copied.run(work)
    assert "Not a directory" in copied.warnings[0]


def test_recorder_loads_nothing_that_copies() -> None:
    script = "import sys, tracer.watch.watching; sys.exit(bool({'fsspec', 'pandas'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
