"""Locked memory whose kind is not known, and shared memory in many files."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic.findings import MIB, findings, grew, made_of

from tracer.analysis.explain.measure.composition import compose, locked_in_unknown
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.verdict import judge
from tracer.analysis.explain.words import cause_words
from tracer.analysis.explain.words.cause_words import WORDS
from tracer.analysis.results.memory import SharedFile
from tracer.schema import MEMORY_STAT_BYTES


def half_locked(locked_mib: int) -> Findings:
    """Return findings of 62 MiB anonymous and 32 MiB shared memory, so much of which is locked."""
    around = replace(grew(anon=60, shmem=30), locked_in_unknown_bytes=locked_mib * MIB)
    return findings(replace(made_of(anon=62, shmem=32), unevictable=None), around)


def test_locked_memory_of_unknown_kind_is_named_and_lowers_the_confidence() -> None:
    sure, locked = judge(half_locked(0)), judge(half_locked(61))
    assert (sure.cause, locked.cause) == ("anon_growth", "anon_growth")
    assert (sure.confidence, locked.confidence) == ("medium", "low")
    assert "locked" not in sure.summary
    assert "61 MiB of the anonymous and shared memory locked (mlock)" in locked.summary
    assert [one.numbers for one in locked.evidence if one.kind == "doubt_locked_kind"] == [
        {"locked_bytes": 61 * MIB}
    ]


def test_locked_memory_beside_other_kinds_has_the_others_apart() -> None:
    around = grew(unevictable=60, anon=38)
    sentence = judge(findings(made_of(unevictable=60, anon=38), around)).summary
    assert "on ramfs, which reclaim may not touch, beside 38 MiB of anonymous memory;" in sentence


def test_locked_memory_of_unknown_kind_is_not_said_to_go_to_swap() -> None:
    (line,) = WORDS["anon_growth"].cure(half_locked(61))
    assert "61 MiB of it or of the shared memory is locked" in line
    (line,) = WORDS["anon_growth"].cure(half_locked(0))
    assert line.endswith("62 MiB of anonymous memory can only go to swap.")


def test_locked_memory_is_of_unknown_kind_if_the_lists_do_not_show_it() -> None:
    """As stress-ng mlock had it: 62 MiB locked, and 32 MiB on the lists that anon and shmem share."""
    sizes = dict.fromkeys(MEMORY_STAT_BYTES, 0) | {
        "anon": 62 * MIB,
        "shmem": 32 * MIB,
        "file": 32 * MIB,
        "unevictable": 62 * MIB,
        "inactive_anon": 32 * MIB,
    }
    parts, _ = compose(sizes, 96 * MIB)
    assert parts.unevictable is None
    assert locked_in_unknown(sizes, parts) == 62 * MIB
    known, _ = compose(sizes | {"shmem": 0, "file": 0, "inactive_anon": 0}, 96 * MIB)
    assert (known.unevictable, locked_in_unknown(sizes, known)) == (62 * MIB, 0)


def files(kind: str, sizes_mib: list[float]) -> tuple[SharedFile, ...]:
    return tuple(
        SharedFile(kind, f"/{kind}:{number}", round(size * MIB), round(size * MIB), is_mapped=True)
        for number, size in enumerate(sizes_mib)
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("memfd", "so many memfd: 157 of them, such as /memfd:0, hold 78.5 MiB"),
        ("tmpfs", "157 of them, such as /tmpfs:0, hold 78.5 MiB and outlive"),
        ("sysv", "157 System V segments fewer or smaller. They hold 78.5 MiB"),
        ("anonymous", "157 shared anonymous mappings fewer or smaller"),
    ],
)
def test_kind_of_shared_memory_is_that_of_most_of_it(kind: str, words: str) -> None:
    """Many small files of a kind hold more than one larger file of another."""
    other = "anonymous" if kind != "anonymous" else "memfd"
    found = replace(
        findings(made_of(shmem=90), grew(shmem=90)),
        shared_files=(*files(other, [11.5]), *files(kind, [0.5] * 157)),
    )
    assert words in next(WORDS["shmem"].cure(found))
    assert "PostgreSQL" not in "".join(WORDS["shmem"].cure(found))
    first, second = cause_words.SHARED_KINDS[kind], cause_words.SHARED_KINDS[other]
    assert f"shared memory ({first} and {second})" in WORDS["shmem"].sentence(found)


def test_kinds_that_hold_a_part_of_the_shared_memory_are_said_to_hold_that() -> None:
    """The rest is in a System V segment that no process has mapped."""
    found = replace(findings(made_of(shmem=66), grew(shmem=66)), shared_files=files("memfd", [37]))
    assert "66 MiB of it shared memory (37 MiB of that in memfd)" in WORDS["shmem"].sentence(found)
    found = replace(found, shared_files=files("memfd", [60]))
    assert "66 MiB of it shared memory (memfd)" in WORDS["shmem"].sentence(found)


def test_one_file_that_holds_most_of_its_kind_is_named() -> None:
    found = replace(
        findings(made_of(shmem=90), grew(shmem=90)), shared_files=files("anonymous", [80, 1, 1, 1])
    )
    assert "PostgreSQL: shared_buffers" in next(WORDS["shmem"].cure(found))


def test_two_kinds_that_fill_the_limit_together_are_named_though_neither_grew() -> None:
    """A kill right after another one: next to nothing grew since usage was last below half of the limit."""
    found = findings(made_of(anon=47, shmem=50), grew(kernel=1))
    judged = judge(found)
    assert (judged.cause, judged.confidence) == ("shmem", "low")
    assert "50 MiB of it shared memory" in judged.summary
    assert "beside 47 MiB of anonymous memory" in judged.summary


def test_sentence_without_a_cause_has_the_shared_memory_as_well() -> None:
    found = findings(made_of(anon=25, shmem=25, file_clean=40), grew(kernel=1))
    assert judge(found).cause == "unknown"
    assert "25 MiB of it anonymous memory beside 25 MiB of shared memory" in judge(found).summary


def test_usage_below_the_limit_at_the_kill_is_said() -> None:
    full = findings(made_of(anon=90), grew(anon=90))
    assert "was at its limit of 100 MiB, 90 MiB" in judge(full).summary
    freed = replace(full, composition=replace(full.composition, anon=70 * MIB, total=79 * MIB))
    assert "was at its limit of 100 MiB, with 79 MiB still in use, 70 MiB" in judge(freed).summary
