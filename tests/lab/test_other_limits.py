"""Answers of `whatif` compared with runs: wrong ones, ranges that do not hold, and work of known sizes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tracer.analysis.results.outcome import AtLimit, WhatIf
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.whatif.outcomes import what_if
from tracer.lab import other_limits
from tracer.lab.experiments import EXPERIMENTS, Experiment
from tracer.lab.other_limits import Answered, asked_and_run, check, limits_around
from tracer.lab.resize import Rerun
from tracer.lab.scratch import write_uncached

MIB = 1 << 20
LIVED, KILLED, CRAWLED = Rerun(0, 0, 1.0, 40 * MIB), Rerun(-9, 1, 1.0, 0), Rerun(None, 0, 60.0, 900 * MIB)


def answered(outcome: Any, run: Rerun, *again: int | None) -> Answered:
    ends: Any = tuple(end if end is None else end * MIB for end in again) or (None, None)
    return Answered(AtLimit(64 * MIB, 0, outcome, "it fits", ends), run, 40 * MIB)


@pytest.mark.parametrize(
    ("outcome", "run", "is_wrong"),
    [
        ("killed", KILLED, False),
        ("killed", LIVED, True),
        ("killed", CRAWLED, False),  # it was ended: it may still have been killed
        ("survives", LIVED, False),
        ("survives", KILLED, True),
        ("thrashes", CRAWLED, False),
        ("thrashes", KILLED, True),
        ("unknown", LIVED, False),
        ("unknown", KILLED, False),
    ],
)
def test_answer_is_wrong_if_the_run_ended_otherwise(outcome: Any, run: Rerun, is_wrong: bool) -> None:
    assert answered(outcome, run).is_wrong is is_wrong
    assert check(answered(outcome, run)).passed is not is_wrong


@pytest.mark.parametrize(
    ("again", "is_outside"),
    [
        ((39, 41), False),
        ((42, None), True),
        ((41, None), False),  # memory.stat may lack 1 MiB
        ((None, 38), True),
        ((None, 39), False),
        ((0, 0), True),
        ((None, None), False),
    ],
)
def test_what_was_read_again_is_compared_with_both_ends(
    again: tuple[int | None, int | None], is_outside: bool
) -> None:
    one = answered("survives", LIVED, *again)
    assert (one.is_outside, one.is_wrong) == (is_outside, False)
    assert check(one).passed is not is_outside
    assert one.is_counted == (again != (None, None))
    assert not answered("survives", replace(LIVED, refaulted_bytes=None), *again).is_counted
    assert not answered("unknown", KILLED, *again).is_outside


@pytest.mark.parametrize(
    ("again", "is_wide"),
    [
        ((0, 1), False),
        ((0, 2), True),
        ((40, 60), False),
        ((40, 61), True),
        ((None, 9), True),
        ((9, None), True),
    ],
)
def test_range_is_wide_from_half_as_much_more(again: tuple[int | None, int | None], is_wide: bool) -> None:
    one = answered("survives", LIVED, *again)
    assert one.is_wide is is_wide
    assert one.is_above and not replace(one, recorded_bytes=64 * MIB).is_above


def test_check_says_what_was_expected_and_what_happened() -> None:
    found = check(answered("survives", LIVED, 42, None))
    assert found.name == "what a trace says about 64 MiB is what happens there"
    assert found.detail == (
        "survives at 64 MiB: lived; read again 40 MiB, expected 42 MiB to not known; it fits"
    )


def test_limits_are_below_the_demand_and_above_it() -> None:
    found = WhatIf("/work", None, 1, 1, 1 << 30, 40 * MIB, 50 * MIB, (AtLimit(90 * MIB, 0, "survives", ""),))
    limits = limits_around(found)
    assert [limit / MIB for limit in limits] == [20, 32, 38, 51, 71, 95]
    unknown = replace(found, killed_below_bytes=None, survives_from_bytes=None)
    assert len(set(limits_around(unknown))) == 6


def test_both_traces_are_asked_about_the_limits_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, runs = [], []

    def record(experiment: Experiment, *_: Any, **__: Any) -> str:
        recorded.append(experiment.limit_bytes)
        return f"{experiment.limit_bytes}"

    def what_if(trace: str, limits: Any, _: str) -> WhatIf:
        at = [AtLimit(limit, 0, "killed", f"asked {trace}") for limit in limits or [90 * MIB]]
        return WhatIf("/work", None, 1, 1, None, 40 * MIB, 50 * MIB, tuple(at))

    def rerun(_: Experiment, limit: int, *__: Any, is_timed: bool) -> Rerun:
        assert not is_timed
        runs.append(limit)
        return KILLED

    monkeypatch.setattr(other_limits, "record", record)
    monkeypatch.setattr(other_limits, "rerun", rerun)
    monkeypatch.setattr(other_limits, "what_if", what_if)
    monkeypatch.setattr(other_limits, "own_cgroup", lambda _: "/work")
    monkeypatch.setattr(other_limits, "AnalysedTrace", lambda path: path)
    found = asked_and_run(replace(EXPERIMENTS["anon"], limit_bytes=70 * MIB), Path("/var/tmp"))
    assert recorded == [70 * MIB, 1 << 30]
    assert runs[0] == 1 << 30, "what it reads with room for all of it is compared with the other runs"
    assert [one.at.limit_bytes for one in found] == runs[1:] * 2 and len(runs) == 7
    assert {one.at.why for one in found} == {f"asked {70 * MIB}", f"asked {1 << 30}"}


@contextmanager
def _file(scratch: Path) -> Iterator[Path]:
    write_uncached(scratch / "read-me", 23 * MIB)
    yield scratch


WORK = replace(
    EXPERIMENTS["thrash"],
    name="other-limits",
    prepare=_file,
    limit_bytes=37 * MIB,
    steps=lambda place: ["anon", str(17 * MIB), "then", "read", *[str(place / "read-me")] * 3],
)
"""17 MiB that cannot be freed beside some for Python, and 23 MiB that are read three times."""


@pytest.mark.vm_once
@pytest.mark.kernel
def test_traces_say_what_happens_at_other_limits(disk_dir: Path) -> None:
    found = asked_and_run(WORK, disk_dir)
    assert [one.line() for one in found if one.is_wrong or one.is_outside] == []
    own, roomy = found[:6], found[6:]
    assert [one.at.outcome for one in roomy] == ["killed"] * 3 + ["survives"] * 3
    assert [one.at.outcome for one in own[:3]] == ["killed"] * 3
    # Below the recorded limit, page cache in reading may leave it open. Above it, the work may have thrashed.
    above = [one.at.why for one in own[3:] if one.at.limit_bytes >= WORK.limit_bytes]
    assert above and all(" fits" in why for why in above)
    # It depends on earlier tests how many files of Python the work is the first to read.
    low, high = roomy[-1].at.read_again_bytes
    assert low == 0 and high is not None and high < MIB
    again = own[-1].at.read_again_bytes
    assert again[1] is not None and again[1] < 3 * MIB


_FLEETING: Final = """
import mmap
memory = mmap.mmap(-1, 24 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for place in range(0, 24 << 20, mmap.PAGESIZE):
    memory[place] = 1
with open("/proc/self/status") as status:
    (anonymous,) = (line.split()[1] for line in status if line.startswith("RssAnon"))
memory.close()
print(anonymous)
"""


@pytest.mark.beside
@pytest.mark.kernel
def test_memory_that_was_freed_at_once_needs_room(tmp_path: Path) -> None:
    """It is freed in less time than its last 10 ms took to come, so the ledger seldom sees all of it."""
    trace = tmp_path / "trace"
    command = [sys.executable, "-m", "tracer", "record", "--limit", "200M", "-o", str(trace)]
    program = [sys.executable, "-c", _FLEETING]
    ended = subprocess.run([*command, "--", *program], check=True, capture_output=True, text=True)
    needed = int(ended.stdout.split()[0]) << 10
    found = what_if(AnalysedTrace(trace), [needed])
    assert found.limits[0].outcome in ("killed", "unknown")
    assert found.survives_from_bytes is not None
    assert needed < found.survives_from_bytes < needed + 20 * MIB
