from __future__ import annotations

from tracer.kernel.probes import SIGNALS
from tracer.render.words import signal_ways

EXACT = {"hook": "raw_tracepoint mark_victim", "meaning": "exact", "detail": ""}
ABSENT = {"hook": None, "meaning": "absent", "detail": "no kprobes: it is inferred"}
ROUGH = {"hook": "kprobe f", "meaning": "approximate", "detail": "totals are exact"}


def test_probe_has_its_hook_and_its_meaning() -> None:
    written = {"a": EXACT, "b": ABSENT, "c": ROUGH}
    assert dict(signal_ways.taken(written)) == {
        "a": "exact: raw_tracepoint mark_victim",
        "b": "absent: no kprobes: it is inferred",
        "c": "approximate: kprobe f (totals are exact)",
    }


def test_probes_of_older_traces_have_only_the_hook() -> None:
    assert list(signal_ways.taken({"a": "raw_tracepoint", "b": None})) == [
        ("a", "raw_tracepoint"),
        ("b", "absent"),
    ]
    assert signal_ways.not_exact({"OOM kill": "raw_tracepoint", "OOM decision": None}) is None


def test_names_of_signals_and_hooks_are_escaped() -> None:
    ((name, words),) = signal_ways.taken({"\x1b[31m": EXACT | {"hook": "\x1b[31m"}})
    assert "\x1b" not in name + words


def test_inexact_signals_are_one_line() -> None:
    written = {"OOM decision": ABSENT, "OOM candidates": ABSENT, "memory by kind": ROUGH, "OOM kill": EXACT}
    assert (
        signal_ways.not_exact(written) == "absent: OOM decision, OOM candidates; approximate: memory by kind"
    )
    assert signal_ways.not_exact({"OOM kill": EXACT}) == signal_ways.ALL_EXACT


def test_signals_outside_of_a_post_mortem_are_left_out() -> None:
    assert signal_ways.not_exact({"OOM kill": EXACT, "kswapd": ABSENT}) == signal_ways.ALL_EXACT


def test_signals_of_a_post_mortem_exist() -> None:
    names = {signal.name for signal in SIGNALS}
    assert names >= signal_ways.EXPLAINED_BY
    assert names.isdisjoint(signal_ways.FORMERLY_EXPLAINED_BY)
