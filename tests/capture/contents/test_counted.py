"""The kernel's counters beside a pass: the range of two readings, of cgroups with none below them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.capture.contents import counted
from tracer.capture.contents.counted import between, count
from tracer.capture.contents.held import CountedBetween
from tracer.kernel.cgroups.cgroupfs import Hierarchy, cgroup_id


def write(directory: Path, anon: int, file: int, shmem: int) -> None:
    text = f"anon {anon}\nfile {file}\nshmem {shmem}\n"
    (directory / "memory.stat").write_text(text, encoding="ascii")


@pytest.fixture
def hierarchy(tmp_path: Path) -> Hierarchy:
    """A copy of a hierarchy: `web` with `worker` below it, and `db`."""
    for path in ("web/worker", "db"):
        (tmp_path / path).mkdir(parents=True)
    for directory in (tmp_path, tmp_path / "web", tmp_path / "web/worker", tmp_path / "db"):
        write(directory, 5, 30, 2)
    return Hierarchy(2, tmp_path, "/")


def test_range_is_of_the_readings_before_and_after(hierarchy: Hierarchy) -> None:
    db, worker = hierarchy.directory("/db"), hierarchy.directory("/web/worker")
    before = count(hierarchy, None)
    write(db, 9, 20, 2)
    assert between(hierarchy, before) == {
        cgroup_id(db): CountedBetween(anon_bytes=(5, 9), shmem_bytes=(2, 2), file_bytes=(20, 30)),
        cgroup_id(worker): CountedBetween((5, 5), (2, 2), (30, 30)),
    }


def test_only_wanted_cgroups_are_read(hierarchy: Hierarchy) -> None:
    worker = cgroup_id(hierarchy.directory("/web/worker"))
    assert count(hierarchy, ["/web", "/web/worker"]).keys() == {worker}


def test_cgroup_that_was_removed_meanwhile_has_no_range(hierarchy: Hierarchy) -> None:
    before = count(hierarchy, ["/db"])
    (hierarchy.directory("/db") / "memory.stat").unlink()
    assert before and not between(hierarchy, before)


def test_too_many_cgroups_are_not_read(hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "_MOST_CGROUPS", 3)
    assert count(hierarchy, ["/web"])
    assert not count(hierarchy, None)
