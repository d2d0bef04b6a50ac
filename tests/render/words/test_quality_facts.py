"""The quality of a trace and of a report in words."""

from __future__ import annotations

import pandas as pd
import pytest

from tracer.analysis.explain import logged_kills
from tracer.analysis.results.quality import SummedInterval
from tracer.enumerations import SUMMED_REASON
from tracer.kernel.probes import SIGNALS
from tracer.render.words import quality_facts
from tracer.render.words.quality_facts import TOTALS_EXACT, end_in_words, summed
from tracer.trace.history import thinning
from tracer.trace.recording_ends import COMMAND_ENDED, DURATION

BEGIN, END = pd.Timestamp("2026-02-03T04:05:06.789Z"), pd.Timestamp("2026-02-03T04:06:07.5Z")


def test_summed_history_is_named_as_the_reason() -> None:
    text = summed([SummedInterval(BEGIN, END, (thinning.REASON,))], TOTALS_EXACT)
    assert text == (
        "page-cache events from 04:05:06.789 to 04:06:07.500 UTC (older history is kept as sums): "
        "totals are exact"
    )


@pytest.mark.parametrize("reason", [*SUMMED_REASON.names[1:], thinning.REASON])
def test_summed_every_reason_is_worded(reason: str) -> None:
    text = summed([SummedInterval(BEGIN, END, (reason,))], TOTALS_EXACT)
    assert f"({reason})" not in text


EXACT = {"hook": "raw_tracepoint mark_victim", "meaning": "exact", "detail": ""}
ABSENT = {"hook": None, "meaning": "absent", "detail": "no kprobes: it is inferred"}
ROUGH = {"hook": "kprobe f", "meaning": "approximate", "detail": "totals are exact"}


def test_probe_has_its_hook_and_its_meaning() -> None:
    written = {"a": EXACT, "b": ABSENT, "c": ROUGH}
    assert dict(quality_facts.ways_taken(written)) == {
        "a": "exact: raw_tracepoint mark_victim",
        "b": "absent: no kprobes: it is inferred",
        "c": "approximate: kprobe f (totals are exact)",
    }


def test_probes_of_older_traces_have_only_the_hook() -> None:
    assert list(quality_facts.ways_taken({"a": "raw_tracepoint", "b": None})) == [
        ("a", "raw_tracepoint"),
        ("b", "absent"),
    ]
    assert quality_facts.not_exact({"OOM kill": "raw_tracepoint", "OOM decision": None}) is None


def test_names_of_signals_and_hooks_are_escaped() -> None:
    ((name, words),) = quality_facts.ways_taken({"\x1b[31m": EXACT | {"hook": "\x1b[31m"}})
    assert "\x1b" not in name + words


def test_inexact_signals_are_one_line() -> None:
    written = {"OOM decision": ABSENT, "OOM candidates": ABSENT, "memory by kind": ROUGH, "OOM kill": EXACT}
    assert (
        quality_facts.not_exact(written)
        == "absent: OOM decision, OOM candidates; approximate: memory by kind"
    )
    assert quality_facts.not_exact({"OOM kill": EXACT}) == quality_facts.ALL_EXACT


def test_signals_outside_of_a_post_mortem_are_left_out() -> None:
    assert quality_facts.not_exact({"OOM kill": EXACT, "kswapd": ABSENT}) == quality_facts.ALL_EXACT


def test_signals_of_a_post_mortem_exist() -> None:
    names = {signal.name for signal in SIGNALS}
    assert names >= quality_facts.EXPLAINED_BY
    assert names.isdisjoint(quality_facts.FORMERLY_EXPLAINED_BY)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (COMMAND_ENDED, "when its command ended"),
        (DURATION, "after the given time (-d)"),
        ("SIGTERM", "by SIGTERM"),
        ("\x1b[31m", r"\x1b[31m"),
        ("SIG\x1b[31m", r"by SIG\x1b[31m"),
    ],
)
def test_end_reason_of_a_trace_is_in_words_and_escaped(reason: str, words: str) -> None:
    assert end_in_words(reason) == words


def test_fields_that_no_kernel_log_shows_have_words() -> None:
    assert [field for field in logged_kills._NOT_IN_LOG if field not in quality_facts.FIELDS_IN_WORDS] == []
