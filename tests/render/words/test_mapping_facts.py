"""Sentences on the memory of processes by mapping."""

from __future__ import annotations

import pandas as pd
import pytest

from tracer.analysis.results.memory import MappedPart, ProcessMemory
from tracer.kernel.anatomy.mapping_kinds import KINDS
from tracer.render.words.mapping_facts import by_mapping, every_part, part_words

MIB = 1 << 20
LOOK = pd.Timestamp("2026-01-31T12:00:00+00:00")
KILL = LOOK + pd.Timedelta("1.5s")


def part(kind: str, mib: float, name: str = "", count: int = 1, swapped: int = 0) -> MappedPart:
    return MappedPart(kind, name, count, int(mib * MIB), None, int(mib * MIB), swapped * MIB)


def looked_at(*parts: MappedPart, shared: int = 0) -> ProcessMemory:
    rss = sum(one.rss_bytes for one in parts)
    return ProcessMemory(7, "web", LOOK, rss, shared * MIB, parts)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (part("heap", 163), "163 MiB heap"),
        (part("stack", 35, count=174), "35 MiB in 174 thread stacks"),
        (part("stack", 1, count=1), "1 MiB in 1 thread stack"),
        (part("stack", 1, "main"), "1 MiB of the first stack"),
        (part("arena", 9, count=1234), "9 MiB in 1,234 malloc arenas"),
        (part("shared", 9, "/dev/shm/a\x1b"), r"9 MiB shared: /dev/shm/a\x1b"),
        (part("file copy", 7, "/srv/data"), "7 MiB private copies of data"),
        (part("file", 7, count=3), "7 MiB page cache of several files"),
        (part("anonymous", 5, count=3), "5 MiB anonymous in 3 mappings"),
        (part("anonymous", 5, "cache"), "5 MiB anonymous named cache in 1 mapping"),
        (part("heap", 5, swapped=2), "5 MiB heap (and 2 MiB in swap)"),
        (part("unread", 5, "no time was left"), "5 MiB not read (no time was left)"),
    ],
)
def test_part_says_what_it_is(one: MappedPart, words: str) -> None:
    assert part_words(one) == words


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_the_recorder_has_words(kind: str) -> None:
    assert part_words(part(kind, 5)).startswith("5 MiB ")
    assert part_words(part(kind, 5, "/a/b", count=2)).startswith("5 MiB ")


def test_large_parts_come_first_and_small_ones_are_summed() -> None:
    small = [part("file", 1, f"/lib/{number}.so") for number in range(9)]
    one = looked_at(part("heap", 60), part("stack", 31, count=40), *small)
    assert list(by_mapping([one, one], KILL)) == [
        ("by mapping", "60 MiB heap, 31 MiB in 40 thread stacks, 9 MiB of other mappings"),
        ("", "web (pid 7), 100 MiB, 1.50 s before the kill"),
    ]


def test_process_that_lived_and_shares_since_a_fork() -> None:
    one = looked_at(part("heap", 60), shared=40)
    assert list(by_mapping([one], None)) == [
        ("by mapping", "60 MiB heap; 40 MiB of it is shared with other processes since a fork"),
        ("", "web (pid 7), 60 MiB, near the limit"),
    ]


def test_every_part_of_every_process_is_listed() -> None:
    one, other = looked_at(part("heap", 60), part("code", 1)), looked_at(part("heap", 5))
    assert list(every_part([one, other], KILL)) == [
        ("by mapping", "web (pid 7), 61 MiB, 1.50 s before the kill:"),
        ("", "  60 MiB heap"),
        ("", "  1 MiB code without a file (JIT)"),
        ("", "web (pid 7), 5 MiB, 1.50 s before the kill:"),
        ("", "  5 MiB heap"),
    ]


def test_no_look_has_no_words() -> None:
    assert list(by_mapping([], KILL)) == list(every_part([], KILL)) == []
