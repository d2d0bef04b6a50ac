"""The trace that `x` explains: that of the newest kill of a cgroup, also while it grows or has not begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.top.live_view import _MOST_KILLED, _KillTraces


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return made(tmp_path, "one")


def made(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_newest_kill_is_in_the_growing_trace_although_an_earlier_one_is_finished(
    one: Path, tmp_path: Path
) -> None:
    kills, two = _KillTraces(), made(tmp_path, "two")
    kills.killed(["/web"], None)
    kills.begun(one, renamed=None)
    kills.killed(["/web"], None)
    assert kills.newest("/web") == (True, None)  # the next trace has not begun
    kills.begun(two, renamed=None)
    kills.killed(["/db"], two)
    assert (kills.newest("/web"), kills.newest("/")) == ((True, two), (True, two))


def test_trace_that_a_kill_renames_is_found_under_its_new_name(one: Path, tmp_path: Path) -> None:
    kills = _KillTraces()
    kills.killed(["/web"], one)
    kills.begun(two := made(tmp_path, "two"), renamed=one)
    assert kills.newest("/web") == (True, two)


def test_kill_below_a_cgroup_counts_for_it_and_a_like_name_does_not(one: Path) -> None:
    kills = _KillTraces()
    kills.killed(["/pods/web/c"], one)
    assert [kills.newest(path)[1] for path in ("/pods", "/pods/web", "/pods/we")] == [one, one, None]
    assert kills.newest("/pods/web/c/below") == (False, None)


def test_trace_that_was_removed_is_not_explained(one: Path) -> None:
    kills = _KillTraces()
    kills.killed(["/web"], one)
    one.rmdir()
    assert kills.newest("/web") == (False, None)


def test_kills_of_many_cgroups_are_bounded(one: Path) -> None:
    kills = _KillTraces()
    for number in range(_MOST_KILLED + 3):
        kills.killed([f"/{number}"], one)
    assert kills.newest("/2") == (False, None)
    assert kills.newest("/3") == (True, one)
