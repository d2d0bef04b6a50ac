"""When the recorder looks at the page cache, and what becomes of a look: a stand-in passes over no pages."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from support.waiting import wait_for
from synthetic.sample_series import joined, series

from tracer.capture.contents import content_rows, look_rows
from tracer.capture.contents.content_rows import ContentRows, Tables
from tracer.capture.contents.pass_over_pages import AMOUNT, Found
from tracer.enumerations import CONTENTS
from tracer.errors import TracerError
from tracer.schema import TABLES
from tracer.trace.arrow_columns import rows_of
from tracer.wire.dtypes import WIRE

MIB = 1 << 20
OFFSET_NS = 1_000_000_000_000_000
AT_START = series(lambda _: {"file": 30}, 0, source="start")
CGROUP = 7
HELD = ((11, "file", 500), (12, "file", 30), (13, "file", 20), (14, "shmem", 40))
"""Files: (inode_id, kind, KiB). The file 13 is gone when it is to be named."""


def amounts(*rows: tuple[int, str, int]) -> Any:
    found = np.zeros(len(rows), AMOUNT)
    for row, (inode_id, kind, kib) in zip(found, rows, strict=True):
        row["cgroup_id"], row["object"], row["kind"] = CGROUP, inode_id, CONTENTS.number(kind)
        row["bytes"], row["dirty_bytes"] = kib << 10, kib
    return found


class Pages:
    """Stands for `PassOverPages`."""

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def scan(self, numbers: list[int], *, slab: bool) -> Found:
        assert (numbers, slab) == ([CGROUP], False)
        totals = amounts((0, "file", 557), (0, "shmem", 40), (0, "anon", 9000))
        return Found(totals, amounts(*HELD, (99, "slab", 5)), 0, 1, 1)

    def file(self, amount: np.void) -> Any:
        record = np.zeros(1, WIRE["inode"])
        record["inode_id"] = amount["object"]
        return None if amount["object"] == 13 else record


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[ContentRows]:
    monkeypatch.setattr(look_rows, "PassOverPages", Pages)
    monkeypatch.setattr(content_rows, "expected_s", lambda: 0.5)
    with closing(ContentRows()) as found:
        yield found


def taken(rows: ContentRows) -> Tables:
    """Return the rows of the look that is due, and of no other one."""
    return rows.finish(OFFSET_NS, within_s=60)


def is_looking(rows: ContentRows) -> bool:
    """Return whether a look is made, after its end."""
    return bool(taken(rows)["contents"])


@pytest.mark.parametrize("has_generations", [False, True])
def test_look_has_all_cache_and_the_rows_fit_the_tables(
    rows: ContentRows, monkeypatch: pytest.MonkeyPatch, has_generations: bool
) -> None:
    monkeypatch.setattr(look_rows, "has_generations", lambda: has_generations)
    rows.look(AT_START)
    begin_ns = time.monotonic_ns() + OFFSET_NS
    tables = taken(rows)
    assert [
        (row["kind"], row["inode_id"], row["files"], row["bytes"] >> 10) for row in tables["contents"]
    ] == [("file", 11, 1, 500), ("shmem", 14, 1, 40), ("file", 12, 1, 30), ("file", None, 1, 27)]
    assert {row["inode_id"] for row in tables["inodes"]} == {11, 12, 14}
    assert {row["active_bytes"] for row in tables["contents"]} == {None if has_generations else 0}
    assert all(begin_ns <= row["time"] <= time.monotonic_ns() + OFFSET_NS for row in tables["contents"])
    for table, listed in tables.items():
        assert rows_of(table, listed).schema == TABLES[table]
    assert rows.why_left_out is None


def test_largest_files_are_named(rows: ContentRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_rows, "MOST_NAMES", 1)
    rows.look(AT_START)
    held = {(row["kind"], row["inode_id"]): row for row in taken(rows)["contents"]}
    assert {key: (row["files"], row["bytes"] >> 10) for key, row in held.items()} == {
        ("file", 11): (1, 500),
        ("file", None): (2, 57),
        ("shmem", None): (1, 40),
    }


def test_many_rows_come_in_messages_of_a_bounded_length(
    rows: ContentRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [(number, "file", 1) for number in range(1000, 1100)]
    monkeypatch.setattr(look_rows, "MESSAGE_BYTES", 2000)
    monkeypatch.setattr(f"{__name__}.HELD", many)
    rows.look(AT_START)
    assert {row["inode_id"] for row in taken(rows)["contents"]} >= {number for number, *_ in many}


@pytest.mark.parametrize(
    ("samples", "is_wanted"),
    [
        (AT_START, True),
        (series(lambda _: {"file": 89}, 0), False),
        (series(lambda _: {"file": 90}, 0), True),
        (series(lambda _: {"file": 90}, 0, math.inf, source="start"), False),
        (series(lambda _: {"file": 0.9}, 0, 1), False),
        (series(lambda _: {"anon": 94, "file": 6}, 0), True),
        (series(lambda _: {"anon": 96, "file": 4}, 0), False),
    ],
)
def test_cgroups_with_a_limit_and_cache_are_looked_at_at_their_start_and_near_the_limit(
    rows: ContentRows, samples: Any, is_wanted: bool
) -> None:
    rows.look(samples)
    assert is_looking(rows) is is_wanted
    assert rows.why_left_out is None


def test_cgroup_that_lives_at_its_limit_is_looked_at_again_after_a_while(rows: ContentRows) -> None:
    rows.look(AT_START)
    assert is_looking(rows)
    near = series(lambda _: {"file": 100}, 0)
    rows.look(near)
    assert not is_looking(rows)
    rows._looked_s[CGROUP] -= content_rows.AGAIN_S
    rows.look(near)
    assert is_looking(rows)


def test_look_that_the_budget_does_not_allow_waits_until_it_does_and_that_is_said(
    rows: ContentRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_rows, "expected_s", lambda: content_rows.AT_ONCE_S + 60)
    rows.look(AT_START)
    assert not is_looking(rows)
    said = "a look takes 62.0 s of CPU time, and 2.0 s were left for it"
    assert rows.why_left_out == said
    assert not rows.is_busy, "it keeps no recorder awake"
    assert rows._rests_until_s - rows._began_s == pytest.approx(60 / content_rows.MOST_SHARE, abs=60)
    waited_s = rows._rests_until_s - time.monotonic() + 1
    rows._began_s, rows._rests_until_s = rows._began_s - waited_s, rows._rests_until_s - waited_s
    assert rows.is_busy
    assert is_looking(rows), "without a further sample"
    assert rows.why_left_out == said
    rows.look(AT_START)
    assert not rows.is_busy, "the next one is not due for a while"


def test_looks_spend_the_budget(rows: ContentRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_rows, "AT_ONCE_S", 0.0)
    monkeypatch.setattr(content_rows, "MOST_SHARE", 1.0)
    rows._began_s -= 1000.0
    rows.look(AT_START)
    assert is_looking(rows)
    assert 0 < rows._spent_s < 900
    rows._spent_s += 10_000.0
    rows._looked_s.clear()
    rows.look(AT_START)
    assert not is_looking(rows)
    assert rows.why_left_out is not None


def test_too_many_cgroups_are_not_looked_at_and_said(
    rows: ContentRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_rows, "_MOST_WANTED", 1)
    rows.look(joined(AT_START, series(lambda _: {"file": 30}, 0, source="start", cgroup_id=8)))
    assert not is_looking(rows)
    assert rows.why_left_out == "2 cgroups with a limit were to be looked at together"


def raise_unfit() -> None:
    raise TracerError("unfit kernel")


@pytest.mark.parametrize(
    ("passing", "reason"),
    [(raise_unfit, "unfit kernel"), (lambda: os._exit(3), "the pass over the pages did not end")],
)
def test_look_that_fails_is_the_last_one_and_said(
    rows: ContentRows, monkeypatch: pytest.MonkeyPatch, passing: Any, reason: str
) -> None:
    monkeypatch.setattr(look_rows, "PassOverPages", passing)
    rows.look(AT_START)
    assert not is_looking(rows)
    assert rows.why_left_out == reason
    monkeypatch.setattr(look_rows, "PassOverPages", Pages)
    rows._looked_s.clear()
    rows.look(AT_START)
    assert not is_looking(rows)


def has_ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG) != (0, 0)
    except ChildProcessError:  # its status was collected
        return True


def test_recording_that_ends_first_says_so_and_leaves_no_child(
    rows: ContentRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_rows, "PassOverPages", lambda: time.sleep(3600))
    rows.look(AT_START)
    assert rows.finish(OFFSET_NS, within_s=0.0) == {"inodes": [], "contents": []}
    assert rows.why_left_out == "the recording ended before a look did"
    assert rows._child is not None
    child = rows._child._child
    rows.close()
    wait_for(lambda: has_ended(child))  # on a busy machine, the next child's end collects its status
