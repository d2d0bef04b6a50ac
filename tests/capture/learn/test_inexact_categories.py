"""The categories whose totals are reported as inexact, on synthetic kernels."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tracer.capture.bpf.hooks import Choice
from tracer.capture.learn.calibration import describe
from tracer.categories import CATEGORIES
from tracer.kernel.probes import SIGNALS, Kind

LEDGER = ("memory by kind", "kernel memory")
ITEMS = {item for category in CATEGORIES for item in category.items} - {"NR_VMALLOC"}


def inexact(family: Kind, unknown: Collection[str], version: int = 2) -> dict[str, str]:
    """Return signal -> its detail on totals, for counters of which these have `unknown` positions."""
    choices = [
        Choice(signal, next(way for way in signal.ways if way.family == family))
        for signal in SIGNALS
        if signal.name in LEDGER
    ]
    positions = {category.item: 0 for category in CATEGORIES if category.name not in unknown}
    described = describe(choices, ITEMS, version, positions)
    assert list(described) == list(LEDGER)
    found = {name: (probe["detail"] or "").rpartition("; ")[2] for name, probe in described.items()}
    return {name: detail for name, detail in found.items() if "not exact" in detail}


@pytest.mark.parametrize("family", [Kind.RAW_TRACEPOINT, Kind.FENTRY, Kind.KPROBE])
def test_describe_with_every_position_reports_none(family: Kind) -> None:
    assert inexact(family, ()) == {}


def test_describe_of_functions_reports_each_category_without_a_position() -> None:
    text = "totals of {} are not exact: their counters were not found"
    assert inexact(Kind.KPROBE, ["shmem", "anon", "swap", "vmalloc"]) == {
        "memory by kind": text.format("anon, shmem"),
        "kernel memory": text.format("vmalloc, swap"),
    }


def test_describe_of_tracepoints_reports_only_categories_that_they_round() -> None:
    assert inexact(Kind.RAW_TRACEPOINT, ["anon", "file", "shmem", "swap"]) == {}
    assert "percpu" in inexact(Kind.RAW_TRACEPOINT, ["percpu"])["kernel memory"]


def test_describe_on_v1_leaves_sockets_out() -> None:
    assert inexact(Kind.FENTRY, ["sock"], version=1) == {}
    assert "sock" in inexact(Kind.FENTRY, ["sock"], version=2)["kernel memory"]
