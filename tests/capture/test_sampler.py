"""Samples of a v1 hierarchy: what its files do not say comes from each cgroup's own counters, added up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tracer.capture import sampler
from tracer.capture.identity import Cgroup
from tracer.capture.sampler import Sampler
from tracer.kernel.cgroupfs import Hierarchy

PATHS = {1: "/", 20: "/a", 30: "/a/b", 31: "/a/c", 40: "/d"}
PARENTS = {1: None, 20: 1, 30: 20, 31: 20, 40: 1}
STACKS_KB = {1: 1, 20: 2, 30: 4, 31: 8, 40: 16}


class Counted:
    """As much of `Programs` as a sampler asks for: the kernel's count of reclaim, by cgroup id."""

    def reclaim_counts(self, cgroup_id: int) -> dict[str, int]:
        return {"pgscan": cgroup_id, "pgsteal": 0}


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, int] | None]:
    """The counters of each cgroup, which a test may change."""
    known: dict[int, dict[str, int] | None] = {i: {"NR_KERNEL_STACK_KB": kb} for i, kb in STACKS_KB.items()}
    monkeypatch.setattr(sampler, "read_counters", lambda _programs, _memcg, cgroup_id, _: known[cgroup_id])
    return known


def sampled(mount: Path, version: int = 1) -> Sampler:
    for path in PATHS.values():
        (mount / path.lstrip("/")).mkdir(exist_ok=True)
        (mount / path.lstrip("/") / "memory.stat").write_text("total_rss 4096\n")
    programs: Any = Counted()
    made = Sampler(programs, Hierarchy(version, mount, "/"), {})
    for number, path in reversed(PATHS.items()):  # whoever comes first
        made.add(Cgroup(number, PARENTS[number], path, memcg=number))
    return made


def column(made: Sampler, name: str) -> dict[int, Any]:
    return {row["cgroup_id"]: row[name] for row in made.sample("periodic", 0)}


@pytest.mark.usefixtures("counters")
def test_a_cgroup_has_what_is_below_it_too(tmp_path: Path) -> None:
    made = sampled(tmp_path)
    stacks = {1: 31, 20: 14, 30: 4, 31: 8, 40: 16}
    assert column(made, "kernel_stack_bytes") == {number: kb * 1024 for number, kb in stacks.items()}
    assert column(made, "pgscan")[20] == 20 + 30 + 31
    assert column(made, "anon_bytes") == dict.fromkeys(PATHS, 4096), "the files add up by themselves"
    assert column(made, "sock_bytes") == dict.fromkeys(PATHS, 0)
    assert column(made, "percpu_bytes") == dict.fromkeys(PATHS), "not learnt: not known"
    made.close()


def test_one_that_cannot_be_read_makes_all_above_it_unknown(
    tmp_path: Path, counters: dict[int, dict[str, int] | None]
) -> None:
    counters[30] = None
    made = sampled(tmp_path)
    stacks = column(made, "kernel_stack_bytes")
    assert stacks == {1: None, 20: None, 30: None, 31: 8 << 10, 40: 16 << 10}
    made.close()


@pytest.mark.usefixtures("counters")
def test_one_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    made = sampled(tmp_path)
    made.add(Cgroup(50, 1, "/never", memcg=50))
    assert set(column(made, "pgscan")) == set(PATHS)
    assert column(made, "pgscan")[1] == sum(PATHS)
    made.close()


@pytest.mark.usefixtures("counters")
def test_on_v2_the_files_say_all(tmp_path: Path) -> None:
    made = sampled(tmp_path, version=2)
    assert column(made, "kernel_stack_bytes") == dict.fromkeys(PATHS)
    made.close()
