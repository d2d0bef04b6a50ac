"""The process that is named for the growth of a kind of memory."""

from __future__ import annotations

import pandas as pd
import pytest
from synthetic.findings import MIB, findings, grew, made_of

from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.evidence.contributing import who_grew
from tracer.analysis.explain.words.advice import advise
from tracer.analysis.results.kill import Cause
from tracer.analysis.results.memory import Allocator

ENDED = pd.Timestamp("2026-01-31T11:59:52+00:00")
DD = Allocator(60, "dd", 94 * MIB, shmem_bytes=54 * MIB, file_bytes=40 * MIB, exited=ENDED)
SORT = Allocator(41, "sort", 29 * MIB, anon_bytes=28 * MIB, kernel_bytes=MIB)
GONE = Allocator(70, "gone", 50 * MIB, anon_bytes=45 * MIB, kernel_bytes=5 * MIB, exited=ENDED)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("anon_growth", ("sort", 28 * MIB, "anon")),
        ("shmem", None),
        ("swap_exhausted", ("sort", 28 * MIB, "anon")),
        ("dirty_writeback", ("dd", 40 * MIB, "file")),
        ("unknown", ("dd", 40 * MIB, "file")),
    ],
)
def test_process_whose_memory_is_still_there_is_named_for_its_kind(
    cause: Cause, expected: tuple[str, int, str] | None
) -> None:
    found = findings(made_of(anon=30, shmem=60), grew(anon=28, shmem=54), allocators=(DD, GONE, SORT))
    named = who_grew(found, CAUSES[cause].grows)
    assert (named and (named.process.comm, named.bytes_, named.kind)) == expected


def test_process_that_grew_by_less_than_a_hundredth_is_not_named() -> None:
    small = Allocator(41, "sort", 90 * MIB, anon_bytes=MIB // 2, file_bytes=89 * MIB)
    assert who_grew(findings(made_of(anon=97), grew(), allocators=(small,)), ("anon",)) is None


def test_advice_names_a_process_that_ended_as_such() -> None:
    found = findings(made_of(anon=30, file_dirty=60), grew(anon=28), allocators=(DD, SORT))
    (line,) = [line for line in advise(found, "dirty_writeback") if "dd (pid 60)" in line]
    assert line.startswith(
        "Look at dd (pid 60), although it had ended: it charged 40 MiB of page cache in the 10 s"
    )
    (line,) = [line for line in advise(found, "anon_growth") if "Look for growth" in line]
    assert line.startswith(
        "Look for growth in sort (pid 41): it charged 28 MiB of anonymous memory in the 10 s"
    )
