"""What a look names: the largest of each cgroup, or of all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer.capture.contents import look as looking
from tracer.capture.contents.held import CountedBetween
from tracer.capture.contents.look import Wanted, _of_those_alone, _Place, has_generations
from tracer.capture.contents.pass_over_pages import AMOUNT, Found
from tracer.kernel.cgroups.cgroupfs import Hierarchy

ROWS = np.array(
    [(7, 10), (7, 40), (8, 30), (9, 35), (7, 20), (8, 5)], np.dtype([("cgroup_id", "<u8"), ("bytes", "<u8")])
)


@pytest.mark.parametrize(
    ("by", "most", "expected"),
    [
        (None, 2, [(7, 40), (7, 20), (8, 30), (8, 5)]),  # cgroup 9 is the third
        (None, 1, [(7, 40)]),
        ("file", 3, [(7, 40), (9, 35), (8, 30)]),
        ("file", 100, [(7, 40), (9, 35), (8, 30), (7, 20), (7, 10), (8, 5)]),
    ],
)
def test_largest_are_of_each_cgroup_or_of_all(
    by: str | None, most: int, expected: list[tuple[int, int]]
) -> None:
    assert Wanted(by, most).largest(ROWS, [7, 8, 9]).tolist() == expected


@pytest.mark.parametrize("by", [None, "process"])
def test_largest_of_nothing_is_nothing(by: str | None) -> None:
    assert len(Wanted(by, 3).largest(ROWS[:0], [])) == 0


@pytest.mark.parametrize(
    ("by", "parts", "has_slab"),
    [
        (None, ["file", "process", "slab"], True),
        ("file", ["file"], False),
        ("process", ["process"], False),
        ("slab", ["slab"], True),
        ("cgroup", [], True),
    ],
)
def test_only_what_is_wanted_is_looked_at(by: str | None, parts: list[str], has_slab: bool) -> None:
    wanted = Wanted(by, 3)
    assert [part for part in ("file", "process", "slab") if wanted.includes(part)] == parts
    assert wanted.has_slab is has_slab


@pytest.mark.parametrize(("text", "expected"), [("0x0007\n", True), ("0x0000\n", False), ("0x0006\n", False)])
def test_generations_are_on_by_the_first_bit(text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "enabled").write_text(text)
    assert has_generations(tmp_path / "enabled") is expected


def test_kernel_without_the_switch_has_no_generations(tmp_path: Path) -> None:
    assert not has_generations(tmp_path / "enabled")


def test_counters_that_contain_a_removed_cgroup_are_no_range() -> None:
    one = CountedBetween((0, 0), (0, 0), (5, 7))
    places = {1: _Place("/web", False), 2: _Place("/web/old/worker", True), 3: _Place("/db", False)}
    assert _of_those_alone({1: one, 3: one, 4: one}, places) == {3: one}
    for path in (None, "…/old/worker"):
        assert _of_those_alone({3: one}, places | {4: _Place(path, True)}) == {}, "it may be below any cgroup"


def test_cgroup_that_is_removed_while_the_programs_are_compiled_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its page cache stays charged to it."""
    web = tmp_path / "web"
    web.mkdir()
    number, asked = web.stat().st_ino, list[int]()

    class Compiling:
        def __enter__(self) -> Compiling:
            web.rmdir()
            return self

        def __exit__(self, *_: object) -> None: ...

        def scan(self, selected: Iterable[int], **_: Any) -> Found:
            asked.extend(selected)
            return Found(np.empty(0, AMOUNT), np.empty(0, AMOUNT), 0, 1, 1)

    monkeypatch.setattr(looking, "PassOverPages", Compiling)
    wanted = Wanted("file", 3, ["/web"])
    found = looking.look(Hierarchy(2, tmp_path, "/"), wanted, lambda _: {}, lambda *_: None)
    assert (asked, found.cgroups) == ([number], [])
