"""Samples of a v1 hierarchy: columns that its files lack are sums of the counters in the kernel."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tracer.capture.rows import sampler
from tracer.capture.rows.cgroup_rows import Cgroup
from tracer.capture.rows.sampler import Sampler
from tracer.kernel.cgroups.cgroupfs import Hierarchy, cgroup_id

PARENTS = {"/": None, "/a": "/", "/a/b": "/a", "/a/c": "/a", "/d": "/"}
STACKS_KB = {"/": 1, "/a": 2, "/a/b": 4, "/a/c": 8, "/d": 16}
SCANNED = {"/": 1, "/a": 20, "/a/b": 30, "/a/c": 31, "/d": 40}


class Sampled:
    """A sampler of the cgroups of `PARENTS`, which are folders in `mount`."""

    def __init__(self, mount: Path, version: int) -> None:
        self.mount = mount
        for path in PARENTS:
            self.make(path)
        self.ids = {path: cgroup_id(self.folder(path)) for path in PARENTS}
        self.warnings: list[str] = []
        programs: Any = None  # the fixture replaces what reads it
        self.sampler = Sampler(programs, Hierarchy(version, mount, "/"), {}, self.warnings.append)
        for path in reversed(PARENTS):  # children first: the order must not matter
            self.add(path, self.ids[path], PARENTS[path])

    def folder(self, path: str) -> Path:
        return self.mount / path.lstrip("/")

    def make(self, path: str) -> None:
        self.folder(path).mkdir(exist_ok=True)
        (self.folder(path) / "memory.stat").write_text("total_rss 4096\n")

    def add(self, path: str, number: int, parent: str | None) -> None:
        self.sampler.add(Cgroup(number, self.ids[parent] if parent else None, path, memcg=number))

    def value_of(self, number: int, values: dict[str, Any]) -> Any:
        return next(values[path] for path, known in self.ids.items() if known == number)

    def column(self, name: str) -> dict[str, Any]:
        paths = {number: path for path, number in self.ids.items()}
        return {paths[row["cgroup_id"]]: row[name] for row in self.sampler.sample("periodic", 0)}


@pytest.fixture
def counters() -> dict[str, dict[str, int] | None]:
    """Return counters by cgroup, which a test may change."""
    return {path: {"NR_KERNEL_STACK_KB": kb} for path, kb in STACKS_KB.items()}


@pytest.fixture
def sampled(
    tmp_path: Path,
    counters: dict[str, dict[str, int] | None],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Sampled:
    new = Sampled(tmp_path, getattr(request, "param", 1))
    monkeypatch.setattr(
        sampler, "read_counters", lambda _programs, _memcg, number, _: new.value_of(number, counters)
    )
    monkeypatch.setattr(
        sampler,
        "reclaim_counts",
        lambda _programs, number: {"pgscan": new.value_of(number, SCANNED), "pgsteal": 0},
    )
    return new


def test_v1_sample_sums_the_counters_of_the_subtree(sampled: Sampled) -> None:
    stacks = {"/": 31, "/a": 14, "/a/b": 4, "/a/c": 8, "/d": 16}
    assert sampled.column("kernel_stack_bytes") == {path: kb * 1024 for path, kb in stacks.items()}
    assert sampled.column("pgscan")["/a"] == 20 + 30 + 31
    assert sampled.column("anon_bytes") == dict.fromkeys(PARENTS, 4096), "memory.stat includes the subtree"
    assert sampled.column("sock_bytes") == dict.fromkeys(PARENTS, 0)
    assert sampled.column("percpu_bytes") == dict.fromkeys(PARENTS), "their position is not known"


def test_unreadable_counters_make_all_ancestors_null(
    sampled: Sampled, counters: dict[str, dict[str, int] | None]
) -> None:
    counters["/a/b"] = None
    stacks = sampled.column("kernel_stack_bytes")
    assert stacks == {"/": None, "/a": None, "/a/b": None, "/a/c": 8 << 10, "/d": 16 << 10}


def test_removed_cgroup_is_forgotten(sampled: Sampled) -> None:
    shutil.rmtree(sampled.folder("/d"))
    assert set(sampled.column("pgscan")) == set(PARENTS) - {"/d"}
    assert sampled.column("pgscan")["/"] == sum(SCANNED.values()) - SCANNED["/d"]


def test_cgroup_of_the_same_path_is_not_sampled_for_another(sampled: Sampled) -> None:
    sampled.folder("/d").rename(sampled.mount / "away")  # so that its inode number is not used again
    sampled.make("/d")
    assert set(sampled.column("anon_bytes")) == set(PARENTS) - {"/d"}


@pytest.mark.parametrize("sampled", [2], indirect=True)
def test_v2_sample_comes_from_the_files_alone(sampled: Sampled) -> None:
    assert sampled.column("kernel_stack_bytes") == dict.fromkeys(PARENTS)


def test_sample_without_free_descriptors_is_counted_as_lost(
    sampled: Sampled, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: Any, *args: Any, **options: Any) -> int:
        if path == sampled.folder("/d"):
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    for _ in range(2):
        scanned = sampled.column("pgscan")
        assert scanned.keys() == set(PARENTS) - {"/d"}
        assert scanned["/"] == sum(SCANNED.values()), "its own counters are known"
    assert sampled.sampler.lost == 2
    (warning,) = sampled.warnings
    assert warning.endswith("raise ulimit -n")
    monkeypatch.undo()


def test_samples_hold_no_descriptor_open(sampled: Sampled) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    assert len(sampled.sampler.sample("periodic", 0)) == len(PARENTS)
    assert set(Path("/proc/self/fd").iterdir()) == before
