"""The code that grows now, from rows of known weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic.live_rows import MIB, cgroup, rows

from tracer.analysis.results.memory import CodeFrame, GrownProcess
from tracer.trace.history.history import KeptNames
from tracer.watch.growing_code import GrowingCode, sentence

S = 1_000_000_000
LOAD, PARSE, NOT_NAMED_YET = 70, 71, 72
FOLLOWED = {"is_followed": True, "sampled": None}


@pytest.fixture
def names() -> KeptNames:
    kept = KeptNames()
    paths = {2: "/shop", 3: "/shop/web", 4: "/shopping"}
    kept.add("cgroups", rows("cgroups", *(cgroup(number) | {"path": path} for number, path in paths.items())))
    frames = {
        LOAD: ["[libc.so.6]+0x1", "load [app.py:41]", "main [app.py:88]"],
        PARSE: ["parse [app.py:17]", "main [app.py:89]"],
    }
    kept.add("stacks", rows("stacks", *({"stack_id": one, "frames": names} for one, names in frames.items())))
    return kept


@pytest.fixture
def growing(tmp_path: Path) -> GrowingCode:
    (tmp_path / "41").mkdir()
    (tmp_path / "41" / "comm").write_bytes(b"python\x1b3\n")
    return GrowingCode(tmp_path)


def sampled(mib: int, stack_id: int | None, cgroup_id: int = 3, **more: Any) -> dict[str, Any]:
    row = {"time": S, "cgroup_id": cgroup_id, "tgid": 41, "tid": 41, "category": "anon", "bytes": mib * MIB}
    return row | {"stack_id": stack_id, "kernel_stack_id": None, "mapping": None} | FOLLOWED | more


def task(tgid: int, comm: str) -> dict[str, Any]:
    of_it = {"tgid": tgid, "start_ns": tgid, "ppid": 1, "uid": 0, "comm": comm, "cgroup_id": 3}
    return of_it | {"first_seen": S, "exited": None, "exe_inode_id": None, "cmdline": None}


def test_shares_are_of_the_cgroup_and_those_below_it(growing: GrowingCode, names: KeptNames) -> None:
    growing.take(rows("code_samples", sampled(5, LOAD), sampled(3, PARSE, 2), sampled(99, PARSE, 4)), S)
    growing.take(rows("code_samples", sampled(2, LOAD), sampled(50, PARSE, category="file")), 2 * S)
    found = growing.grown(2, names, 2 * S)
    assert [(one.share, one.bytes, one.frames[0]) for one in found] == [
        (0.7, 7 * MIB, CodeFrame("load", "app.py", 41, None)),
        (0.3, 3 * MIB, CodeFrame("parse", "app.py", 17, None)),
    ]
    assert found[0].process == GrownProcess(41, "python\x1b3", 1)
    assert [one.bytes for one in growing.grown(3, names, 2 * S)] == [7 * MIB]
    assert growing.grown(9, names, 2 * S) == ()


def test_sample_that_was_freed_does_not_count(growing: GrowingCode, names: KeptNames) -> None:
    growing.take(rows("code_samples", sampled(5, LOAD), sampled(3, PARSE, time=S + 1)), S)
    growing.take(rows("code_samples", sampled(-5, None, time=2 * S, sampled=S)), 2 * S)
    assert [(one.share, one.bytes) for one in growing.grown(3, names, 2 * S)] == [(1.0, 3 * MIB)]


def test_process_that_ended_has_its_name_from_the_history(growing: GrowingCode, names: KeptNames) -> None:
    growing.take(rows("code_samples", sampled(5, LOAD, tgid=40)), S)
    assert [one.process for one in growing.grown(3, names, S)] == [GrownProcess(40, None, 1)]
    names.add("tasks", rows("tasks", task(40, "sh"), task(39, "init")))
    names.add("tasks", rows("tasks", task(40, "java")))
    assert [one.process for one in growing.grown(3, names, S)] == [GrownProcess(40, "java", 1)]


def test_stacks_are_left_out_until_they_have_names(growing: GrowingCode, names: KeptNames) -> None:
    growing.take(rows("code_samples", sampled(5, LOAD), sampled(90, NOT_NAMED_YET)), S)
    assert [one.share for one in growing.grown(3, names, S)] == [1.0]
    names.add("stacks", rows("stacks", {"stack_id": NOT_NAMED_YET, "frames": ["late [work]"]}))
    assert [one.bytes // MIB for one in growing.grown(3, names, S)] == [90]


def test_samples_are_forgotten_after_half_a_minute_and_above_a_mebibyte(
    growing: GrowingCode, names: KeptNames
) -> None:
    growing.take(rows("code_samples", sampled(5, LOAD)), S)
    assert growing.grown(3, names, 31 * S)
    assert growing.grown(3, names, 32 * S) == ()
    many = rows("code_samples", *[sampled(1, LOAD)] * 3000)
    for second in range(20):
        growing.take(many, 40 * S + second)
    (one,) = growing.grown(3, names, 41 * S)
    assert 0 < one.bytes < 20 * 3000 * MIB
    assert growing._bytes <= 1 << 20


def test_sentence_names_the_functions_and_escapes(growing: GrowingCode, names: KeptNames) -> None:
    assert sentence(growing.grown(3, names, S)) == ""
    growing.take(rows("code_samples", sampled(7, LOAD), sampled(3, PARSE)), S)
    assert sentence(growing.grown(3, names, S)) == (
        " What grows: 15 to 100 % in load (app.py:41), called by main (app.py:88); "
        r"0 to 85 % in parse (app.py:17), called by main (app.py:89): python\x1b3 (41)."
    )
