from __future__ import annotations

from pathlib import Path

import pytest

from tracer.capture.rows.cgroup_rows import REMOVED_KEPT, KnownPaths
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy, Walked


class Kernel:
    """Cgroups by path, and the walks over them, each of which takes 0.1 s."""

    def __init__(self) -> None:
        self.ids = {"/": 1, "/web": 23, "/web/inner": 29}
        self.walks = 0
        self.now_s = 0.0

    def walk(self, _hierarchy: Hierarchy) -> list[Walked]:
        self.walks += 1
        self.now_s += 0.1
        return [Walked(path, number, 1) for path, number in self.ids.items()]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel()
    monkeypatch.setattr(cgroupfs, "walk", found.walk)
    return found


@pytest.fixture
def paths(kernel: Kernel) -> KnownPaths:
    return KnownPaths(Hierarchy(1, Path("/cgroup"), "/"), lambda: kernel.now_s)


def test_any_number_of_unknown_ids_takes_one_walk(kernel: Kernel, paths: KnownPaths) -> None:
    assert paths.find([29, *range(100, 1100)]) == {29: "/web/inner"}
    assert paths.find(range(50, 1099)) == {}
    assert kernel.walks == 1


def test_reported_cgroup_takes_no_walk(kernel: Kernel, paths: KnownPaths) -> None:
    paths.walk()
    paths.note_made(31, "/job")
    paths.note_made(37, None)
    assert paths.find([31, 37, 23]) == {31: "/job", 23: "/web"}
    paths.note_removed(31, 5)
    assert (paths.find([31]), paths.removed_ns(31), paths.removed_ns(23)) == ({31: "/job"}, 5, None)
    assert kernel.walks == 1


def test_cgroup_whose_report_was_lost_is_found_by_a_walk(kernel: Kernel, paths: KnownPaths) -> None:
    """A flood of those may not have the cgroups walked again and again."""
    paths.walk()
    kernel.ids["/lost"] = 31
    kernel.now_s += 4.9
    assert paths.find([31]) == {}
    kernel.now_s += 0.2
    assert paths.find([31]) == {31: "/lost"}
    kernel.ids["/lost-2"] = 37
    assert (paths.find([37]), kernel.walks) == ({}, 2)


def test_walk_keeps_what_is_gone_and_drops_what_is_not_there(kernel: Kernel, paths: KnownPaths) -> None:
    paths.walk()
    for number in (31, 37):
        paths.note_made(number, f"/job-{number}")
    paths.note_removed(31, 5)
    paths.walk()  # the report that 37 was removed was lost
    assert paths.find([31, 37]) == {31: "/job-31"}


def test_renaming_changes_the_paths_below_but_not_of_an_earlier_life(
    kernel: Kernel, paths: KnownPaths
) -> None:
    paths.walk()
    paths.note_made(31, "/web/dead")
    paths.note_removed(31, 5)
    paths.note_made(37, "/web-2")
    assert paths.note_renamed(23, "/old") == [23, 29]
    assert paths.find([23, 29, 31, 37]) == {23: "/old", 29: "/old/inner", 31: "/web/dead", 37: "/web-2"}
    assert paths.note_renamed(99, "/unknown") == [99]
    assert kernel.walks == 1


def test_removed_cgroups_are_forgotten_in_order(kernel: Kernel, paths: KnownPaths) -> None:
    paths.walk()
    ids = range(100, 100 + REMOVED_KEPT + 3)
    for number in ids:
        paths.note_made(number, f"/job-{number}")
        paths.note_removed(number, number)
    paths.note_removed(99_999, 7)
    assert paths.find([23, *ids]) == {23: "/web"} | {number: f"/job-{number}" for number in ids[3:]}
    assert (paths.removed_ns(99_999), kernel.walks) == (None, 1)


@pytest.mark.kernel
@pytest.mark.vm
def test_ids_of_later_cgroups_are_greater(memcg: Path) -> None:
    """An unknown id that is not newer than the last walk is of a cgroup that is gone."""
    hierarchy = cgroupfs.memory_hierarchy()
    found: list[int] = []
    for number in range(100):
        child = memcg / f"child-{number % 3}"
        child.mkdir()
        found.append(cgroupfs.cgroup_id(child))
        if number % 2:
            child.rmdir()
            continue
        paths = KnownPaths(hierarchy)
        assert paths.find([found[-1]]) == {found[-1]: hierarchy.path(child)}
        child.rmdir()
    assert found == sorted(set(found))
