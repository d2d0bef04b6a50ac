"""Traces whose rows were thinned: no sentence contradicts that of the trace with all rows."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from support.thinned import thinned_copy

import tracer
from tracer.analysis.results.kill import OomReport

TRACES = Path(__file__).parents[2] / "traces"
NAMES = ("page-cache", "shmem", "anon", "dirty")
RELATIVE = re.compile(r"[\d.]+ (?:us|ms|s) (?:before|at the limit)")


def report_of(trace: Path) -> OomReport:
    return tracer.open(trace).explain()[0]


@pytest.mark.parametrize("every_ms", [100, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_thinned_kill_has_the_same_levels_and_times_within_the_interval(
    name: str, every_ms: int, tmp_path: Path
) -> None:
    exact, coarse = (
        report_of(TRACES / name),
        report_of(thinned_copy(TRACES / name, tmp_path / name, every_ms)),
    )
    assert (exact.quality.resolution_ms, coarse.quality.resolution_ms) == (0, every_ms)
    assert coarse.verdict.cause == exact.verdict.cause
    assert coarse.verdict.confidence == exact.verdict.confidence
    assert coarse.composition == exact.composition
    assert coarse.cushion.cache_end_bytes == exact.cushion.cache_end_bytes
    assert coarse.cushion.evicted_bytes == exact.cushion.evicted_bytes
    assert coarse.cushion.refaulted_bytes in (None, exact.cushion.refaulted_bytes)
    assert (coarse.cushion.exhausted_at is None) == (exact.cushion.exhausted_at is None)
    pairs = [(coarse.cushion.exhausted_at, exact.cushion.exhausted_at)]
    most, found = exact.allocators[0], coarse.allocators[0]
    assert found.tgid == most.tgid
    assert found.charged_bytes >= most.charged_bytes, "the window begins with a whole interval"
    for less, more in pairs:
        if less is not None and more is not None:
            assert pd.Timedelta(0) <= more - less < pd.Timedelta(every_ms, "ms")


@pytest.mark.parametrize("every_ms", [100, 1000])
def test_sentence_of_a_thinned_kill_has_no_time_finer_than_its_rows(every_ms: int, tmp_path: Path) -> None:
    """In the recording, the page cache was used up 31.3 ms before the kill."""
    report = report_of(thinned_copy(TRACES / "page-cache", tmp_path / "thinned", every_ms))
    limit = {100: "100 ms", 1000: "1 s"}[every_ms]
    assert report.verdict.summary.endswith(f"117 MiB and was used up less than {limit} before.")
    for sentence in (report.verdict.summary, *report.advice, report.sizing.pace):
        for span in RELATIVE.findall(sentence):
            assert re.search(rf"(less than|about) {re.escape(span)}", sentence), sentence


def test_memory_freed_after_a_kill_does_not_lessen_what_was_charged_before(tmp_path: Path) -> None:
    """The killed process freed all its memory within the second of the kill."""
    exact, coarse = (
        report_of(path)
        for path in (TRACES / "page-cache", thinned_copy(TRACES / "page-cache", tmp_path / "thinned", 1000))
    )
    assert coarse.allocators[0].charged_bytes >= exact.allocators[0].charged_bytes > 80 << 20
